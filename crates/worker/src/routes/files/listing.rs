//! What a directory holds, sorted and filtered, a window of it at a time: a hundred thousand entries are read once, and told as they are
//! looked at.
//!
//! Invariant: the first window of a list is read anew; later ones are of the same reading, so that no entry is told twice or left out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::{Gid, Group, Uid, User};
use portreeve_dav::Dav;
use portreeve_files::address::segment;
use portreeve_files::space::Quota;
use portreeve_files::{Entry, Error, Found, Kind, Listed, RelPath, Space, Status};
use serde::Serialize;

use super::super::Asked;
use super::aside;
use crate::desk::Desk;
use crate::limits;
use crate::respond::Refused;
use crate::workspace::capital;

/// A window of a directory.
#[derive(Debug, Serialize)]
pub(super) struct Window {
    /// Directories first.
    pub(super) entries: Vec<EntrySaid>,
    /// There are others behind it.
    pub(super) more: bool,
    /// How many fit what is looked for.
    pub(super) total: usize,
    /// Where this window begins.
    pub(super) offset: usize,
    /// The directory holds more than is ever told of.
    pub(super) truncated: bool,
    /// What can be written there; `None` where that is not said.
    pub(super) space: Option<Room>,
}

/// What can still be written, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Room {
    /// On the file system, by anybody.
    pub(super) free: u64,
    /// By the person, where users have a share.
    pub(super) quota: Option<Share>,
}

/// A person's share of a file system, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Share {
    pub(super) used: u64,
    pub(super) limit: u64,
}

impl From<Space> for Room {
    fn from(space: Space) -> Self {
        let share = |quota: Quota| Some(Share { used: quota.used, limit: quota.limit? });
        Self { free: space.free, quota: space.quota.and_then(share) }
    }
}

/// What is said of one of them.
#[derive(Debug, Serialize)]
pub(super) struct EntrySaid {
    /// What is not UTF-8 in it is replaced.
    pub(super) name: String,
    /// As it stands in an address.
    pub(super) segment: String,
    /// `file`, `directory` or `other`; of a link, what it leads to.
    pub(super) kind: &'static str,
    pub(super) size: Option<u64>,
    /// Unix seconds.
    pub(super) modified: Option<i64>,
    /// It is a link.
    pub(super) link: bool,
    /// Permissions, as `chmod` writes them.
    pub(super) mode: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) group: Option<String>,
    /// Who can do what with it, in words.
    pub(super) access: Option<String>,
}

/// What is wanted of a directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    pub(super) order: Order,
    pub(super) offset: usize,
    pub(super) limit: usize,
}

/// Which entries, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) sort: Sort,
    /// From the last to the first.
    pub(super) down: bool,
    /// Part of the names, whatever the case.
    pub(super) filter: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Size,
    Modified,
}

impl Wish {
    pub(super) fn of(asked: &Asked<'_>, usual: usize) -> Result<Self, Refused> {
        let not_understood = |what: &str| Refused::NotUnderstood(format!("{what}."));
        let once = |name: &str| {
            let mut all = asked.all(name);
            let said = all.pop();
            if all.is_empty() {
                Ok(said)
            } else {
                Err(not_understood(&format!("{name} is said more than once")))
            }
        };
        let number = |name: &str, otherwise: usize, most: usize| match once(name)? {
            None => Ok(otherwise),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number <= most)
                .ok_or_else(|| not_understood(&format!("{name} is a number up to {most}"))),
        };
        let order = Order {
            sort: match once("sort")?.as_deref() {
                None | Some("name") => Sort::Name,
                Some("size") => Sort::Size,
                Some("modified") => Sort::Modified,
                Some(_) => return Err(not_understood("sort is name, size or modified")),
            },
            down: match once("order")?.as_deref() {
                None | Some("up") => false,
                Some("down") => true,
                Some(_) => return Err(not_understood("order is up or down")),
            },
            filter: once("filter")?.unwrap_or_default().to_lowercase(),
        };
        Ok(Self {
            order,
            offset: number("offset", 0, limits::DIRECTORY)?,
            limit: number("limit", usual, limits::ENTRIES)?,
        })
    }
}

/// A directory as it was read.
#[derive(Debug)]
pub(crate) struct Snapshot {
    path: Option<RelPath>,
    order: Order,
    /// Those that are wanted, in their order.
    entries: Vec<Known>,
    truncated: bool,
}

#[derive(Debug)]
struct Known {
    name: OsString,
    link: bool,
    kind: Kind,
    status: Option<Brief>,
    /// Not of the directory's file system, which may be one that hangs: no more is asked of it.
    apart: bool,
}

/// What is kept of a status: there may be very many.
#[derive(Debug, Clone, Copy)]
struct Brief {
    size: u64,
    modified: i64,
    mode: u16,
    uid: u32,
    gid: u32,
}

impl From<&Status> for Brief {
    fn from(status: &Status) -> Self {
        Self {
            size: status.size,
            modified: seconds(status.modified),
            mode: u16::try_from(status.mode).unwrap_or_default(),
            uid: status.uid,
            gid: status.gid,
        }
    }
}

impl Known {
    /// In a directory on this file system.
    fn of(entry: Entry, device: u64) -> Self {
        let link = entry.kind == Kind::Link;
        let status = if link { entry.link_to } else { entry.status };
        // A link that leads nowhere is of no kind that can be opened.
        let kind = status.map_or(if link { Kind::Unknown } else { entry.kind }, |status| status.kind);
        let brief = status.or(entry.status).as_ref().map(Brief::from);
        let apart = status.is_none_or(|status| status.identity.device() != device);
        Self { name: entry.name, link, kind, status: brief, apart }
    }
}

/// Unix seconds.
pub(super) fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

fn read(dav: &Dav, path: Option<RelPath>, order: Order) -> Result<Snapshot, Error> {
    let (root, below) = match dav.roots().find(path.as_ref())? {
        Found::In(root, below) => (root, below),
        Found::Above(names) => {
            let directory =
                |name| Known { name, link: false, kind: Kind::Directory, status: None, apart: true };
            let entries = order.applied(names.into_iter().map(directory).collect());
            return Ok(Snapshot { path, order, entries, truncated: false });
        }
    };
    let itself = match &below {
        Some(path) => root.status(path)?,
        None => root.own_status()?,
    };
    let mut entries = Vec::new();
    let listed = root.list(below.as_ref(), limits::DIRECTORY, |entry| {
        entries.push(Known::of(entry, itself.identity.device()));
        ControlFlow::Continue(())
    })?;
    let entries = order.applied(entries);
    Ok(Snapshot { path, order, entries, truncated: listed == Listed::Part })
}

/// The window that is wished for.
pub(super) async fn window(asked: &Asked<'_>, path: Option<RelPath>, wish: Wish) -> Result<Window, Refused> {
    let is_it = |one: &&Arc<Snapshot>| one.path == path && one.order == wish.order;
    let kept = asked.desk.snapshots.borrow().iter().find(is_it).cloned();
    let uid = asked.desk.uid;
    let (snapshot, window) = aside(asked, move |dav| {
        let place = dav.roots().inside(path.as_ref()).ok();
        let space = place.as_ref().and_then(|(root, below)| root.space(below.as_ref()).ok());
        let snapshot = match kept.filter(|_| wish.offset > 0) {
            Some(kept) => kept,
            None => Arc::new(read(dav, path, wish.order)?),
        };
        let is_listed = |known: &Known| {
            let Some((root, below)) = &place else { return false };
            let path = RelPath::below(below.as_ref(), known.name.as_encoded_bytes());
            !known.apart && path.is_ok_and(|path| root.has_access_list(&path))
        };
        let window = snapshot.window(wish.offset, wish.limit, uid, is_listed);
        let window = Window { space: space.map(Room::from), ..window };
        Ok((snapshot, window))
    })
    .await?;
    keep(asked.desk, snapshot);
    Ok(window)
}

/// The last ones that were looked at.
fn keep(desk: &Desk, snapshot: Arc<Snapshot>) {
    let mut kept = desk.snapshots.borrow_mut();
    kept.retain(|one| one.path != snapshot.path);
    kept.insert(0, snapshot);
    kept.truncate(limits::SNAPSHOTS);
}

impl Order {
    fn applied(&self, mut entries: Vec<Known>) -> Vec<Known> {
        if !self.filter.is_empty() {
            entries.retain(|known| known.name.to_string_lossy().to_lowercase().contains(&self.filter));
        }
        let is_other = |known: &Known| known.kind != Kind::Directory;
        let size = |known: &Known| known.status.map_or(0, |status| status.size);
        let modified = |known: &Known| known.status.map_or(i64::MIN, |status| status.modified);
        entries.sort_unstable_by(|one, other| {
            let by_sort = match self.sort {
                Sort::Name => std::cmp::Ordering::Equal,
                Sort::Size => size(one).cmp(&size(other)),
                Sort::Modified => modified(one).cmp(&modified(other)),
            };
            let order = by_sort.then_with(|| one.name.cmp(&other.name));
            let order = if self.down { order.reverse() } else { order };
            is_other(one).cmp(&is_other(other)).then(order)
        });
        entries
    }
}

impl Snapshot {
    /// `is_listed`: whether it has an access list.
    fn window(&self, offset: usize, limit: usize, uid: u32, is_listed: impl Fn(&Known) -> bool) -> Window {
        let mut names = Names::new(uid);
        let shown = self.entries.iter().skip(offset).take(limit);
        let entries: Vec<EntrySaid> = shown.map(|known| names.said(known, is_listed(known))).collect();
        let total = self.entries.len();
        Window {
            more: offset + entries.len() < total,
            entries,
            total,
            offset,
            truncated: self.truncated,
            space: None,
        }
    }
}

/// Names of users and groups: each is looked up once for a window.
pub(super) struct Names {
    me: u32,
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    pub(super) fn new(me: u32) -> Self {
        Self { me, users: BTreeMap::new(), groups: BTreeMap::new() }
    }

    pub(super) fn user(&mut self, uid: u32) -> String {
        let look = || {
            User::from_uid(Uid::from_raw(uid))
                .ok()
                .flatten()
                .map_or_else(|| uid.to_string(), |user| user.name)
        };
        self.users.entry(uid).or_insert_with(look).clone()
    }

    pub(super) fn group(&mut self, gid: u32) -> String {
        let look = || {
            Group::from_gid(Gid::from_raw(gid))
                .ok()
                .flatten()
                .map_or_else(|| gid.to_string(), |group| group.name)
        };
        self.groups.entry(gid).or_insert_with(look).clone()
    }

    fn said(&mut self, known: &Known, is_listed: bool) -> EntrySaid {
        let is_file = known.kind == Kind::File;
        let status = known.status;
        EntrySaid {
            name: known.name.to_string_lossy().into_owned(),
            segment: segment(known.name.as_encoded_bytes()),
            kind: match known.kind {
                Kind::File => "file",
                Kind::Directory => "directory",
                _ => "other",
            },
            size: status.filter(|_| is_file).map(|status| status.size),
            modified: status.map(|status| status.modified),
            link: known.link,
            mode: status.map(|status| format!("{:04o}", status.mode)),
            owner: status.map(|status| self.user(status.uid)),
            group: status.map(|status| self.group(status.gid)),
            access: status.map(|status| self.access(status.mode.into(), status.uid, status.gid, is_listed)),
        }
    }

    /// Who can do what, as the permissions say; what an access list says is not read, but that there is one is told.
    pub(super) fn access(&mut self, mode: u32, uid: u32, gid: u32, is_listed: bool) -> String {
        let owner = if uid == self.me { "you".to_owned() } else { self.user(uid) };
        let group = self.group(gid);
        let reach = |bit: u32| (mode & bit != 0, mode & (bit << 3) != 0, mode & (bit << 6) != 0);
        let who = |(others, in_group, by_owner): (bool, bool, bool)| match (others, in_group, by_owner) {
            (true, ..) => "everybody".to_owned(),
            (false, true, _) => format!("people in {group}"),
            (false, false, true) => format!("only {owner}"),
            (false, false, false) => "nobody".to_owned(),
        };
        let (reads, writes) = (who(reach(4)), who(reach(2)));
        let said = if reads == writes {
            format!("{reads} can open and change this")
        } else {
            format!("{reads} can open this, {writes} can change it")
        };
        capital(&said) + if is_listed { "; an access list also applies" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, kind: Kind, size: u64, modified: i64) -> Known {
        let status = Some(Brief { size, modified, mode: 0o640, uid: 0, gid: 0 });
        Known { name: name.into(), link: false, kind, status, apart: false }
    }

    fn snapshot(order: Order) -> Snapshot {
        let entries = order.applied(vec![
            known("b", Kind::File, 1, 30),
            known("Alpha", Kind::File, 3, 10),
            known("d", Kind::Directory, 0, 5),
            known("alp", Kind::File, 2, 20),
            known("c", Kind::Directory, 0, 50),
        ]);
        Snapshot { path: None, order, entries, truncated: false }
    }

    fn names(order: Order) -> String {
        let window = snapshot(order).window(0, 10, 0, |_| false);
        window.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn sorted_filtered_and_a_window_at_a_time() {
        let usual = Order::default();
        assert_eq!(names(usual.clone()), "c d Alpha alp b");
        assert_eq!(names(Order { down: true, ..usual.clone() }), "d c b alp Alpha");
        assert_eq!(names(Order { sort: Sort::Size, ..usual.clone() }), "c d b alp Alpha");
        assert_eq!(names(Order { sort: Sort::Modified, down: true, ..usual.clone() }), "c d b alp Alpha");
        assert_eq!(names(Order { filter: "alp".into(), ..usual.clone() }), "Alpha alp");
        let snapshot = snapshot(usual);
        let window = snapshot.window(1, 2, 0, |_| false);
        assert_eq!((window.entries.len(), window.total, window.more), (2, 5, true));
        let end = snapshot.window(4, 2, 0, |known| &*known.name == "b");
        assert_eq!((end.entries.len(), end.more), (1, false));
        let said = end.entries[0].access.as_deref().unwrap();
        assert!(said.ends_with("can change it; an access list also applies"), "{said}");
    }

    /// Of what may hang no more is asked than the list itself does.
    #[test]
    fn what_is_mounted_in_a_directory_is_known_to_be_another_file_system() {
        let dav = Dav::new(portreeve_files::Roots::default());
        let entries = read(&dav, None, Order::default()).unwrap().entries;
        assert!(entries.iter().find(|known| known.name == "proc").unwrap().apart);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/proc/version", dir.path().join("proc")).unwrap();
        let path = dir.path().display().to_string();
        let path = RelPath::parse(path.trim_start_matches('/').as_bytes()).unwrap();
        let entries = read(&dav, Some(path), Order::default()).unwrap().entries;
        let apart: Vec<_> = entries.iter().map(|known| (known.name.to_str().unwrap(), known.apart)).collect();
        assert_eq!(apart, [("file", false), ("link", false), ("proc", true)]);
    }

    #[test]
    fn permissions_in_words() {
        let mut names = Names::new(7);
        names.users.insert(7, "me".to_owned());
        names.users.insert(8, "bob".to_owned());
        names.groups.insert(9, "proj".to_owned());
        for (mode, uid, said) in [
            (0o600, 7, "Only you can open and change this"),
            (0o640, 7, "People in proj can open this, only you can change it"),
            (0o660, 8, "People in proj can open and change this"),
            (0o644, 8, "Everybody can open this, only bob can change it"),
            (0o666, 7, "Everybody can open and change this"),
            (0o400, 7, "Only you can open this, nobody can change it"),
            (0o000, 7, "Nobody can open and change this"),
        ] {
            assert_eq!(names.access(mode, uid, 9, false), said, "{mode:o}");
            assert_eq!(names.access(mode, uid, 9, true), format!("{said}; an access list also applies"));
        }
    }
}
