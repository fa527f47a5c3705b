//! An HTTP/2 client by hand, for what no library sends. Header blocks are literals without indexing and without
//! Huffman coding (RFC 7541 section 6.2.2), so that every byte arrives as it is written.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::stream::Wire;

/// Frame types (RFC 9113 section 6).
pub mod kind {
    /// Body.
    pub const DATA: u8 = 0;
    /// Fields.
    pub const HEADERS: u8 = 1;
    /// End of one stream.
    pub const RST_STREAM: u8 = 3;
    /// Rules.
    pub const SETTINGS: u8 = 4;
    /// Are you there?
    pub const PING: u8 = 6;
    /// End of all streams.
    pub const GOAWAY: u8 = 7;
    /// More room.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More fields.
    pub const CONTINUATION: u8 = 9;
}

/// Flags of HEADERS, CONTINUATION and DATA.
pub const END_STREAM: u8 = 1;
/// See [`END_STREAM`].
pub const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// 0: the connection.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Its bytes.
    ///
    /// # Panics
    /// When the payload is longer than a frame can be.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap();
        assert!(length < 1 << 24);
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The error code of RST_STREAM and GOAWAY.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        self.payload.get(at..at + 4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
    }

    /// The status of a HEADERS frame, when it comes first and is coded in one of the ways in which libraries do.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let block = &self.payload;
        if self.kind != kind::HEADERS {
            return None;
        }
        // A size update of the table may come first.
        let at = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
        let indexed = [200, 204, 206, 304, 400, 404, 500];
        match block[at] {
            first @ 0x88..=0x8e => Some(indexed[usize::from(first - 0x88)]),
            _ => {
                let length = usize::from(block.get(at + 1)? & 0x7f);
                let value = block.get(at + 2..at + 2 + length)?;
                if block[at + 1] & 0x80 == 0 {
                    return std::str::from_utf8(value).ok()?.parse().ok();
                }
                digits(value).parse().ok()
            }
        }
    }
}

/// Digits in Huffman code (RFC 7541 appendix B): 0, 1, 2 have five bits, the others six.
fn digits(coded: &[u8]) -> String {
    let bits: Vec<u8> = coded.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0_u8, |sum, bit| sum << 1 | bit);
    let (mut text, mut rest) = (String::new(), &bits[..]);
    while rest.len() >= 5 {
        let five = number(&rest[..5]);
        if five < 3 {
            text.push(char::from(b'0' + five));
            rest = &rest[5..];
        } else if rest.len() >= 6 && (0x19..=0x1f).contains(&number(&rest[..6])) {
            text.push(char::from(b'3' + number(&rest[..6]) - 0x19));
            rest = &rest[6..];
        } else {
            break;
        }
    }
    text
}

/// A header block, byte for byte.
#[must_use]
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128 + 128) as u8);
        value /= 128;
    }
    block.push(value as u8);
}

/// A connection.
#[derive(Debug)]
pub struct Frames<S>(pub Wire<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Sends preface and empty settings.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn begin(stream: S) -> io::Result<Self> {
        let mut frames = Self(Wire::new(stream));
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        first.extend(frame(kind::SETTINGS, 0, 0, []).bytes());
        frames.0.send(first).await?;
        Ok(frames)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.0.send(frame.bytes()).await
    }

    /// The next frame, which is left without an answer that it may want.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn next_unanswered(&mut self) -> io::Result<Frame> {
        let head = self.0.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let payload = self.0.exactly(length as usize).await?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame; settings and pings are answered.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn next(&mut self) -> io::Result<Frame> {
        let frame = self.next_unanswered().await?;
        if frame.kind == kind::SETTINGS && frame.flags & 1 == 0 {
            // Neither side may wait for this one; that the connection is gone shows at the next read.
            let _ = self.send(&Frame { flags: 1, payload: Vec::new(), ..frame.clone() }).await;
        }
        if frame.kind == kind::PING && frame.flags & 1 == 0 {
            let _ = self.send(&Frame { flags: 1, ..frame.clone() }).await;
        }
        Ok(frame)
    }

    /// What becomes of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Ok(frame) = self.next().await else { return Outcome::Closed };
            match frame.kind {
                kind::GOAWAY if frame.code() != Some(0) => {
                    return Outcome::Away(frame.code().unwrap_or_default());
                }
                kind::RST_STREAM if frame.stream == stream => {
                    return Outcome::Reset(frame.code().unwrap_or_default());
                }
                kind::HEADERS if frame.stream == stream => {
                    return Outcome::Answer(frame.status().unwrap_or_default());
                }
                _ => {}
            }
        }
    }
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Answer(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    Away(u32),
    /// The connection ended.
    Closed,
}

/// A frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame { kind, flags, stream, payload: payload.into() }
}
