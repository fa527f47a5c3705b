//! FIFOs, sockets and devices: refused at once, and not touched.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use portreeve_files::{Error, Kind, Root, Within};

use crate::room::{Room, in_time, path};

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let room = Room::new();
    mkfifo(&room.at("fifo"), Mode::S_IRWXU).unwrap();
    let listener = UnixListener::bind(room.at("socket")).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::os::unix::fs::symlink("fifo", room.at("link")).unwrap();
    let mut cases = vec![("fifo", Kind::Fifo), ("link", Kind::Fifo), ("socket", Kind::Socket)];
    match mknod(&room.at("disk"), SFlag::S_IFBLK, Mode::S_IRWXU, makedev(7, 0)) {
        Ok(()) => cases.push(("disk", Kind::BlockDevice)),
        Err(_) => println!("SKIPPED: a block device: needs root"),
    }
    in_time(move || {
        for (name, kind) in cases {
            let name = path(name);
            let answers = [
                room.root.read(&name).map(drop),
                room.root.tail(&name, 10).map(drop),
                room.root.read_from(&name, 0, 10).map(drop),
                room.root.put(&name).map(drop),
            ];
            for answer in answers {
                assert!(matches!(answer, Err(Error::NotRegular(told)) if told == kind), "{name}: {answer:?}");
            }
            assert_eq!(room.root.status(&name).unwrap().kind, kind);
            assert!(matches!(room.root.list(Some(&name), 1, |_| panic!()), Err(Error::NotADirectory)));
        }
    });
    assert!(listener.accept().is_err(), "nobody knocked");
}

#[test]
fn devices_are_refused() {
    let root = Root::open(Path::new("/dev"), Within::Root).unwrap();
    for name in ["null", "zero", "tty"] {
        match in_time({
            let (root, name) = (Root::open(Path::new("/dev"), Within::Root).unwrap(), path(name));
            move || root.read(&name).map(drop)
        }) {
            Err(Error::NotFound) => println!("SKIPPED: /dev/{name}: there is none"),
            answer => {
                assert!(
                    matches!(answer, Err(Error::NotRegular(Kind::CharacterDevice))),
                    "{name}: {answer:?}"
                );
                assert!(matches!(root.put(&path(name)), Err(Error::NotRegular(_))), "{name}");
            }
        }
    }
}

#[test]
fn a_directory_is_no_file() {
    let room = Room::new();
    room.root.make_dir(&path("dir"), 0o700).unwrap();
    assert!(matches!(room.root.read(&path("dir")), Err(Error::IsADirectory)));
    assert!(matches!(room.root.remove_file(&path("dir")), Err(Error::IsADirectory)));
}

#[test]
fn a_fifo_that_comes_and_goes_is_not_waited_for() {
    let room = Room::new();
    mkfifo(&room.at("other"), Mode::S_IRWXU).unwrap();
    std::fs::write(room.at("f"), "content").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (stop, one, other) = (stop.clone(), room.at("f"), room.at("other"));
        move || {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        }
    });
    in_time(move || {
        let (mut read, mut refused) = (0, 0);
        while read < 500 || refused < 500 {
            match room.root.tail(&path("f"), 100) {
                Ok(piece) => {
                    assert_eq!(piece.bytes, b"content");
                    read += 1;
                }
                Err(Error::NotRegular(Kind::Fifo)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
    });
}
