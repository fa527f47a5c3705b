//! What a directory holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, mkfifo, setfsgid, setfsuid};
use portreeve_files::{Entry, Error, Kind, Listed, RelPath, Root};

use crate::room::{Room, in_time, path};

fn entries(root: &Root, path: Option<&RelPath>) -> BTreeMap<Vec<u8>, Entry> {
    let mut all = BTreeMap::new();
    let listed = root.list(path, usize::MAX, |entry| {
        assert!(all.insert(entry.name.as_bytes().to_vec(), entry).is_none(), "once each");
        ControlFlow::Continue(())
    });
    assert_eq!(listed.unwrap(), Listed::All);
    all
}

#[test]
fn every_kind_is_told_and_none_is_opened() {
    let room = Room::new();
    fs::create_dir_all(room.at("d/sub")).unwrap();
    fs::write(room.at("d/file"), "12345").unwrap();
    fs::set_permissions(room.at("d/file"), Permissions::from_mode(0o4751)).unwrap();
    fs::write(room.at("d").join(OsStr::from_bytes(b"\xff\n")), "").unwrap();
    mkfifo(&room.at("d/fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(room.at("d/socket")).unwrap();
    for (name, target) in [
        ("to-file", "file"),
        ("to-dir", "../d/sub"),
        ("to-fifo", "fifo"),
        ("to-link", "to-file"),
        ("to-nothing", "nothing"),
        ("to-itself", "to-itself"),
        ("to-outside", "/etc"),
        ("to-magic", "/proc/self/root"),
    ] {
        symlink(target, room.at("d").join(name)).unwrap();
    }
    let (within, anywhere) = in_time(move || {
        let d = path("d");
        (entries(&room.root, Some(&d)), entries(&room.anywhere, Some(&d)))
    });
    let link = |to| (Kind::Link, to);
    let cases: [(&[u8], _, _); 13] = [
        (b"sub", (Kind::Directory, None), None),
        (b"file", (Kind::File, None), None),
        (b"\xff\n", (Kind::File, None), None),
        (b"fifo", (Kind::Fifo, None), None),
        (b"socket", (Kind::Socket, None), None),
        (b"to-file", link(Some(Kind::File)), Some(Kind::File)),
        (b"to-dir", link(Some(Kind::Directory)), Some(Kind::Directory)),
        (b"to-fifo", link(Some(Kind::Fifo)), Some(Kind::Fifo)),
        (b"to-link", link(Some(Kind::File)), Some(Kind::File)),
        (b"to-nothing", link(None), None),
        (b"to-itself", link(None), None),
        (b"to-outside", link(None), Some(Kind::Directory)),
        (b"to-magic", link(None), None),
    ];
    assert_eq!((within.len(), anywhere.len()), (cases.len(), cases.len()), "neither . nor ..");
    for (name, (kind, link_to), link_to_anywhere) in cases {
        let (one, other) = (&within[name], &anywhere[name]);
        assert_eq!(
            (one.kind, one.link_to.map(|status| status.kind)),
            (kind, link_to),
            "{}",
            name.escape_ascii()
        );
        assert_eq!(
            (other.kind, other.link_to.map(|status| status.kind)),
            (kind, link_to_anywhere),
            "{}",
            name.escape_ascii()
        );
        assert_eq!(one.status, other.status);
    }
    let file = within[&b"file"[..]].status.unwrap();
    assert_eq!((file.size, file.mode), (5, 0o4751));
    assert_eq!((file.uid, file.gid), (Uid::effective().as_raw(), Gid::effective().as_raw()));
}

#[test]
fn ten_thousand_entries_and_a_bound() {
    let room = Room::new();
    for number in 0..10_000 {
        fs::write(room.at(&format!("f{number}")), "").unwrap();
    }
    let all = entries(&room.root, None);
    let expected: BTreeSet<Vec<u8>> = (0..10_000).map(|number| format!("f{number}").into_bytes()).collect();
    assert_eq!(all.into_keys().collect::<BTreeSet<_>>(), expected);
    for (most, expected, seen) in [
        (0, Listed::Part, 0),
        (100, Listed::Part, 100),
        (9_999, Listed::Part, 9_999),
        (10_000, Listed::All, 10_000),
    ] {
        let mut count = 0;
        let listed = room.root.list(None, most, |_| {
            count += 1;
            ControlFlow::Continue(())
        });
        assert_eq!((listed.unwrap(), count), (expected, seen));
    }
    let mut count = 0;
    let listed = room.root.list(None, 100, |_| {
        count += 1;
        if count == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((listed.unwrap(), count), (Listed::Part, 7));
}

#[test]
fn what_is_no_directory_or_another_users_is_refused() {
    let room = Room::new();
    fs::write(room.at("f"), "").unwrap();
    symlink("/etc", room.at("out")).unwrap();
    for (name, expected) in [("f", "NotADirectory"), ("none", "NotFound"), ("out", "Outside")] {
        let error = room.root.list(Some(&path(name)), 1, |_| panic!()).unwrap_err();
        assert_eq!(format!("{error:?}"), expected, "{name}");
    }
    if !Uid::effective().is_root() {
        return println!("SKIPPED: another user's directory: needs root");
    }
    fs::set_permissions(room.at(""), Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("closed", 0o711), ("names-only", 0o744)] {
        fs::create_dir(room.at(name)).unwrap();
        fs::write(room.at(name).join("f"), "").unwrap();
        fs::set_permissions(room.at(name), Permissions::from_mode(mode)).unwrap();
    }
    // Who may read a directory but not enter it learns names, and a kind where the directory holds it.
    std::thread::spawn(move || {
        setfsgid(Gid::from_raw(20001));
        setfsuid(Uid::from_raw(20001));
        assert!(matches!(room.root.list(Some(&path("closed")), 1, |_| panic!()), Err(Error::Denied)));
        let entry = entries(&room.root, Some(&path("names-only"))).remove(&b"f"[..]).unwrap();
        assert_eq!(entry.status, None);
        assert!(matches!(entry.kind, Kind::File | Kind::Unknown));
    })
    .join()
    .unwrap();
}
