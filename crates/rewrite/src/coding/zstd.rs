//! Zstandard (RFC 8878), one block after the other: the library wants whole ones.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::CodingError;

/// The window that browsers allow (RFC 9659).
const WINDOW: u64 = 8 << 20;
/// The longest header of a frame.
const HEADER: usize = 18;
/// The longest block.
const BLOCK: usize = 128 << 10;

pub(super) struct Zstd {
    decoder: FrameDecoder,
    /// Bytes of a header, or of a block, that is not complete.
    held: Vec<u8>,
    in_frame: bool,
    has_checksum: bool,
}

impl Zstd {
    pub(super) fn new() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self { decoder, held: Vec::new(), in_frame: false, has_checksum: false }
    }

    /// Takes bytes, of which [`Self::one`] reads.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Reads a header or a block. Returns whether there was one.
    pub(super) fn one(&mut self, plain: &mut Vec<u8>) -> Result<bool, CodingError> {
        if !self.in_frame {
            let Some(length) = header_length(&self.held) else { return Ok(false) };
            if self.held.len() < length {
                return Ok(false);
            }
            self.has_checksum = self.held.get(4).is_some_and(|descriptor| descriptor & 4 != 0);
            let mut source = self.held.get(..length).unwrap_or_default();
            self.decoder.reset(&mut source).map_err(|_| CodingError::Malformed)?;
            self.held.drain(..length);
            self.in_frame = true;
            return Ok(true);
        }
        let [first, second, third, ..] = *self.held.as_slice() else { return Ok(false) };
        let header = u32::from_le_bytes([first, second, third, 0]);
        let size = usize::try_from(header >> 3).unwrap_or(usize::MAX);
        let content = match header >> 1 & 3 {
            1 => 1,
            0 | 2 if size <= BLOCK => size,
            _ => return Err(CodingError::Malformed),
        };
        if size > BLOCK {
            return Err(CodingError::Malformed);
        }
        let is_last = header & 1 == 1;
        let length = 3 + content + if is_last && self.has_checksum { 4 } else { 0 };
        let Some(mut source) = self.held.get(..length) else { return Ok(false) };
        self.decoder
            .decode_blocks(&mut source, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|_| CodingError::Malformed)?;
        self.held.drain(..length);
        self.decoder.collect_to_writer(plain).map_err(|_| CodingError::Malformed)?;
        if is_last {
            self.in_frame = false;
        }
        Ok(true)
    }
}

/// How long a frame's header is (RFC 8878 section 3.1.1.1); `None` before that can be told.
fn header_length(held: &[u8]) -> Option<usize> {
    let descriptor = *held.get(4)?;
    let single = descriptor & 0x20 != 0;
    let dictionary = match descriptor & 3 {
        3 => 4,
        other => usize::from(other),
    };
    let content = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let length = 5 + usize::from(!single) + dictionary + content;
    debug_assert!(length <= HEADER);
    Some(length)
}
