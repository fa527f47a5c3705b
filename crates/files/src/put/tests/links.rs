//! Links at the path that is written to, before and meanwhile.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::*;

#[test]
fn a_link_is_written_through_and_stays() {
    for room in Room::each() {
        fs::create_dir_all(room.at("a/b")).unwrap();
        fs::write(room.at("a/real"), "old").unwrap();
        let links = [
            ("to-file", "a/real", Ok("a/real")),
            ("a/b/up", "../real", Ok("a/real")),
            ("chain", "a/b/up", Ok("a/real")),
            ("through-dir", "dir/fresh", Ok("a/b/fresh")),
            ("dir", "a/b", Err("IsADirectory")),
            ("dir-slash", "a/b/", Err("IsADirectory")),
            ("dir-dot", "a/b/.", Err("IsADirectory")),
            ("dangling", "a/made", Ok("a/made")),
            ("dangling-dot", "a/none/..", Err("IsADirectory")),
            ("no-dir", "nowhere/made", Err("NotFound")),
            ("below-file", "a/real/x", Err("NotADirectory")),
            ("loop", "loop", Err("Loop")),
            ("out", "../made", Err("Outside")),
            ("a/b/far-out", "../../../../etc/made", Err("Outside")),
            ("absolute", "/etc/made", Err("Outside")),
        ];
        for (name, target, _) in links {
            symlink(target, room.at(name)).unwrap();
        }
        for (name, _, expected) in links {
            let written = room.write(name, name, ALWAYS);
            match expected {
                Ok(real) => assert_eq!(written.map(|_| room.content(real)).unwrap(), name),
                Err(variant) => assert_eq!(format!("{:?}", written.unwrap_err()), variant, "{name}"),
            }
            assert!(fs::symlink_metadata(room.at(name)).unwrap().is_symlink(), "{name} is still a link");
        }
        assert_eq!(names(&room.at("a")), ["b", "made", "real"]);
        // What a dangling link leads to is created, and only created.
        assert!(matches!(room.write("dangling", "again", ABSENT), Err(Error::Exists)));
    }
}

#[test]
fn links_lead_anywhere_if_the_root_says_so_but_magic_ones_nowhere() {
    for room in Room::each() {
        let other = tempfile::tempdir().unwrap();
        symlink(other.path().join("made"), room.at("absolute")).unwrap();
        symlink("/proc/self/exe", room.at("exe")).unwrap();
        symlink(format!("/proc/self/root{}/x", other.path().display()), room.at("magic")).unwrap();
        let root = Root::open(room.dir.path(), Within::Anywhere).unwrap();
        let put = |name: &str| root.put_by(&path(name), &[room.way]).and_then(|put| put.finish(ALWAYS));
        put("absolute").unwrap();
        assert_eq!(names(other.path()), ["made"]);
        assert!(matches!(put("exe"), Err(Error::Loop)));
        assert!(matches!(put("magic"), Err(Error::Loop)));
        assert_eq!(names(other.path()), ["made"]);
    }
}

#[test]
fn what_is_swapped_in_meanwhile_leads_nowhere() {
    for room in Room::each() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("f"), "precious").unwrap();
        // A link in the place of the file.
        let mut put = room.put("f").unwrap();
        put.write(b"new").unwrap();
        symlink(outside.path().join("f"), room.at("f")).unwrap();
        assert!(matches!(put.finish(ALWAYS), Err(Error::Changed)));
        // A link in the place of its directory.
        fs::create_dir(room.at("dir")).unwrap();
        let mut put = room.put("dir/f").unwrap();
        put.write(b"new").unwrap();
        fs::rename(room.at("dir"), room.at("moved")).unwrap();
        symlink(outside.path(), room.at("dir")).unwrap();
        put.finish(ALWAYS).unwrap();
        assert_eq!(room.content("moved/f"), "new", "it went where it was begun");
        assert_eq!(fs::read_to_string(outside.path().join("f")).unwrap(), "precious");
        assert_eq!(names(outside.path()), ["f"]);
    }
}

#[test]
fn a_link_that_comes_and_goes_is_never_followed_out() {
    for room in Room::each() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(room.at("dir")).unwrap();
        symlink(outside.path(), room.at("link")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (stop, dir, link) = (stop.clone(), room.at("dir"), room.at("link"));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &dir, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            }
        });
        let (mut done, mut refused) = (0, 0);
        while done < 100 || refused < 100 {
            match room.write("dir/f", "new", ALWAYS) {
                Ok(_) => done += 1,
                Err(Error::Outside) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        assert!(names(outside.path()).is_empty());
    }
}
