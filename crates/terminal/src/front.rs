//! The picture of all output that is older than the log: what a terminal shows that has seen it.
//! Before: `log`, which hands over what falls out of it.
//!
//! Invariant: a terminal that is shown [`Front::picture`] and then the log looks like one that saw everything. What is
//! known beside vt100: the scrolling region and the line-drawing characters. What is not: the cursor that a program
//! saved (DECSC) before the log begins, origin mode, and colours that it changed (OSC 4).

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::escape::{Scanner, Step};
use crate::size::Size;

/// Follows the output up to where the log begins.
pub(crate) struct Front {
    parser: vt100::Parser,
    scanner: Scanner,
    size: Size,
    region: Option<Region>,
    charset: Charset,
    /// What the parser gets next.
    fed: Vec<u8>,
}

/// The first and the last row that scroll (DECSTBM).
type Region = (u16, u16);

/// Which of two sets is in use, and which of them draws lines (`ESC ( 0`).
#[derive(Debug, Default, Clone, Copy)]
struct Charset {
    draws: [bool; 2],
    shifted: bool,
}

impl Charset {
    fn draws_lines(self) -> bool {
        self.draws[usize::from(self.shifted)]
    }
}

impl Front {
    pub(crate) fn new(size: Size) -> Self {
        Self {
            parser: blank(size),
            scanner: Scanner::default(),
            size,
            region: None,
            charset: Charset::default(),
            fed: Vec::new(),
        }
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// The log may begin here.
    pub(crate) fn is_between(&self) -> bool {
        self.scanner.is_between()
    }

    pub(crate) fn resize(&mut self, size: Size) {
        self.size = size;
        self.region = None;
        self.guarded(|parser, _| parser.screen_mut().set_size(size.rows.max(LEAST_ROWS), size.cols));
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut fed = std::mem::take(&mut self.fed);
        fed.clear();
        for byte in bytes {
            match self.scanner.step(*byte) {
                Step::Surplus => continue,
                Step::Text if *byte == 0x0e || *byte == 0x0f => self.charset.shifted = *byte == 0x0e,
                Step::Text if self.charset.draws_lines() => {
                    if let Some(drawn) = line_drawing(*byte) {
                        fed.extend_from_slice(drawn.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                }
                Step::Escape { intermediate: b'(', end } => self.charset.draws[0] = end == b'0',
                Step::Escape { intermediate: b')', end } => self.charset.draws[1] = end == b'0',
                Step::Escape { intermediate: 0, end: b'c' } | Step::Csi { parameters: b"!", end: b'p' } => {
                    self.region = None;
                    self.charset = Charset::default();
                }
                Step::Csi { parameters, end: b'r' } => {
                    if let Some(region) = region(parameters, self.size.rows) {
                        self.region = region;
                    }
                }
                // Each of the two screens has its own.
                Step::Csi { parameters: b"?47" | b"?1047" | b"?1049", end: b'h' | b'l' } => {
                    self.region = None;
                }
                Step::Text | Step::Escape { .. } | Step::Csi { .. } | Step::Part => {}
            }
            fed.push(*byte);
        }
        self.guarded(|parser, _| parser.process(&fed));
        self.fed = fed;
    }

    /// What shows it on a terminal of the same size that has just been reset.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let between = self.is_between();
        let mut picture = self.guarded(|parser, region| drawn(parser, region, between)).unwrap_or_default();
        for (draws, designate) in self.charset.draws.iter().zip([b"\x1b(0", b"\x1b)0"]) {
            if *draws {
                picture.extend_from_slice(designate);
            }
        }
        if self.charset.shifted {
            picture.push(0x0e);
        }
        picture.extend(self.scanner.opener());
        picture
    }

    /// The output is anybody's: should it bring the parser down, there is no picture, and the program goes on.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut vt100::Parser, Option<Region>) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| act(&mut self.parser, self.region))).ok();
        if done.is_none() {
            tracing::error!("the picture of old output is lost: its parser failed");
            self.parser = blank(self.size);
        }
        done
    }
}

/// The screen. Between two sequences the parser can be asked for both screens.
fn drawn(parser: &mut vt100::Parser, region: Option<Region>, between: bool) -> Vec<u8> {
    let mut picture = Vec::new();
    if parser.screen().alternate_screen() {
        // What lies under it comes back when the program leaves it.
        if between {
            parser.process(b"\x1b[?47l");
            picture.extend(parser.screen().contents_formatted());
            parser.process(b"\x1b[?47h");
        }
        picture.extend_from_slice(b"\x1b[?1049h");
    }
    let screen = parser.screen();
    picture.extend(screen.state_formatted());
    if let Some((top, bottom)) = region {
        // This moves the cursor.
        picture.extend(format!("\x1b[{top};{bottom}r").into_bytes());
        picture.extend(screen.cursor_state_formatted());
        picture.extend(screen.attributes_formatted());
    }
    picture
}

/// The parser fails when a line is wrapped on a terminal of one row.
const LEAST_ROWS: u16 = 2;

fn blank(size: Size) -> vt100::Parser {
    vt100::Parser::new(size.rows.max(LEAST_ROWS), size.cols, 0)
}

/// What DECSTBM asks for: `Some(None)` is the whole screen, `None` is no region at all.
fn region(parameters: &[u8], rows: u16) -> Option<Option<Region>> {
    let text = std::str::from_utf8(parameters).ok()?;
    let (top, bottom) = text.split_once(';').unwrap_or((text, ""));
    let number = |text: &str, otherwise: u16| match text {
        "" | "0" => Some(otherwise),
        text => text.parse::<u16>().ok(),
    };
    let (top, bottom) = (number(top, 1)?, number(bottom, rows)?.min(rows));
    if top >= bottom {
        return None;
    }
    Some((top != 1 || bottom != rows).then_some((top, bottom)))
}

/// DEC special graphics (VT100 user guide, table 3-9).
fn line_drawing(byte: u8) -> Option<char> {
    const DRAWN: [char; 31] = [
        '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽',
        '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
    ];
    byte.checked_sub(0x60).and_then(|place| DRAWN.get(usize::from(place)).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8], size: Size) -> vt100::Parser {
        let mut parser = vt100::Parser::new(size.rows, size.cols, 0);
        parser.process(bytes);
        parser
    }

    /// Cut after `before`, it goes on as if it had not been.
    fn same(before: &str, after: &str) {
        let size = Size { cols: 20, rows: 6 };
        let mut front = Front::new(size);
        front.feed(before.as_bytes());
        let mut seen = front.picture();
        seen.extend_from_slice(after.as_bytes());
        let (cut, whole) = (shown(&seen, size), shown(&[before, after].concat().into_bytes(), size));
        assert_eq!(cut.screen().contents(), whole.screen().contents(), "{before:?} | {after:?}");
        assert_eq!(
            cut.screen().state_formatted(),
            whole.screen().state_formatted(),
            "{before:?} | {after:?}"
        );
    }

    #[test]
    fn a_picture_goes_on_like_the_whole() {
        for (before, after) in [
            ("one\r\ntwo", "\r\nthree"),
            ("\x1b[1;31mred", " more\x1b[0m plain"),
            ("1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7", "\r\n8"),
            ("below\x1b[?1049h\x1b[Hover", "\x1b[2;2Hmore"),
            ("below\x1b[?1049h\x1b[Hover", "\x1b[?1049lback"),
            ("a\r\nb\r\nc\x1b[2;3r\x1b[3;1H", "\n\nx\x1b[6;1Hy"),
            ("12345678901234567890", "x"),
            ("\x1b[?2004h\x1b[?1000h\x1b[?25l", "x"),
            ("\x1b]0;half a ti", "tle\x07text"),
            ("\x1b[?1h\x1b=ä€😀", "ö"),
        ] {
            same(before, after);
        }
    }

    #[test]
    fn drawn_lines_are_lines_before_and_after_the_cut() {
        let size = Size { cols: 20, rows: 6 };
        let mut front = Front::new(size);
        front.feed(b"\x1b(0lqk\x1b(Bqq\x1b)0\x0ex");
        assert_eq!(shown(&front.picture(), size).screen().contents(), "┌─┐qq│");
        assert!(front.picture().ends_with(b"\x1b)0\x0e"));
    }

    #[test]
    fn no_output_brings_it_down_or_makes_it_grow() {
        let mut front = Front::new(Size::FIRST);
        // Numbers without a pattern (xorshift), the same in every run.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let alphabet: Vec<char> =
            "\x1b\x1b\x1b[[?;0123456789hlmrABCDHJKLMPSTX@\r\n\täß漢字😀e\u{301}(0c78\x0e\x0f"
                .chars()
                .collect();
        for _ in 0..300 {
            let text: String =
                (0..200).map(|_| alphabet[usize::try_from(next() >> 33).unwrap() % alphabet.len()]).collect();
            front.feed(text.as_bytes());
            front.picture();
            front.resize(Size::nearest((next() % 30).cast_signed(), (next() % 9).cast_signed()));
        }
        front.feed(&vec![b'x'; 1_000_000]);
        assert!(front.fed.capacity() <= 4_000_000);
    }
}
