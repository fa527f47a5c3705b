//! Content codings (RFC 9110 section 8.4.1), taken off as the bytes come: gzip, deflate, br and zstd.
//!
//! Invariant: a few bytes can't become many: each step's output is bounded, and past the first MiB a body that inflates
//! more than [`MOST_INFLATED`] times is refused. The windows are those that browsers allow.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};

mod zstd;
use zstd::Zstd;

/// How many times larger than it was a body may become, after its first MiB.
pub const MOST_INFLATED: u64 = 1000;

/// From when the ratio counts, in bytes.
const FREE: u64 = 1 << 20;

/// Input that is looked at in one step, and the most that it may become.
const STEP: usize = 1 << 10;
const MOST_IN_A_STEP: usize = 4 << 20;

/// Why a body can't be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// It inflates more than a page can.
    #[error("the body inflates too much")]
    Inflates,
    /// It is not what its content coding says.
    #[error("the body is not in its content coding")]
    Malformed,
}

/// A coding that can be taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// The coding of a body; `None` when it is one that we don't know, or several.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut coding = Self::Identity;
        for field in headers.get_all(CONTENT_ENCODING) {
            for one in field.to_str().ok()?.split(',').map(str::trim).filter(|one| !one.is_empty()) {
                let one = match one.to_ascii_lowercase().as_str() {
                    "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "br" => Self::Brotli,
                    "zstd" => Self::Zstd,
                    _ => return None,
                };
                if coding != Self::Identity {
                    return None;
                }
                coding = one;
            }
        }
        Some(coding)
    }
}

/// Leaves of a request's `Accept-Encoding` what can be taken off again. Without the field nothing changes.
pub fn narrow_accept_encoding(headers: &mut HeaderMap) {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return;
    }
    let known: Vec<&str> = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .filter(|one| {
            let name = one.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            matches!(name.as_str(), "gzip" | "x-gzip" | "deflate" | "br" | "zstd" | "identity")
        })
        .collect();
    let known = if known.is_empty() { "identity".to_owned() } else { known.join(", ") };
    if let Ok(value) = HeaderValue::try_from(known) {
        headers.insert(ACCEPT_ENCODING, value);
    }
}

/// Takes one coding off.
pub(crate) struct Decoder {
    state: State,
    read: u64,
    written: u64,
}

enum State {
    Gzip(Box<GzDecoder<Step>>),
    /// Both forms go by this name; the first two bytes tell.
    Deflate(Vec<u8>),
    Zlib(Box<ZlibDecoder<Step>>),
    Raw(Box<DeflateDecoder<Step>>),
    Brotli(Box<DecompressorWriter<Step>>),
    Zstd(Box<Zstd>),
    /// What follows the end counts for nothing.
    Over,
}

/// What one step gave.
#[derive(Default)]
pub(crate) struct Step(Vec<u8>);

impl Write for Step {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_IN_A_STEP {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// `None` when there is nothing to take off.
    pub(crate) fn new(coding: Coding) -> Option<Self> {
        let state = match coding {
            Coding::Identity => return None,
            Coding::Gzip => State::Gzip(Box::new(GzDecoder::new(Step::default()))),
            Coding::Deflate => State::Deflate(Vec::new()),
            Coding::Brotli => State::Brotli(Box::new(DecompressorWriter::new(Step::default(), 4096))),
            Coding::Zstd => State::Zstd(Box::new(Zstd::new())),
        };
        Some(Self { state, read: 0, written: 0 })
    }

    /// Decodes some bytes of the beginning, and returns how many.
    pub(crate) fn step(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<usize, CodingError> {
        let taken = bytes.len().min(STEP);
        let rest = bytes.get(..taken).unwrap_or_default();
        self.read += taken as u64;
        if let State::Deflate(held) = &mut self.state {
            held.extend_from_slice(rest);
            let [first, second, ..] = *held.as_slice() else { return Ok(taken) };
            let held = std::mem::take(held);
            // RFC 1950 section 2.2.
            let is_zlib = first & 0x0f == 8 && (u16::from(first) * 256 + u16::from(second)) % 31 == 0;
            self.state = if is_zlib {
                State::Zlib(Box::new(ZlibDecoder::new(Step::default())))
            } else {
                State::Raw(Box::new(DeflateDecoder::new(Step::default())))
            };
            self.write(&held, plain)?;
            return Ok(taken);
        }
        if let State::Zstd(zstd) = &mut self.state {
            zstd.hold(rest);
            while let State::Zstd(zstd) = &mut self.state {
                let before = plain.len();
                if !zstd.one(plain)? {
                    break;
                }
                self.count(plain.len() - before)?;
            }
        } else {
            self.write(rest, plain)?;
        }
        Ok(taken)
    }

    fn write(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), CodingError> {
        let before = plain.len();
        let over = match &mut self.state {
            State::Gzip(decoder) => feed(&mut **decoder, |decoder| &mut decoder.get_mut().0, bytes, plain)?,
            State::Zlib(decoder) => feed(&mut **decoder, |decoder| &mut decoder.get_mut().0, bytes, plain)?,
            State::Raw(decoder) => feed(&mut **decoder, |decoder| &mut decoder.get_mut().0, bytes, plain)?,
            State::Brotli(decoder) => feed(&mut **decoder, |decoder| &mut decoder.get_mut().0, bytes, plain)?,
            State::Zstd(_) | State::Deflate(_) | State::Over => false,
        };
        self.count(plain.len() - before)?;
        if over {
            self.state = State::Over;
        }
        Ok(())
    }

    fn count(&mut self, written: usize) -> Result<(), CodingError> {
        self.written += written as u64;
        if self.written > FREE && self.written / MOST_INFLATED > self.read {
            return Err(CodingError::Inflates);
        }
        Ok(())
    }

    /// What is left at the end. One that ends early is passed as far as it goes, as browsers do.
    pub(crate) fn finish(&mut self, plain: &mut Vec<u8>) {
        match &mut self.state {
            State::Gzip(decoder) => {
                let _ = decoder.try_finish();
                plain.append(&mut decoder.get_mut().0);
            }
            State::Zlib(decoder) => {
                let _ = decoder.try_finish();
                plain.append(&mut decoder.get_mut().0);
            }
            State::Raw(decoder) => {
                let _ = decoder.try_finish();
                plain.append(&mut decoder.get_mut().0);
            }
            State::Brotli(decoder) => {
                let _ = decoder.flush();
                plain.append(&mut decoder.get_mut().0);
            }
            State::Zstd(_) | State::Deflate(_) | State::Over => {}
        }
        self.state = State::Over;
    }
}

/// Writes into a decoder and takes out what it gave. Returns whether its stream is over.
fn feed<D: Write>(
    decoder: &mut D,
    step: impl Fn(&mut D) -> &mut Vec<u8>,
    mut bytes: &[u8],
    plain: &mut Vec<u8>,
) -> Result<bool, CodingError> {
    while !bytes.is_empty() {
        match decoder.write(bytes) {
            Ok(0) => {
                plain.append(step(decoder));
                return Ok(true);
            }
            Ok(used) => bytes = bytes.get(used..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(CodingError::Inflates),
            Err(_) => return Err(CodingError::Malformed),
        }
    }
    // What the decoder holds back must not wait for more.
    if decoder.flush().is_err() {
        return Err(CodingError::Malformed);
    }
    plain.append(step(decoder));
    Ok(false)
}

#[cfg(test)]
mod tests;
