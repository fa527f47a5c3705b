//! What a resource has besides its content: live properties, which the file itself says, and dead ones, which clients keep with it
//! (RFC 4918, section 15; RFC 4331 for quotas).
//!
//! Invariant: dead properties are an extended attribute of the file, so they go wherever it goes; a file system without such
//! attributes refuses to set any, and loses none.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use portreeve_files::{Error, Kind, RelPath, Root, Status};
use quick_xml::escape::escape;

use crate::conditions;
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
            (read.root.name == name && !name.local.is_empty()).then_some((name, element))
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
    /// Below that root.
    pub(crate) path: Option<RelPath>,
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
        self.root.and_then(|root| Dead::of(root, self.path.as_ref()).ok()).unwrap_or_default()
    }

    /// The element of a live property; `None`: it has none of that name.
    pub(crate) fn live(&self, name: &Name) -> Option<String> {
        let status = self.status?;
        if name.space == APACHE && name.local == "executable" {
            let executable = if status.mode & 0o100 == 0 { "F" } else { "T" };
            let text = format!("<executable xmlns=\"{APACHE}\">{executable}</executable>");
            return (status.kind == Kind::File).then_some(text);
        }
        if name.space != DAV {
            return None;
        }
        let is_file = status.kind == Kind::File;
        let value = match &*name.local {
            "creationdate" => rfc3339(status.created?),
            "displayname" => printable(&String::from_utf8_lossy(self.name)),
            "getcontentlength" => is_file.then(|| status.size.to_string())?,
            "getcontenttype" => is_file.then(|| escape(content_type(self.name)).into_owned())?,
            "getetag" => is_file.then(|| escape(conditions::tag(&status)).into_owned())?,
            "getlastmodified" => httpdate::fmt_http_date(in_range(status.modified)),
            "resourcetype" => match status.kind {
                Kind::Directory => "<D:collection/>".to_owned(),
                _ => return Some("<D:resourcetype/>".to_owned()),
            },
            "lockdiscovery" => active(self.locks),
            "supportedlock" => SUPPORTED.to_owned(),
            "quota-available-bytes" => self.root?.space(self.path.as_ref()).ok()?.available().to_string(),
            "quota-used-bytes" => self.root?.space(self.path.as_ref()).ok()?.taken().to_string(),
            _ => return None,
        };
        Some(format!("<D:{0}>{value}</D:{0}>", name.local))
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
pub(crate) fn content_type(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    mime_guess::from_path(&*name).first_raw().unwrap_or("application/octet-stream").to_owned()
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

fn rfc3339(time: SystemTime) -> String {
    // From `Sun, 06 Nov 1994 08:49:37 GMT`.
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = httpdate::fmt_http_date(in_range(time));
    let month = MONTHS.iter().position(|month| date[8..11] == **month).unwrap_or(0) + 1;
    format!("{}-{month:02}-{}T{}Z", &date[12..16], &date[5..7], &date[17..25])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(784_111_777)), "1994-11-06T08:49:37Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(u64::from(u32::MAX) * 1000)), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn names_that_xml_has_no_place_for() {
        assert_eq!(printable("a<\n\u{0}&"), "a&lt;\u{fffd}\u{fffd}&amp;");
    }
}
