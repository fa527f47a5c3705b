//! Permissions, times, and how much room there is.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use portreeve_files::{Error, Kind};

use crate::room::{Room, path};

#[test]
fn permissions_and_times_of_files_and_directories() {
    let room = Room::new();
    fs::write(room.at("file"), "").unwrap();
    fs::create_dir(room.at("dir")).unwrap();
    symlink("file", room.at("link")).unwrap();
    mkfifo(&room.at("pipe"), Mode::S_IRWXU).unwrap();
    let mode = |name: &str| fs::metadata(room.at(name)).unwrap().mode() & 0o7777;
    assert_eq!(room.root.set_mode(&path("link"), 0o6640).unwrap().mode, 0o640);
    assert_eq!(mode("file"), 0o640, "setuid and setgid are not given");
    room.root.set_mode(&path("dir"), 0o711).unwrap();
    assert_eq!(mode("dir"), 0o711);
    assert!(matches!(room.root.set_mode(&path("pipe"), 0o777), Err(Error::NotRegular(Kind::Fifo))));
    assert!(matches!(room.root.set_mode(&path("none"), 0o777), Err(Error::NotFound)));
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    room.root.set_modified(&path("link"), time).unwrap();
    assert_eq!(room.root.status(&path("file")).unwrap().modified, time);
    room.root.set_modified(&path("dir"), UNIX_EPOCH - Duration::from_secs(5)).unwrap();
    assert_eq!(room.root.status(&path("dir")).unwrap().modified, UNIX_EPOCH);
}

#[test]
fn an_access_list_is_seen_where_there_is_one() {
    let room = Room::new();
    fs::write(room.at("file"), "").unwrap();
    fs::create_dir(room.at("dir")).unwrap();
    symlink("file", room.at("link")).unwrap();
    let set = |arguments: &[&str], name: &str| {
        let status = std::process::Command::new("setfacl").args(arguments).arg(room.at(name)).status();
        status.is_ok_and(|status| status.success())
    };
    let has = |name: &str| room.root.has_access_list(&path(name));
    // One that says what the permissions say is none.
    if !set(&["--set", "u::rw,g::r,o::-"], "file") {
        return println!("SKIPPED: access lists: needs setfacl, and a file system with lists");
    }
    assert!(!has("file") && !has("dir") && !has("link") && !has("none"));
    assert!(set(&["-m", "u:12345:r"], "file") && set(&["-m", "g:12345:x"], "dir"));
    assert_eq!((has("file"), has("dir"), has("link")), (true, true, true));
    // What is said of files to come says nothing of the directory itself.
    assert!(set(&["-b"], "dir") && set(&["-d", "-m", "u:12345:r"], "dir"));
    assert!(!has("dir"));
}

#[test]
fn a_file_system_says_its_room() {
    let room = Room::new();
    let space = room.root.space(None).unwrap();
    assert!(space.free > 0 && space.used > 0, "{space:?}");
    assert!(matches!(room.root.space(Some(&path("none"))), Err(Error::NotFound)));
}
