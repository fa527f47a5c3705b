//! What a browser may call a file: a path from the root down, as bytes.
//! Invariant: a [`RelPath`] has no component that means something besides a name, so that it can be taken apart and put
//! together as text. What its components lead to, the kernel says (`root`).

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::limits;

/// A path below a root: `runs/july/out.log`. Names are bytes: they may hold newlines, and need not be UTF-8. It never
/// means the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Vec<u8>);

/// Why these bytes are no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes.
    #[error("the path is empty")]
    Empty,
    /// More than [`limits::PATH`] bytes.
    #[error("the path has more than {} bytes", limits::PATH)]
    LongPath,
    /// A component of more than [`limits::NAME`] bytes.
    #[error("a name in the path has more than {} bytes", limits::NAME)]
    LongName,
    /// A zero byte, which would end the path for the kernel.
    #[error("the path has a zero byte")]
    Nul,
    /// A slash at the beginning.
    #[error("the path begins with a slash")]
    Absolute,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty name in it")]
    EmptyName,
    /// A component `.`.
    #[error("the path has a name that is a dot")]
    Dot,
    /// A component `..`.
    #[error("the path has a name that is two dots")]
    DotDot,
}

impl RelPath {
    /// The one constructor.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        match bytes {
            [] => return Err(PathError::Empty),
            long if long.len() > limits::PATH => return Err(PathError::LongPath),
            [b'/', ..] => return Err(PathError::Absolute),
            nul if nul.contains(&0) => return Err(PathError::Nul),
            _ => {}
        }
        for name in bytes.split(|byte| *byte == b'/') {
            match name {
                b"" => return Err(PathError::EmptyName),
                b"." => return Err(PathError::Dot),
                b".." => return Err(PathError::DotDot),
                long if long.len() > limits::NAME => return Err(PathError::LongName),
                _ => {}
            }
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The path of `name` in the directory that this path means.
    ///
    /// # Errors
    /// When `name` is none, or the whole gets too long. A name with a slash is a path: that is permitted.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let name = Self::parse(name)?;
        Self::parse(&[&self.0, &b"/"[..], &name.0].concat())
    }

    /// The same where the directory may be the root.
    ///
    /// # Errors
    /// As [`RelPath::join`].
    pub fn below(directory: Option<&Self>, name: &[u8]) -> Result<Self, PathError> {
        directory.map_or_else(|| Self::parse(name), |directory| directory.join(name))
    }

    /// Whether a name in the directory that this path means has a path.
    #[must_use]
    pub fn has_room_for(&self, name: &[u8]) -> bool {
        self.0.len() + 1 + name.len() <= limits::PATH
    }

    /// As it was parsed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
    }

    /// The path without its last component; `None` if that leaves the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..end].to_vec()))
    }

    /// `a`, `a/b`, `a/b/c`: the way down to this path, which is the last.
    pub(crate) fn way(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        ends.chain([self.0.len()]).map(|end| &self.0[..end])
    }
}

/// One line of ASCII whatever the names hold, for logs.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_path_and_what_is_none() {
        let name = |length| vec![b'n'; length];
        let path = |length: usize| [b"ab/".repeat(length / 3), name(length % 3)].concat();
        let cases: &[(&[u8], Result<(), PathError>)] = &[
            (b"a", Ok(())),
            (b"a/b c/.d/...", Ok(())),
            (b"with\nnewline/\xff\xfe", Ok(())),
            (b"-rf", Ok(())),
            (b"..a/a..", Ok(())),
            (&name(255), Ok(())),
            (&path(4094), Ok(())),
            (&path(4095)[..4094], Ok(())),
            (&[&path(4092)[..], b"abc"].concat(), Ok(())),
            (b"", Err(PathError::Empty)),
            (b"/", Err(PathError::Absolute)),
            (b"/etc/passwd", Err(PathError::Absolute)),
            (b"//a", Err(PathError::Absolute)),
            (b"a\0b", Err(PathError::Nul)),
            (b"a//b", Err(PathError::EmptyName)),
            (b"a/", Err(PathError::EmptyName)),
            (b".", Err(PathError::Dot)),
            (b"a/./b", Err(PathError::Dot)),
            (b"..", Err(PathError::DotDot)),
            (b"a/../b", Err(PathError::DotDot)),
            (b"a/..", Err(PathError::DotDot)),
            (&name(256), Err(PathError::LongName)),
            (&[&path(4092)[..], b"abcd"].concat(), Err(PathError::LongPath)),
        ];
        for (bytes, expected) in cases {
            let parsed = RelPath::parse(bytes);
            assert_eq!(parsed.as_ref().map(|_| ()).map_err(|e| *e), *expected, "{}", bytes.escape_ascii());
            if let Ok(path) = parsed {
                assert_eq!(path.as_bytes(), *bytes);
            }
        }
    }

    /// All short texts of the bytes that mean something: whatever is accepted consists of names alone.
    #[test]
    fn nothing_but_names_gets_through() {
        let mut texts = vec![Vec::new()];
        for _ in 0..6 {
            texts = texts
                .iter()
                .flat_map(|text: &Vec<u8>| {
                    b"\0/.a".iter().map(|byte| [&text[..], &[*byte]].concat()).chain([text.clone()])
                })
                .collect();
            texts.sort();
            texts.dedup();
        }
        for text in texts {
            let Ok(path) = RelPath::parse(&text) else { continue };
            let std_path = std::path::Path::new(OsStr::from_bytes(&text));
            let mut way = path.way();
            for part in std_path.components() {
                assert!(matches!(part, std::path::Component::Normal(_)), "{path}");
                assert_eq!(RelPath::parse(way.next().unwrap()).unwrap().name(), part.as_os_str());
            }
            assert_eq!(way.next(), None);
            assert_eq!(path.parent().map(|p| p.0), {
                let parent = std_path.parent().unwrap().as_os_str().as_bytes().to_vec();
                (!parent.is_empty()).then_some(parent)
            });
        }
    }

    #[test]
    fn a_join_stays_below_and_a_log_line_stays_one_line() {
        let path = RelPath::parse(b"a\nb").unwrap();
        assert_eq!(path.join(b"c/\xff").unwrap().to_string(), r"a\nb/c/\xff");
        assert_eq!(path.join(b"..").unwrap_err(), PathError::DotDot);
        assert_eq!(path.join(b"/c").unwrap_err(), PathError::Absolute);
    }
}
