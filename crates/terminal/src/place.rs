//! What the page calls a file or directory, and which one that is. Before: `routes`. After: the crate `files`.
//!
//! Invariants: a place has no `..` in it, so that its text says where it is unless a link leads elsewhere. What its
//! owner may do there the kernel decides: here is no rule, they have a shell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use portreeve_files::{Error, PathError, RelPath, Root, Within};

/// What stands in an address as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A path from `/` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place(Option<RelPath>);

impl Place {
    /// What a person may write: a whole path, one from home on, or `~` for home.
    pub(crate) fn parse(text: &[u8], home: &Path) -> Result<Self, PathError> {
        let home = home.as_os_str().as_bytes();
        let whole = match text {
            [b'/', ..] => text.to_vec(),
            [b'~'] => home.to_vec(),
            [b'~', b'/', rest @ ..] | rest => [home, b"/", rest].concat(),
        };
        let names: Vec<&[u8]> =
            whole.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.is_empty() {
            Ok(Self(None))
        } else {
            RelPath::parse(&names.join(&b'/')).map(|path| Self(Some(path)))
        }
    }

    /// The value of `path` in an address's query.
    pub(crate) fn of_query(query: Option<&str>, home: &Path) -> Option<Result<Self, PathError>> {
        let text = query?.split('&').find_map(|pair| pair.strip_prefix("path="))?;
        let bytes: Vec<u8> = percent_decode_str(text).collect();
        Some(Self::parse(&bytes, home))
    }

    /// Where paths begin.
    pub(crate) fn root() -> Result<Root, Error> {
        Root::open(Path::new("/"), Within::Anywhere)
    }

    /// From the root on; `None` is the root itself.
    pub(crate) fn below_root(&self) -> Option<&RelPath> {
        self.0.as_ref()
    }

    /// The directory that it is in.
    pub(crate) fn parent(&self) -> Option<Self> {
        self.0.as_ref().map(|path| Self(path.parent()))
    }

    /// The last name.
    pub(crate) fn name(&self) -> &OsStr {
        self.0.as_ref().map_or(OsStr::new("/"), RelPath::name)
    }

    pub(crate) fn path(&self) -> PathBuf {
        let rest = self.0.as_ref().map_or(&b""[..], RelPath::as_bytes);
        PathBuf::from(OsStr::from_bytes(&[b"/", rest].concat()))
    }

    /// As it stands in an address.
    pub(crate) fn encoded(&self) -> String {
        encoded(self.path().as_os_str())
    }
}

/// As it stands in an address.
pub(crate) fn encoded(name: &OsStr) -> String {
    percent_encode(name.as_bytes(), PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_where_it_is() {
        let parse = |text: &str| Place::parse(text.as_bytes(), Path::new("/home/alice"));
        for (text, is) in [
            ("/", "/"),
            ("//./", "/"),
            ("/etc//passwd/", "/etc/passwd"),
            ("", "/home/alice"),
            (".", "/home/alice"),
            ("~", "/home/alice"),
            ("~/", "/home/alice"),
            ("~/a b/ä", "/home/alice/a b/ä"),
            ("a/./b", "/home/alice/a/b"),
            ("~bob", "/home/alice/~bob"),
            ("...", "/home/alice/..."),
        ] {
            assert_eq!(parse(text).unwrap().path(), Path::new(is), "{text}");
        }
        for bad in ["..", "/..", "a/../b", "~/..", "/home/alice/..", "a\0b", &"n".repeat(256)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("/a").unwrap().parent().unwrap().path(), Path::new("/"));
        assert_eq!(parse("/").unwrap().parent(), None);
    }

    #[test]
    fn an_address_holds_any_name() {
        let of = |query: &'static str| Place::of_query(Some(query), Path::new("/home/alice"));
        let strange = of("x=1&path=%2Fa%0A%22%26%3D+%FF/b").unwrap().unwrap();
        assert_eq!(strange.path().as_os_str().as_bytes(), b"/a\n\"&=+\xff/b");
        assert_eq!(strange.encoded(), "/a%0A%22%26%3D%2B%FF/b");
        assert_eq!(
            Place::of_query(Some(&format!("path={}", strange.encoded())), Path::new("/")),
            Some(Ok(strange))
        );
        assert_eq!(of("paths=1"), None);
        assert!(of("path=%2e%2e").unwrap().is_err());
    }
}
