//! Directories removed with all that is in them, and nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use portreeve_files::Error;

use crate::room::{Room, path};

#[test]
fn links_are_removed_and_not_followed() {
    let room = Room::new();
    fs::create_dir_all(room.at("kept/deep")).unwrap();
    fs::write(room.at("kept/file"), "").unwrap();
    fs::create_dir_all(room.at("gone/a/b")).unwrap();
    fs::write(room.at("gone/a/file"), "").unwrap();
    symlink("../kept", room.at("gone/link")).unwrap();
    symlink("../../../kept/file", room.at("gone/a/b/link")).unwrap();
    assert!(room.root.remove_tree(&path("gone")).unwrap().is_empty());
    assert!(!room.at("gone").exists() && room.at("kept/deep").exists() && room.at("kept/file").exists());
    symlink("kept", room.at("link")).unwrap();
    assert!(room.root.remove_tree(&path("link")).unwrap().is_empty());
    assert!(!room.at("link").is_symlink() && room.at("kept/file").exists());
    assert!(matches!(room.root.remove_tree(&path("none")), Err(Error::NotFound)));
    assert!(matches!(room.root.remove_tree(&path("kept/file/x")), Err(Error::NotADirectory)));
}

#[test]
fn what_can_not_be_removed_is_told_and_the_rest_goes() {
    if nix::unistd::geteuid().is_root() {
        return println!("SKIPPED: a directory that may not be written: root may write all");
    }
    let room = Room::new();
    fs::create_dir_all(room.at("gone/shut")).unwrap();
    fs::write(room.at("gone/shut/file"), "").unwrap();
    fs::write(room.at("gone/open"), "").unwrap();
    fs::set_permissions(room.at("gone/shut"), fs::Permissions::from_mode(0o500)).unwrap();
    let left = room.root.remove_tree(&path("gone")).unwrap();
    fs::set_permissions(room.at("gone/shut"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].below, b"shut/file");
    assert!(matches!(left[0].error, Error::Denied));
    assert!(!room.at("gone/open").exists() && room.at("gone/shut/file").exists());
}

#[test]
fn a_directory_that_is_too_deep_stays() {
    let room = Room::new();
    let deep = "d/".repeat(portreeve_files::limits::DEPTH + 3);
    fs::create_dir_all(room.at(&deep)).unwrap();
    let left = room.root.remove_tree(&path("d")).unwrap();
    assert!(matches!(left[..], [portreeve_files::Left { error: Error::TooLong, .. }]), "{left:?}");
    assert!(room.at(&deep).exists());
}
