//! The grammar of a forward file: `URL [pin=sha256:HEX] [mode=keep|strip] [host=target]` on the last line that is not blank; an empty file is a
//! reserved name that leads nowhere. Before: the file's bytes, from a reader that checked permissions.
//! After: resolving the node. Invariant: a `ForwardTarget` that parsed has one meaning for every reader of it: no dot
//! segments, no control characters, no address that can't be one node's.
//!
//! The URL is parsed by hand, not by a library of the URL standard: that one mends what it reads (backslashes become
//! slashes, tabs vanish, `0x7f.1` becomes an address, dot segments are resolved), while a line written by one user and
//! followed for another must mean what it says or be refused. RFC 3986 gives the characters.

mod target;

pub use target::{CertificatePin, Credentials, ForwardTarget, PathMode, Scheme};

use crate::names::NameError;

/// The longest forward file, in bytes. Scripts append a line per job, so there may be many.
pub const MAX_FORWARD_FILE: usize = 64 * 1024;

/// What a forward file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardFile {
    /// Empty or blank: the name is reserved, and leads nowhere.
    Disabled,
    /// It leads to an application.
    Target {
        /// Where to.
        target: ForwardTarget,
        /// Whether an earlier line says something else: an old job's, perhaps. Worth telling the owner.
        lines_differ: bool,
    },
}

/// Why a forward file's line was refused. Display never shows the line: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardFileError {
    /// More than `MAX_FORWARD_FILE` bytes.
    #[error("the forward file has {length} bytes, and at most {MAX_FORWARD_FILE} are allowed")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("the line is not UTF-8 text")]
    NotUtf8,
    /// A character that has no place in the line.
    #[error("the line has {0:?}, which must be left out or percent-encoded")]
    Character(char),
    /// Neither `http://` nor `https://`.
    #[error("the line must begin with http:// or https://")]
    Scheme,
    /// User information in no known form.
    #[error("the part before '@' must be USER:PASSWORD, with special characters percent-encoded")]
    Credentials,
    /// The node.
    #[error("the node in the line can't be used")]
    Node(#[source] NameError),
    /// The port.
    #[error("the port in the line can't be used")]
    Port(#[source] NameError),
    /// `%` without two hexadecimal digits, or one that stands for a control character or a backslash.
    #[error("the line has a '%' that is not followed by the two hexadecimal digits of an allowed character")]
    Percent,
    /// `.` or `..` as a segment of the path, plain or percent-encoded.
    #[error("the path must not contain '.' or '..' as a segment")]
    DotSegment,
    /// Two slashes at the beginning of the path.
    #[error("the path must not begin with two slashes")]
    DoubleSlash,
    /// A query or a fragment.
    #[error("the address must end with its path: no '?' and no '#'")]
    QueryOrFragment,
    /// Something after the URL that is not known.
    #[error(
        "after the address only pin=sha256:HEX, mode=keep or mode=strip, and host=target may follow, each once"
    )]
    Option,
    /// The pin is not the SHA-256 of a certificate.
    #[error(
        "the pin must be sha256: and 64 hexadecimal digits, as openssl x509 -fingerprint -sha256 prints them"
    )]
    Pin,
    /// A pin on plain http.
    #[error("a pin makes sense with https:// only")]
    PinWithoutTls,
}

/// The line of a forward file that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountingLine<'a> {
    /// Without its end and the blanks around it; empty for a disabled forward. May hold a password.
    pub text: &'a str,
    /// Whether an earlier line says something else.
    pub lines_differ: bool,
}

impl<'a> CountingLine<'a> {
    /// Finds it: the last line that is not blank; `\r\n` ends a line as `\n` does. The other lines may hold what they like.
    ///
    /// # Errors
    /// A file over `MAX_FORWARD_FILE`, or a line that is not UTF-8.
    pub fn find(bytes: &'a [u8]) -> Result<Self, ForwardFileError> {
        if bytes.len() > MAX_FORWARD_FILE {
            return Err(ForwardFileError::TooLong { length: bytes.len() });
        }
        let mut lines = bytes.rsplit(|&b| b == b'\n').map(trim).filter(|line| !line.is_empty());
        let last = lines.next().unwrap_or_default();
        let text = std::str::from_utf8(last).map_err(|_| ForwardFileError::NotUtf8)?;
        Ok(Self { text, lines_differ: lines.any(|line| line != last) })
    }

    /// What it says.
    ///
    /// # Errors
    /// Anything that is outside the grammar.
    pub fn parse(self) -> Result<ForwardFile, ForwardFileError> {
        if self.text.is_empty() {
            return Ok(ForwardFile::Disabled);
        }
        let target = ForwardTarget::parse(self.text)?;
        Ok(ForwardFile::Target { target, lines_differ: self.lines_differ })
    }
}

/// What these bytes say.
///
/// # Errors
/// As [`CountingLine::find`] and [`CountingLine::parse`].
pub fn parse(bytes: &[u8]) -> Result<ForwardFile, ForwardFileError> {
    CountingLine::find(bytes)?.parse()
}

/// The line without its `\r` and the blanks around it. Not `trim_ascii`, which also takes form feeds.
fn trim(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let end = line.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &line[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> Result<(String, bool), ForwardFileError> {
        match parse(bytes)? {
            ForwardFile::Disabled => Ok(("disabled".into(), false)),
            ForwardFile::Target { target, lines_differ } => Ok((target.to_string(), lines_differ)),
        }
    }

    #[test]
    fn the_last_line_that_is_not_blank_counts() {
        for (file, target, differ) in [
            (&b""[..], "disabled", false),
            (b"\n", "disabled", false),
            (b" \t\r\n\r\n\n  ", "disabled", false),
            (b"http://c1:8888", "http://c1:8888/", false),
            (b"http://c1:8888/\n", "http://c1:8888/", false),
            (b"http://c1:8888/\r\n", "http://c1:8888/", false),
            (b"  http://c1:8888/ \t\r\n\n \n", "http://c1:8888/", false),
            (b"http://c1:1/\nhttp://c2:2/\n", "http://c2:2/", true),
            (b"http://c1:1/\r\nhttp://c1:1/\n", "http://c1:1/", false),
            (b"# mine \xff\x00\nhttp://c1:1/\n", "http://c1:1/", true),
            (b"http://c2:2/\nhttp://c1:1/\nhttp://c1:1/\n", "http://c1:1/", true),
        ] {
            assert_eq!(shown(file), Ok((target.to_owned(), differ)), "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn the_counting_line_is_strict() {
        for (file, error) in [
            (&b"http://c1:1/\0"[..], ForwardFileError::Character('\0')),
            (b"\0\0\0\0", ForwardFileError::Character('\0')),
            (b"http://c1:1/\x0c", ForwardFileError::Character('\x0c')),
            (b"http://c1:1/\rhttp://c2:2/", ForwardFileError::Character('\r')),
            (b"http://c1:1/\r\r\n", ForwardFileError::Character('\r')),
            (b"http://c1:1/\x1b[31m", ForwardFileError::Character('\x1b')),
            (b"http://c1:1/\x7f", ForwardFileError::Character('\x7f')),
            (b"http://c1:1/\xff", ForwardFileError::NotUtf8),
            (b"\xef\xbb\xbfhttp://c1:1/", ForwardFileError::Character('\u{feff}')),
            ("http://c1:1/é".as_bytes(), ForwardFileError::Character('é')),
            (b"http://c1:1/\nc2:2\n", ForwardFileError::Scheme),
        ] {
            assert_eq!(shown(file), Err(error), "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn the_length_is_bounded() {
        let mut file = vec![b'\n'; MAX_FORWARD_FILE];
        assert_eq!(parse(&file), Ok(ForwardFile::Disabled));
        file.push(b'\n');
        assert_eq!(parse(&file), Err(ForwardFileError::TooLong { length: MAX_FORWARD_FILE + 1 }));
    }
}
