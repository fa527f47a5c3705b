//! Copies and moves: complete, or not at all.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use portreeve_files::{Deep, Error, Kind, Over, Root, To, limits};

use crate::room::{Room, path};

fn copy(root: &Root, from: &str, to: &str, deep: Deep, over: Over) -> Result<(), Error> {
    root.copy(&path(from), To { root, path: &path(to), over }, deep)
}

fn relocate(root: &Root, from: &str, to: &str, over: Over) -> Result<(), Error> {
    root.relocate(&path(from), To { root, path: &path(to), over })
}

/// Names in a directory, sorted: what is left over would be among them.
fn names(room: &Room, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(room.at(directory)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// `a/` with a file, a program, a directory and links.
fn tree(room: &Room) {
    fs::create_dir_all(room.at("a/b/c")).unwrap();
    fs::write(room.at("a/text"), "text").unwrap();
    fs::write(room.at("a/b/program"), "run").unwrap();
    fs::set_permissions(room.at("a/b/program"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(room.at("a/text"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("text", room.at("a/link")).unwrap();
    symlink("nowhere", room.at("a/dangling")).unwrap();
    symlink(".", room.at("a/b/round")).unwrap();
}

#[test]
fn a_file_is_copied_with_its_permissions() {
    let room = Room::new();
    tree(&room);
    copy(&room.root, "a/b/program", "copy", Deep::All, Over::Refuse).unwrap();
    assert_eq!(fs::read(room.at("copy")).unwrap(), b"run");
    assert_eq!(fs::metadata(room.at("copy")).unwrap().mode() & 0o777, 0o755);
    // A link is followed: what it leads to is copied.
    copy(&room.root, "a/link", "of-link", Deep::All, Over::Refuse).unwrap();
    assert!(fs::symlink_metadata(room.at("of-link")).unwrap().is_file());
    assert_eq!(fs::metadata(room.at("of-link")).unwrap().mode() & 0o777, 0o600);
    assert!(matches!(copy(&room.root, "a/text", "copy", Deep::All, Over::Refuse), Err(Error::Exists)));
    copy(&room.root, "a/text", "copy", Deep::All, Over::Replace).unwrap();
    assert_eq!(fs::read(room.at("copy")).unwrap(), b"text");
    assert!(matches!(copy(&room.root, "none", "x", Deep::All, Over::Replace), Err(Error::NotFound)));
    assert!(matches!(copy(&room.root, "a/text", "none/x", Deep::All, Over::Replace), Err(Error::NotFound)));
    assert_eq!(names(&room, ""), ["a", "copy", "of-link"]);
}

#[test]
fn a_directory_is_copied_whole_links_as_links() {
    let room = Room::new();
    tree(&room);
    copy(&room.root, "a", "copy", Deep::All, Over::Refuse).unwrap();
    assert_eq!(names(&room, "copy"), names(&room, "a"));
    assert_eq!(names(&room, "copy/b"), ["c", "program", "round"]);
    assert_eq!(fs::metadata(room.at("copy/b/program")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::read_link(room.at("copy/link")).unwrap().to_str(), Some("text"));
    assert_eq!(fs::read_link(room.at("copy/b/round")).unwrap().to_str(), Some("."));
    copy(&room.root, "a", "empty", Deep::Empty, Over::Refuse).unwrap();
    assert!(names(&room, "empty").is_empty());
    // Into itself: once.
    copy(&room.root, "a", "a/b/again", Deep::All, Over::Refuse).unwrap();
    assert_eq!(names(&room, "a/b/again/b"), ["c", "program", "round"]);
}

#[test]
fn what_a_copy_replaces_stays_until_it_is_complete() {
    let room = Room::new();
    tree(&room);
    fs::create_dir(room.at("old")).unwrap();
    fs::write(room.at("old/kept"), "").unwrap();
    mkfifo(&room.at("a/b/c/pipe"), Mode::S_IRWXU).unwrap();
    let refused = copy(&room.root, "a", "old", Deep::All, Over::Replace);
    assert!(matches!(refused, Err(Error::NotRegular(Kind::Fifo))), "{refused:?}");
    assert_eq!(
        (names(&room, "old"), names(&room, "")),
        (vec!["kept".to_owned()], vec!["a".to_owned(), "old".to_owned()])
    );
    fs::remove_file(room.at("a/b/c/pipe")).unwrap();
    copy(&room.root, "a", "old", Deep::All, Over::Replace).unwrap();
    assert_eq!(names(&room, "old"), names(&room, "a"));
    // A file in a directory's place, and the other way round.
    copy(&room.root, "a/text", "old", Deep::All, Over::Replace).unwrap();
    assert_eq!(fs::read(room.at("old")).unwrap(), b"text");
    copy(&room.root, "a/b", "old", Deep::All, Over::Replace).unwrap();
    assert!(room.at("old/program").exists());
    assert_eq!(names(&room, ""), ["a", "old"]);
}

#[test]
fn a_move_replaces_or_refuses() {
    let room = Room::new();
    tree(&room);
    fs::create_dir_all(room.at("old/full")).unwrap();
    assert!(matches!(relocate(&room.root, "a", "old", Over::Refuse), Err(Error::Exists)));
    relocate(&room.root, "a", "old", Over::Replace).unwrap();
    assert_eq!(
        (names(&room, ""), names(&room, "old/b")),
        (vec!["old".to_owned()], vec!["c".into(), "program".into(), "round".into()])
    );
    // A link itself is moved.
    relocate(&room.root, "old/dangling", "dangling", Over::Refuse).unwrap();
    assert_eq!(fs::read_link(room.at("dangling")).unwrap().to_str(), Some("nowhere"));
    assert!(relocate(&room.root, "old", "old/b/inside", Over::Replace).is_err());
    assert!(matches!(relocate(&room.root, "old", "old", Over::Replace), Err(Error::Exists)));
    assert_eq!(names(&room, "old"), ["b", "link", "text"]);
}

#[test]
fn to_another_file_system_all_is_copied_and_then_removed() {
    let room = Room::new();
    tree(&room);
    let there = tempfile::tempdir_in("/dev/shm");
    let Some(there) = there.ok().filter(|there| {
        fs::metadata(there.path()).unwrap().dev() != fs::metadata(room.at("")).unwrap().dev()
    }) else {
        return println!("SKIPPED: another file system: /dev/shm is none");
    };
    let other = Root::open(there.path(), portreeve_files::Within::Root).unwrap();
    room.root.relocate(&path("a"), To { root: &other, path: &path("moved"), over: Over::Refuse }).unwrap();
    assert!(names(&room, "").is_empty());
    assert_eq!(fs::read(there.path().join("moved/b/program")).unwrap(), b"run");
    assert_eq!(fs::metadata(there.path().join("moved/text")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(there.path()).unwrap().count(), 1);
    // A link is moved as a link, wherever it leads: what it leads to was not meant.
    for (link, to) in [("private", "secret"), ("dangling", "nowhere")] {
        fs::create_dir_all(room.at("secret")).unwrap();
        symlink(to, room.at(link)).unwrap();
        room.root.relocate(&path(link), To { root: &other, path: &path(link), over: Over::Refuse }).unwrap();
        assert_eq!(fs::read_link(there.path().join(link)).unwrap().to_str(), Some(to));
        assert!(fs::symlink_metadata(room.at(link)).is_err());
    }
    assert!(room.at("secret").exists());
}

/// Two names that change places until it is dropped.
struct Swapper(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Swapper {
    fn of(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let swap = move || {
            while !until.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        };
        Self(stop, Some(std::thread::spawn(swap)))
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_directory_that_becomes_a_link_is_never_followed() {
    let room = Room::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "private").unwrap();
    for number in 0..8 {
        fs::create_dir_all(room.at(&format!("a/d{number}"))).unwrap();
        fs::write(room.at(&format!("a/d{number}/open")), "x").unwrap();
        symlink(outside.path(), room.at(&format!("l{number}"))).unwrap();
    }
    let _swappers: Vec<_> = (0..8)
        .map(|number| Swapper::of(room.at(&format!("a/d{number}")), room.at(&format!("l{number}"))))
        .collect();
    // Some are copied as directories, some as links, some not at all.
    let (mut copied, mut refused) = (0, 0);
    for number in 0.. {
        let to = format!("copy{number}");
        match room.anywhere.copy(
            &path("a"),
            To { root: &room.root, path: &path(&to), over: Over::Refuse },
            Deep::All,
        ) {
            Ok(()) => copied += 1,
            Err(Error::NotADirectory | Error::NotFound | Error::Io { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        if room.at(&to).exists() {
            for entry in fs::read_dir(room.at(&to)).unwrap() {
                let entry = entry.unwrap();
                let is_link = entry.file_type().unwrap().is_symlink();
                assert!(is_link || !entry.path().join("secret").exists(), "{:?}", entry.path());
            }
        }
        if copied > 20 && refused > 20 || number > 3000 {
            break;
        }
    }
    assert!(copied > 20 && refused > 0, "{copied} copied, {refused} refused");
}

#[test]
fn a_directory_that_is_replaced_always_has_its_name() {
    let room = Room::new();
    fs::create_dir_all(room.at("name/inside")).unwrap();
    let (stop, name) = (Arc::new(AtomicBool::new(false)), room.at("name"));
    let looking = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut missing = 0;
            while !stop.load(Ordering::Relaxed) {
                missing += usize::from(!name.exists());
            }
            missing
        }
    });
    for _ in 0..300 {
        fs::create_dir_all(room.at("new/inside")).unwrap();
        relocate(&room.root, "new", "name", Over::Replace).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(looking.join().unwrap(), 0);
    assert_eq!(names(&room, ""), ["name"]);
}

#[test]
fn what_takes_no_room_takes_none_in_the_copy() {
    let room = Room::new();
    let file = fs::File::create(room.at("sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(b"middle", 500_000_000).unwrap();
    drop(file);
    if fs::metadata(room.at("sparse")).unwrap().blocks() > 100_000 {
        return println!("SKIPPED: holes: this file system has none");
    }
    copy(&room.root, "sparse", "copy", Deep::All, Over::Refuse).unwrap();
    let copied = fs::metadata(room.at("copy")).unwrap();
    assert!(copied.len() == 1 << 30 && copied.blocks() < 100_000, "{copied:?}");
    let mut middle = [0; 8];
    fs::File::open(room.at("copy")).unwrap().read_exact_at(&mut middle, 499_999_999).unwrap();
    assert_eq!(&middle, b"\0middle\0");
}

#[test]
fn what_is_too_deep_is_not_copied() {
    let room = Room::new();
    let mut below = String::from("a");
    for _ in 0..limits::DEPTH {
        below += "/d";
    }
    fs::create_dir_all(room.at(&below)).unwrap();
    assert!(matches!(copy(&room.root, "a", "copy", Deep::All, Over::Refuse), Err(Error::TooLong)));
    // Nothing is left of what was begun.
    assert_eq!(names(&room, ""), ["a"]);
    copy(&room.root, "a/d", "copy", Deep::All, Over::Refuse).unwrap();
}

#[test]
fn what_is_kept_with_a_file_goes_with_it() {
    let room = Room::new();
    tree(&room);
    let attribute = |name: &str| room.root.attribute(Some(&path(name)), "test").unwrap();
    if matches!(
        room.root.set_attribute(Some(&path("a/text")), "test", Some(b"x")),
        Err(Error::Unsupported(_))
    ) {
        return println!("SKIPPED: attributes: this file system has none");
    }
    room.root.set_attribute(Some(&path("a/b")), "test", Some(b"y")).unwrap();
    copy(&room.root, "a", "copy", Deep::All, Over::Refuse).unwrap();
    assert_eq!((attribute("copy/text"), attribute("copy/b")), (Some(b"x".to_vec()), Some(b"y".to_vec())));
    relocate(&room.root, "a/text", "moved", Over::Refuse).unwrap();
    assert_eq!(attribute("moved"), Some(b"x".to_vec()));
    // A file that is written anew is the same file for whoever keeps something with it.
    let mut put = room.root.put(&path("moved")).unwrap();
    put.write(b"new").unwrap();
    put.finish(portreeve_files::Finish {
        mode: portreeve_files::NewMode::Kept,
        only: portreeve_files::Only::Always,
    })
    .unwrap();
    assert_eq!(attribute("moved"), Some(b"x".to_vec()));
    room.root.set_attribute(Some(&path("moved")), "test", None).unwrap();
    room.root.set_attribute(Some(&path("moved")), "test", None).unwrap();
    assert_eq!(attribute("moved"), None);
    assert!(matches!(
        room.root.set_attribute(Some(&path("moved")), "test", Some(&vec![0; 70_000])),
        Err(Error::Full)
    ));
}
