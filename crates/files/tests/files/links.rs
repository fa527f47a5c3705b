//! Links, `..` and the magic links of `/proc`: read, looked at and made below.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use portreeve_files::{Error, RelPath, Root, Within};

use crate::room::{Room, path};

fn content(root: &Root, name: &str) -> Result<String, Error> {
    let mut text = String::new();
    root.read(&path(name))?.into_file().read_to_string(&mut text).unwrap();
    Ok(text)
}

#[test]
fn how_far_links_lead() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "outside").unwrap();
    let room = Room::new();
    fs::create_dir_all(room.at("a/b")).unwrap();
    fs::write(room.at("a/f"), "inside").unwrap();
    let out = outside.path().to_str().unwrap();
    let up_and_out = format!("../../{}/f", outside.path().file_name().unwrap().to_str().unwrap());
    let absolute_inside = room.at("a/f").display().to_string();
    // name, what the link says, what is asked for; what is found within the root, and anywhere
    let cases = [
        ("l1", "a/f", "l1", "inside", "inside"),
        ("a/b/l2", "../f", "a/b/l2", "inside", "inside"),
        ("a/b/l3", "../../a/b/../f", "a/b/l3", "inside", "inside"),
        ("l4", "a", "l4/f", "inside", "inside"),
        ("l5", &format!("{out}/f"), "l5", "Outside", "outside"),
        ("l6", out, "l6/f", "Outside", "outside"),
        ("a/l7", &up_and_out, "a/l7", "Outside", "outside"),
        ("l8", &absolute_inside, "l8", "Outside", "inside"),
        ("l9", "..", "l9/f", "Outside", "NotFound"),
        ("l10", "nowhere", "l10", "NotFound", "NotFound"),
        ("l11", "l11", "l11", "Loop", "Loop"),
        ("l12", "a/f/x", "l12", "NotADirectory", "NotADirectory"),
        ("l13", "/proc/self/root", "l13/etc/passwd", "Outside", "Loop"),
        ("l14", "/proc/self/exe", "l14", "Outside", "Loop"),
        ("l15", "/proc/self/cwd", "l15/Cargo.toml", "Outside", "Loop"),
    ];
    for (name, link, asked, within, anywhere) in cases {
        symlink(link, room.at(name)).unwrap();
        for (root, expected) in [(&room.root, within), (&room.anywhere, anywhere)] {
            let found = content(root, asked).unwrap_or_else(|error| format!("{error:?}"));
            assert_eq!(found, expected, "{asked}, which is {link}, by {root:?}");
            let status = root.status(&path(asked)).map(|_| ()).map_err(|error| format!("{error:?}"));
            assert_eq!(status.err().unwrap_or(found.clone()), found, "{asked}: status agrees with read");
        }
    }
}

#[test]
fn magic_links_are_followed_from_nowhere() {
    let root = Root::open(Path::new("/"), Within::Anywhere).unwrap();
    let process = Root::open(Path::new("/proc/self"), Within::Root).unwrap();
    for name in ["proc/self/root/etc/passwd", "proc/self/exe", "proc/self/fd/0", "proc/thread-self/cwd/x"] {
        assert!(matches!(root.read(&path(name)), Err(Error::Loop)), "{name}");
        assert!(matches!(root.put(&path(name)), Err(Error::Loop)), "{name}");
        assert!(matches!(root.make_dir(&path(format!("{name}/new")), 0o700), Err(Error::Loop)), "{name}");
    }
    for name in ["root/etc/passwd", "exe", "cwd/Cargo.toml"] {
        // Both rules forbid it; which one the kernel names is its own affair.
        let error = process.read(&path(name)).unwrap_err();
        assert!(matches!(error, Error::Loop | Error::Outside), "{name}: {error:?}");
    }
}

#[test]
fn a_root_stays_the_directory_that_it_was() {
    let room = Room::new();
    fs::create_dir(room.at("home")).unwrap();
    fs::write(room.at("home/f"), "mine").unwrap();
    let root = Root::open(&room.at("home"), Within::Root).unwrap();
    fs::rename(room.at("home"), room.at("moved")).unwrap();
    symlink("/etc", room.at("home")).unwrap();
    assert_eq!(content(&root, "f").unwrap(), "mine");
    assert!(matches!(root.read(&path("passwd")), Err(Error::NotFound)));
    for (name, expected) in [("none", "NotFound"), ("moved/f", "NotADirectory")] {
        let error = Root::open(&room.at(name), Within::Root).unwrap_err();
        assert_eq!(format!("{error:?}"), expected);
    }
}

#[test]
fn strange_names_work_as_any_other() {
    let room = Room::new();
    for name in [&b"new\nline"[..], b"\xff\xfe", b"-rf *", b"...", b" ", &[b'n'; 255], "\u{202e}".as_bytes()]
    {
        let (name, other) = (path(name), path([b"o", &name[1..]].concat()));
        room.root.put(&name).unwrap().finish(CREATE).unwrap();
        assert_eq!(room.root.read(&name).unwrap().status().size, 0);
        room.root.rename(&name, &other, portreeve_files::Over::Refuse).unwrap();
        room.root.remove_file(&other).unwrap();
        assert!(matches!(room.root.status(&name), Err(Error::NotFound)));
    }
    assert!(RelPath::parse(&[b'n'; 256]).is_err());
    let deep = RelPath::parse(&[&b"ab/".repeat(1364)[..], b"abc"].concat()).unwrap();
    assert!(matches!(room.root.read(&deep), Err(Error::NotFound)), "as long as a path may be");
}

const CREATE: portreeve_files::Finish =
    portreeve_files::Finish { mode: portreeve_files::NewMode::Kept, only: portreeve_files::Only::IfAbsent };
