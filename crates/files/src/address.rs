//! How a path stands in an address: each name percent-encoded, a slash at the end for a directory.
//! Invariant: two different paths have different addresses, and what is encoded twice is a name with percent signs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::rel_path::{PathError, RelPath};

/// What may stand in an address as it is (RFC 3986, unreserved characters).
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What an address means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `None`: the root.
    pub path: Option<RelPath>,
    /// A slash stands at the end: whoever wrote it means a directory.
    pub slash: bool,
}

/// Why a text is no address of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A percent sign that encodes nothing would stand for itself.
    #[error("a percent sign in it is not followed by two hexadecimal digits")]
    Percent,
    /// A name can hold a slash no more than a file system's can: `%2F` is refused.
    #[error("a name can't have a slash in it")]
    Slash,
    /// What is decoded is no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl Address {
    /// `text` is what follows the address of the root, without the slash between them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (names, slash) = match text.strip_suffix('/') {
            Some(names) => (names, true),
            None => (text, text.is_empty()),
        };
        if names.is_empty() && text != "/" {
            return Ok(Self { path: None, slash });
        }
        let mut path = Vec::with_capacity(names.len());
        for (number, name) in names.split('/').enumerate() {
            if !name.split('%').skip(1).all(begins_with_two_digits) {
                return Err(AddressError::Percent);
            }
            if number > 0 {
                path.push(b'/');
            }
            let begin = path.len();
            path.extend(percent_decode_str(name));
            if path[begin..].contains(&b'/') {
                return Err(AddressError::Slash);
            }
            if begin == path.len() {
                return Err(PathError::EmptyName.into());
            }
        }
        Ok(Self { path: Some(RelPath::parse(&path)?), slash })
    }
}

fn begins_with_two_digits(text: &str) -> bool {
    matches!(text.as_bytes(), [one, two, ..] if one.is_ascii_hexdigit() && two.is_ascii_hexdigit())
}

/// A name as it stands in an address.
#[must_use]
pub fn segment(name: &[u8]) -> String {
    percent_encode(name, &PLAIN).to_string()
}

/// The same, written behind what is there.
pub fn push_segment(address: &mut String, name: &[u8]) {
    address.extend(percent_encode(name, &PLAIN));
}

/// A path as it stands in an address, without a slash at either end.
#[must_use]
pub fn segments(path: &RelPath) -> String {
    let mut address = String::with_capacity(path.as_bytes().len());
    for (number, name) in path.as_bytes().split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            address.push('/');
        }
        push_segment(&mut address, name);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_addresses_mean() {
        let path = |bytes: &[u8]| Some(RelPath::parse(bytes).unwrap());
        for (text, path, slash) in [
            ("", None, true),
            ("a", path(b"a"), false),
            ("a/b/", path(b"a/b"), true),
            ("%ff%0a/%252e%252e", path(b"\xff\n/%2e%2e"), false),
            ("a%20b;c=d", path(b"a b;c=d"), false),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address, Address { path: path.clone(), slash }, "{text}");
            if let Some(path) = path {
                assert_eq!(Address::parse(&segments(&path)).unwrap().path.as_ref(), Some(&path));
            }
        }
        for (text, why) in [
            ("/", AddressError::Path(PathError::EmptyName)),
            ("a//b", AddressError::Path(PathError::EmptyName)),
            ("a//", AddressError::Path(PathError::EmptyName)),
            ("a%2fb", AddressError::Slash),
            ("a%2Fb", AddressError::Slash),
            ("%", AddressError::Percent),
            ("a%4", AddressError::Percent),
            ("%zz", AddressError::Percent),
            ("%00", AddressError::Path(PathError::Nul)),
            ("..", AddressError::Path(PathError::DotDot)),
            ("a/%2e%2e/b", AddressError::Path(PathError::DotDot)),
            (".", AddressError::Path(PathError::Dot)),
        ] {
            assert_eq!(Address::parse(text), Err(why), "{text}");
        }
    }
}
