//! The program's output: the last of it as it came, with the size the terminal had, and a picture of all before.
//!
//! Invariant: it never waits for a reader and never grows beyond `limits::LOG` by more than one read. An offset counts
//! all bytes since the program began. The log begins between two sequences, unless one is longer than `limits::LOG_CUT`.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::front::Front;
use crate::limits;
use crate::size::Size;

pub(crate) struct Log {
    bytes: VecDeque<u8>,
    /// The offset of the first of them.
    start: u64,
    /// Sizes, each from an offset on; all after `start`, ascending.
    sizes: VecDeque<(u64, Size)>,
    front: Front,
    limit: usize,
}

impl Log {
    pub(crate) fn new(size: Size) -> Self {
        Self::of(size, limits::LOG)
    }

    fn of(size: Size, limit: usize) -> Self {
        Self { bytes: VecDeque::new(), start: 0, sizes: VecDeque::new(), front: Front::new(size), limit }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        if self.bytes.len() > self.limit {
            self.drop_front(self.bytes.len() - self.limit + self.limit / (limits::LOG / limits::LOG_STEP));
        }
    }

    /// What comes from now on is for a terminal of this size.
    pub(crate) fn resize(&mut self, size: Size) {
        if self.size_at(self.end()) == size {
            return;
        }
        let end = self.end();
        if end == self.start {
            return self.front.resize(size);
        }
        match self.sizes.back_mut() {
            Some((from, last)) if *from == end => *last = size,
            _ => self.sizes.push_back((end, size)),
        }
        if self.sizes.len() > limits::LOG_SIZES
            && let Some((from, _)) = self.sizes.front()
        {
            self.drop_front(usize::try_from(from - self.start).unwrap_or(usize::MAX));
        }
    }

    /// The size of a terminal that has seen everything before `offset`.
    pub(crate) fn size_at(&self, offset: u64) -> Size {
        let last = self.sizes.iter().take_while(|(from, _)| *from <= offset).last();
        last.map_or(self.front.size(), |(_, size)| *size)
    }

    /// What comes at `offset`, at most `most` bytes, all for the same size. Empty at the end; `None` if it is gone.
    pub(crate) fn piece(&self, offset: u64, most: usize) -> Option<Bytes> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        if from > self.bytes.len() {
            return None;
        }
        let next_size = self.sizes.iter().map(|(from, _)| *from).find(|from| *from > offset);
        let until_then =
            next_size.map_or(usize::MAX, |next| usize::try_from(next - offset).unwrap_or(usize::MAX));
        let to = from + most.min(until_then).min(self.bytes.len() - from);
        let (head, tail) = self.bytes.as_slices();
        let cut = head.len();
        if to <= cut {
            return Some(Bytes::copy_from_slice(&head[from..to]));
        }
        if from >= cut {
            return Some(Bytes::copy_from_slice(&tail[from - cut..to - cut]));
        }
        Some([&head[from..], &tail[..to - cut]].concat().into())
    }

    /// What shows, on a terminal of `size_at(start())`, everything before the log.
    pub(crate) fn picture(&mut self) -> Bytes {
        if self.start == 0 { Bytes::new() } else { self.front.picture().into() }
    }

    /// Drops at least `count` bytes, as far as there are as many.
    fn drop_front(&mut self, count: usize) {
        let mut left = count.min(self.bytes.len());
        while left > 0 {
            let until_size = self
                .sizes
                .front()
                .map_or(usize::MAX, |(from, _)| usize::try_from(from - self.start).unwrap_or(usize::MAX));
            left -= self.drop_as_one(left.min(until_size));
        }
        let mut looked = 0;
        while !self.front.is_between() && looked < limits::LOG_CUT && !self.bytes.is_empty() {
            looked += self.drop_as_one(1);
        }
    }

    /// Drops bytes among which the size does not change.
    fn drop_as_one(&mut self, count: usize) -> usize {
        let (head, tail) = self.bytes.as_slices();
        self.front.feed(&head[..count.min(head.len())]);
        if count > head.len() {
            self.front.feed(&tail[..(count - head.len()).min(tail.len())]);
        }
        self.bytes.drain(..count);
        self.start += count as u64;
        while let Some((from, size)) = self.sizes.front()
            && *from <= self.start
        {
            self.front.resize(*size);
            self.sizes.pop_front();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Size = Size { cols: 40, rows: 5 };
    const SMALL: Size = Size { cols: 10, rows: 3 };

    /// Everything that can be read from `offset` on, with each size's offset.
    fn read(log: &Log, mut offset: u64) -> (Vec<u8>, Vec<(u64, Size)>) {
        let (mut all, mut sizes) = (Vec::new(), vec![(offset, log.size_at(offset))]);
        loop {
            let piece = log.piece(offset, 7).unwrap();
            if piece.is_empty() {
                return (all, sizes);
            }
            all.extend_from_slice(&piece);
            offset += piece.len() as u64;
            if sizes.last().unwrap().1 != log.size_at(offset) {
                sizes.push((offset, log.size_at(offset)));
            }
        }
    }

    #[test]
    fn each_byte_is_read_in_its_size() {
        let mut log = Log::new(WIDE);
        log.append(b"0123456789");
        log.resize(SMALL);
        log.resize(SMALL);
        log.append(b"abc");
        log.resize(WIDE);
        let (bytes, sizes) = read(&log, 4);
        assert_eq!(bytes, b"456789abc");
        assert_eq!(sizes, [(4, WIDE), (10, SMALL), (13, WIDE)]);
        assert_eq!(log.piece(13, 7).unwrap(), "");
        assert_eq!(log.piece(14, 7), None);
    }

    #[test]
    fn what_falls_out_lives_on_as_a_picture() {
        // A limit and a step small enough for a test to pass them often.
        let mut log = Log::of(WIDE, 1600);
        let mut whole = vt100::Parser::new(WIDE.rows, WIDE.cols, 0);
        for n in 0..400 {
            let line = format!("\x1b[3{}mline {n} of ä€😀\x1b[0m\r\n", n % 8);
            log.append(line.as_bytes());
            whole.process(line.as_bytes());
            if n % 50 == 49 {
                let size = if n % 100 == 49 { SMALL } else { WIDE };
                log.resize(size);
                whole.screen_mut().set_size(size.rows, size.cols);
            }
            assert!(log.bytes.len() <= 1600);
            assert_eq!(log.end() - log.start, log.bytes.len() as u64);
        }
        assert!(log.start > 0);
        assert_eq!(log.piece(0, 7), None);
        let first = log.size_at(log.start());
        let mut seen = vt100::Parser::new(first.rows, first.cols, 0);
        seen.process(&log.picture());
        let mut offset = log.start();
        while offset < log.end() {
            let piece = log.piece(offset, 64).unwrap();
            seen.process(&piece);
            offset += piece.len() as u64;
            let size = log.size_at(offset);
            seen.screen_mut().set_size(size.rows, size.cols);
        }
        assert_eq!(seen.screen().state_formatted(), whole.screen().state_formatted());
    }

    #[test]
    fn many_sizes_are_not_kept() {
        let mut log = Log::new(WIDE);
        for n in 0..10_000 {
            log.append(b"x");
            log.resize(if n % 2 == 0 { SMALL } else { WIDE });
        }
        assert!(log.sizes.len() <= limits::LOG_SIZES + 1);
        assert_eq!(log.size_at(log.end()), WIDE);
    }
}
