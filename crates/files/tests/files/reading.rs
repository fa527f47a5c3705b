//! Whole files, pieces, and the end of one that grows.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use portreeve_files::{Error, Identity, Root, Within, limits};

use crate::room::{Room, path};

#[test]
fn an_open_file_says_what_it_is() {
    let room = Room::new();
    fs::write(room.at("f"), "hello").unwrap();
    let open = room.root.read(&path("f")).unwrap();
    let meta = fs::metadata(room.at("f")).unwrap();
    assert_eq!(open.status().size, 5);
    assert_eq!(open.status().modified, meta.modified().unwrap());
    assert_eq!(*open.status(), room.root.status(&path("f")).unwrap());
    let mut file = open.into_file();
    let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK), "what is read may wait for the disk");
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(file.write_all(b"x").is_err());
}

#[test]
fn an_identity_tells_a_change() {
    let room = Room::new();
    let now = || room.root.status(&path("f")).unwrap().identity;
    fs::write(room.at("f"), "one").unwrap();
    let first = now();
    assert_eq!(now(), first);
    assert_eq!(Identity::parse(&first.to_string()), Some(first));
    OpenOptions::new().append(true).open(room.at("f")).unwrap().write_all(b"more").unwrap();
    let appended = now();
    assert_ne!(appended, first);
    assert!(appended.is_same_file(&first));
    fs::write(room.at("g"), "onemore").unwrap();
    fs::rename(room.at("g"), room.at("f")).unwrap();
    assert!(!now().is_same_file(&first));
}

#[test]
fn pieces() {
    let room = Room::new();
    fs::write(room.at("f"), "0123456789").unwrap();
    let cases: &[(u64, usize, &[u8])] = &[
        (0, 3, b"012"),
        (3, 100, b"3456789"),
        (9, 1, b"9"),
        (10, 5, b""),
        (1000, 5, b""),
        (5, 0, b""),
        (i64::MAX as u64, 5, b""),
        (u64::MAX, 5, b""),
    ];
    for (offset, most, expected) in cases {
        let piece = room.root.read_from(&path("f"), *offset, *most).unwrap();
        assert_eq!((piece.offset, &piece.bytes[..], piece.status.size), (*offset, *expected, 10));
    }
    let tails: &[(usize, u64, &[u8])] =
        &[(3, 7, b"789"), (10, 0, b"0123456789"), (99, 0, b"0123456789"), (0, 10, b"")];
    for (most, offset, expected) in tails {
        let piece = room.root.tail(&path("f"), *most).unwrap();
        assert_eq!((piece.offset, &piece.bytes[..], piece.end()), (*offset, *expected, 10));
    }
}

#[test]
fn a_growing_file_is_followed_without_a_gap() {
    let room = Room::new();
    let mut log = OpenOptions::new().append(true).create(true).open(room.at("log")).unwrap();
    let mut written = b"begin\n".to_vec();
    log.write_all(&written).unwrap();
    let mut seen = room.root.tail(&path("log"), 1 << 20).unwrap();
    for round in 0..100 {
        let line = format!("line {round}\n");
        log.write_all(line.as_bytes()).unwrap();
        written.extend(line.bytes());
        let next = room.root.read_from(&path("log"), seen.end(), 5).unwrap();
        assert!(next.status.identity.is_same_file(&seen.status.identity));
        seen.bytes.extend(next.bytes);
    }
    seen.bytes.extend(room.root.read_from(&path("log"), seen.end(), 1 << 20).unwrap().bytes);
    assert_eq!(seen.bytes, written);
    // Cut off: the size says so.
    log.set_len(0).unwrap();
    let piece = room.root.read_from(&path("log"), seen.end(), 5).unwrap();
    assert!(piece.bytes.is_empty() && piece.status.size < piece.offset);
}

#[test]
fn a_piece_is_bounded_whatever_is_asked_for() {
    let room = Room::new();
    let file = fs::File::create(room.at("huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    for piece in [
        room.root.tail(&path("huge"), usize::MAX).unwrap(),
        room.root.read_from(&path("huge"), 0, usize::MAX).unwrap(),
        room.root.read(&path("huge")).unwrap().piece(1 << 39, usize::MAX).unwrap(),
    ] {
        assert_eq!(piece.bytes.len(), limits::PIECE);
        assert_eq!(piece.status.size, 1 << 40);
    }
}

#[test]
fn a_file_that_denies_its_size_is_read_all_the_same() {
    let root = Root::open(Path::new("/proc"), Within::Root).unwrap();
    let piece = root.tail(&path("version"), 4096).unwrap();
    assert_eq!(piece.status.size, 0);
    assert!(piece.bytes.starts_with(b"Linux"));
    assert!(matches!(root.read(&path("none")), Err(Error::NotFound)));
}
