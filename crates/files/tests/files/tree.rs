//! Directories made, names removed and changed.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use portreeve_files::{Error, Over, Root};

use crate::room::{Room, path};

fn said(answer: Result<(), Error>) -> String {
    answer.map_or_else(|error| format!("{error:?}"), |()| "done".to_owned())
}

#[test]
fn directories_are_made() {
    let room = Room::new();
    fs::write(room.at("file"), "").unwrap();
    symlink("nowhere", room.at("dangling")).unwrap();
    symlink("/tmp", room.at("out")).unwrap();
    symlink("a", room.at("link")).unwrap();
    for (name, one, many) in [
        ("a", "done", "done"),
        ("a", "Exists", "done"),
        ("b/c/d", "NotFound", "done"),
        ("link/x/y", "NotFound", "done"),
        ("link", "Exists", "done"),
        ("file", "Exists", "NotADirectory"),
        ("file/x", "NotADirectory", "NotADirectory"),
        ("dangling", "Exists", "NotFound"),
        ("dangling/x", "NotFound", "NotFound"),
        ("out/x", "Outside", "Outside"),
    ] {
        assert_eq!(said(room.root.make_dir(&path(name), 0o700)), one, "{name}");
        assert_eq!(said(room.root.make_dirs(&path(name), 0o700)), many, "{name}");
    }
    assert!(room.at("a/x/y").is_dir());
    assert_eq!(fs::metadata(room.at("b/c")).unwrap().mode() & 0o7777, 0o700);
    room.root.make_dir(&path("sticky"), 0o7700).unwrap();
    assert_eq!(fs::metadata(room.at("sticky")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn many_make_the_same_directories() {
    let room = Room::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for number in 0..50 {
                    room.root.make_dirs(&path(format!("a/{number}/c/d")), 0o755).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read_dir(room.at("a")).unwrap().count(), 50);
}

#[test]
fn the_name_is_removed_and_not_what_it_leads_to() {
    let room = Room::new();
    fs::create_dir(room.at("dir")).unwrap();
    fs::write(room.at("dir/f"), "precious").unwrap();
    mkfifo(&room.at("fifo"), Mode::S_IRWXU).unwrap();
    symlink("dir/f", room.at("link")).unwrap();
    symlink("dir", room.at("dir-link")).unwrap();
    symlink("/etc", room.at("out")).unwrap();
    for (name, expected) in [
        ("fifo", "done"),
        ("link", "done"),
        ("dir-link", "done"),
        ("dir", "IsADirectory"),
        ("none", "NotFound"),
        ("out/passwd", "Outside"),
        ("out", "done"),
    ] {
        assert_eq!(said(room.root.remove_file(&path(name))), expected, "{name}");
    }
    assert_eq!(fs::read_to_string(room.at("dir/f")).unwrap(), "precious");
}

#[test]
fn names_change() {
    let fresh = || {
        let room = Room::new();
        for dir in ["dir", "full", "empty"] {
            fs::create_dir(room.at(dir)).unwrap();
        }
        fs::write(room.at("f"), "f").unwrap();
        fs::write(room.at("full/g"), "g").unwrap();
        symlink("full/g", room.at("link")).unwrap();
        symlink("/tmp", room.at("out")).unwrap();
        room
    };
    for (from, to, replace, refuse) in [
        ("f", "h", "done", "done"),
        ("f", "full/g", "done", "Exists"),
        ("f", "link", "done", "Exists"),
        ("link", "moved", "done", "done"),
        ("dir", "empty", "done", "Exists"),
        ("dir", "full", "Exists", "Exists"),
        ("dir", "new", "done", "done"),
        ("dir", "f", "NotADirectory", "Exists"),
        ("f", "dir", "IsADirectory", "Exists"),
        ("none", "x", "NotFound", "NotFound"),
        ("f", "none/x", "NotFound", "NotFound"),
        ("f", "out/x", "Outside", "Outside"),
        ("out/x", "x", "Outside", "Outside"),
    ] {
        for (over, expected) in [(Over::Replace, replace), (Over::Refuse, refuse)] {
            let room = fresh();
            assert_eq!(
                said(room.root.rename(&path(from), &path(to), over)),
                expected,
                "{from} {to} {over:?}"
            );
            let stays = expected != "done";
            assert_eq!(
                fs::symlink_metadata(room.at(from)).is_ok(),
                stays && from != "none" && from != "out/x"
            );
            let precious = fs::read_to_string(room.at("full/g")).unwrap();
            assert_eq!(precious, if to == "full/g" && !stays { "f" } else { "g" });
        }
    }
    // Into itself: the kernel has its own word for it, and the directory is still there.
    let room = fresh();
    for over in [Over::Replace, Over::Refuse] {
        let error = room.root.rename(&path("full"), &path("full/x"), over).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert!(room.at("full/g").exists());
    }
}

#[test]
fn another_file_system_is_too_far() {
    let shared = std::path::Path::new("/dev/shm");
    let room = Room::new();
    fs::write(room.at("f"), "").unwrap();
    let there = tempfile::tempdir_in(shared);
    let Some(there) = there.ok().filter(|there| {
        fs::metadata(there.path()).unwrap().dev() != fs::metadata(room.at("")).unwrap().dev()
    }) else {
        return println!("SKIPPED: another file system: /dev/shm is none");
    };
    symlink(there.path(), room.at("there")).unwrap();
    let rename = |root: &Root, over| root.rename(&path("f"), &path("there/f"), over);
    assert!(matches!(rename(&room.root, Over::Replace), Err(Error::Outside)));
    for over in [Over::Replace, Over::Refuse] {
        assert!(matches!(rename(&room.anywhere, over), Err(Error::Apart)));
    }
}
