//! What a resource has besides its content: live properties, which the file itself says, and dead ones, which clients keep with it
//! (RFC 4918, section 15; RFC 4331 for quotas).
//!
//! Invariant: dead properties are an extended attribute of the file, so they go wherever it goes; a file system without such
//! attributes refuses to set any, and loses none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Instant, SystemTime};

use httpdate::HttpDate;
use jiff::Timestamp;
use portreeve_files::{Error, Kind, RelPath, Root, Space, Status};
use quick_xml::escape::escape;

use crate::locks::Lock;
use crate::xml::{DAV, Name};

/// The attribute: `user.` before it.
const ATTRIBUTE: &str = "portreeve.dav";
/// `executable`: what Apache calls a file's mode, and other programs since.
pub(crate) const APACHE: &str = "http://apache.org/dav/props/";
/// What Windows keeps with a file.
pub(crate) const WINDOWS: &str = "urn:schemas-microsoft-com:";

/// Dead properties: each as the element that was set.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Dead(pub(crate) BTreeMap<Name, String>);

impl Dead {
    /// Of a file. What can't be read, or is not ours, is none.
    pub(crate) fn of(root: &Root, path: Option<&RelPath>) -> Result<Self, Error> {
        let Some(bytes) = root.attribute(path, ATTRIBUTE)? else { return Ok(Self::default()) };
        let kept: Vec<(String, String, String)> = serde_json::from_slice(&bytes).unwrap_or_default();
        // Whoever may write the file may write its attributes: what is no XML would break the answer.
        let sound = |(space, local, element): (String, String, String)| {
            let name = Name { space, local };
            let read = crate::xml::read(element.as_bytes()).ok()?;
            (read.root.name == name && read.is_bare()).then_some((name, element))
        };
        Ok(Self(kept.into_iter().filter_map(sound).collect()))
    }

    pub(crate) fn keep(&self, root: &Root, path: Option<&RelPath>) -> Result<(), Error> {
        if self.0.is_empty() {
            return root.set_attribute(path, ATTRIBUTE, None);
        }
        let kept: Vec<_> = self.0.iter().map(|(name, element)| (&name.space, &name.local, element)).collect();
        let bytes = serde_json::to_vec(&kept)
            .map_err(|error| Error::Io { doing: "write properties", source: error.into() })?;
        if bytes.len() > crate::limits::PROPERTIES {
            return Err(Error::Full);
        }
        root.set_attribute(path, ATTRIBUTE, Some(&bytes))
    }
}

/// A resource, as its live properties say.
pub(crate) struct Resource<'r> {
    /// `None`: above the roots.
    pub(crate) root: Option<&'r Root>,
    /// The directory that was asked for, below that root.
    pub(crate) directory: Option<&'r RelPath>,
    /// It is in that directory, and not that directory itself.
    pub(crate) is_member: bool,
    /// It is where another file system begins, of which no more is asked than what is known: it may be one that hangs.
    pub(crate) is_mount: bool,
    /// What it is called; empty for the root.
    pub(crate) name: &'r [u8],
    /// `None`: there is something, and more is not known.
    pub(crate) status: Option<Status>,
    pub(crate) locks: &'r [Lock],
}

/// Live properties of every resource that can have them.
pub(crate) const LIVE: [&str; 9] = [
    "creationdate",
    "displayname",
    "getcontentlength",
    "getcontenttype",
    "getetag",
    "getlastmodified",
    "lockdiscovery",
    "resourcetype",
    "supportedlock",
];
/// Those that are told only to who asks for them by name.
pub(crate) const QUOTA: [&str; 2] = ["quota-available-bytes", "quota-used-bytes"];

/// Whether a property is the server's to set.
pub(crate) fn is_live(name: &Name) -> bool {
    (name.space == DAV && (LIVE.contains(&&*name.local) || QUOTA.contains(&&*name.local)))
        || (name.space == APACHE && name.local == "executable")
}

impl Resource<'_> {
    /// Its dead properties; none if they can't be read.
    pub(crate) fn dead(&self) -> Dead {
        if self.is_mount {
            return Dead::default();
        }
        let dead = |root| Dead::of(root, self.path()?.as_deref()).ok();
        self.root.and_then(dead).unwrap_or_default()
    }

    /// Below its root, made only if it is needed: most of what is told needs none. `None`: too long for one.
    fn path(&self) -> Option<Option<Cow<'_, RelPath>>> {
        if self.is_member {
            return RelPath::below(self.directory, self.name).ok().map(Cow::Owned).map(Some);
        }
        Some(self.directory.map(Cow::Borrowed))
    }

    fn space(&self) -> Option<Space> {
        if self.is_mount {
            return None;
        }
        self.root?.space(self.path()?.as_deref()).ok()
    }

    /// Writes the element of a live property; whether it has one of that name.
    pub(crate) fn live(&self, name: &Name, piece: &mut String) -> bool {
        let begin = piece.len();
        if self.value(name, piece).is_none() {
            piece.truncate(begin);
        }
        piece.len() > begin
    }

    fn value(&self, name: &Name, piece: &mut String) -> Option<()> {
        let status = self.status?;
        let is_file = status.kind == Kind::File;
        if name.space == APACHE && name.local == "executable" {
            let executable = if status.mode & 0o100 == 0 { "F" } else { "T" };
            is_file
                .then(|| *piece += &format!("<executable xmlns=\"{APACHE}\">{executable}</executable>"))?;
            return Some(());
        }
        if name.space != DAV {
            return None;
        }
        if name.local == "resourcetype" && status.kind != Kind::Directory {
            piece.push_str("<D:resourcetype/>");
            return Some(());
        }
        for part in ["<D:", &name.local, ">"] {
            piece.push_str(part);
        }
        let written = match &*name.local {
            "creationdate" => write!(piece, "{}", rfc3339(status.created?)?),
            "displayname" => {
                piece.push_str(&printable(&String::from_utf8_lossy(self.name)));
                Ok(())
            }
            "getcontentlength" => write!(piece, "{}", is_file.then_some(status.size)?),
            "getcontenttype" => {
                piece.push_str(&escape(content_type(is_file.then_some(self.name)?)));
                Ok(())
            }
            // It has nothing in it that means something to XML.
            "getetag" => write!(piece, "\"{}\"", is_file.then_some(status.identity)?),
            "getlastmodified" => write!(piece, "{}", HttpDate::from(in_range(status.modified))),
            "resourcetype" => {
                piece.push_str("<D:collection/>");
                Ok(())
            }
            "lockdiscovery" => {
                piece.push_str(&active(self.locks));
                Ok(())
            }
            "supportedlock" => {
                piece.push_str(SUPPORTED);
                Ok(())
            }
            "quota-available-bytes" => write!(piece, "{}", self.space()?.available()),
            "quota-used-bytes" => write!(piece, "{}", self.space()?.taken()),
            _ => return None,
        };
        written.ok()?;
        for part in ["</D:", &name.local, ">"] {
            piece.push_str(part);
        }
        Some(())
    }
}

const SUPPORTED: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>\
<D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

/// What `lockdiscovery` holds.
pub(crate) fn active(locks: &[Lock]) -> String {
    let now = Instant::now();
    let one = |lock: &Lock| {
        let scope = if lock.exclusive { "exclusive" } else { "shared" };
        let depth = if lock.deep { "infinity" } else { "0" };
        format!(
            "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>{}\
             <D:timeout>Second-{}</D:timeout><D:locktoken><D:href>{}</D:href></D:locktoken><D:lockroot><D:href>{}</D:href></D:lockroot></D:activelock>",
            lock.owner,
            lock.left(now).as_secs(),
            lock.token,
            crate::address(lock.path.as_ref(), false),
        )
    };
    locks.iter().map(one).collect()
}

/// A type that a name stands for. What a browser would run is not among those that are sent (`read.rs`).
pub(crate) fn content_type(name: &[u8]) -> &'static str {
    let name = String::from_utf8_lossy(name);
    mime_guess::from_path(&*name).first_raw().unwrap_or("application/octet-stream")
}

/// XML has no place for some characters, and none for what is not UTF-8.
fn printable(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(
            |char| {
                if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { char }
            },
        )
        .collect();
    escape(shown).into_owned()
}

/// What a date of HTTP can say. A user can set any time.
pub(crate) fn in_range(time: SystemTime) -> SystemTime {
    let latest = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_799);
    time.clamp(SystemTime::UNIX_EPOCH, latest)
}

fn rfc3339(time: SystemTime) -> Option<Timestamp> {
    let since = in_range(time).duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Timestamp::from_second(i64::try_from(since.as_secs()).ok()?.min(Timestamp::MAX.as_second())).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        let at = |time| rfc3339(time).map(|time| time.to_string());
        let since = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(at(since(784_111_777)).as_deref(), Some("1994-11-06T08:49:37Z"));
        assert_eq!(
            at(SystemTime::UNIX_EPOCH - Duration::from_secs(5)).as_deref(),
            Some("1970-01-01T00:00:00Z")
        );
        assert!(at(since(u64::from(u32::MAX) * 1000)).unwrap().starts_with("9999-12-3"));
    }

    /// Where another file system begins, it is not asked: it may be one that hangs.
    #[test]
    fn of_a_mount_no_more_is_told_than_the_directory_says() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mount")).unwrap();
        let root = Root::open(dir.path(), portreeve_files::Within::Root).unwrap();
        let path = RelPath::parse(b"mount").unwrap();
        let dead = Name { space: "urn:test".to_owned(), local: "note".to_owned() };
        let element = "<note xmlns=\"urn:test\">x</note>".to_owned();
        let has_attributes = Dead([(dead, element)].into()).keep(&root, Some(&path)).is_ok();
        let of = |is_mount| Resource {
            root: Some(&root),
            directory: None,
            is_member: true,
            is_mount,
            name: b"mount",
            status: Some(root.status(&path).unwrap()),
            locks: &[],
        };
        for local in QUOTA {
            let mut piece = String::new();
            assert!(of(false).live(&Name::dav(local), &mut piece), "{local}");
            assert!(!of(true).live(&Name::dav(local), &mut String::new()), "{local}");
        }
        assert!(of(true).live(&Name::dav("resourcetype"), &mut String::new()), "what is known is told");
        assert_eq!(of(false).dead().0.len(), usize::from(has_attributes));
        assert_eq!(of(true).dead(), Dead::default());
    }

    #[test]
    fn names_that_xml_has_no_place_for() {
        assert_eq!(printable("a<\n\u{0}&"), "a&lt;\u{fffd}\u{fffd}&amp;");
    }
}
