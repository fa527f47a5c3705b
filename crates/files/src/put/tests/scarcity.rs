//! No space, no inodes, no permission: the old file stays, and nothing of the new one.

use std::os::unix::fs::chown;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Uid, setfsgid, setfsuid};

use super::*;

/// Whether there is a small file system at `at` now, which this thread alone sees.
fn small_disk(at: &Path, options: &str) -> bool {
    let nothing: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Uid::effective().is_root()
        && unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(nothing, "/", nothing, private, nothing).is_ok()
        && mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).is_ok()
}

#[test]
fn a_full_disk_keeps_the_old_file_and_nothing_of_the_new_one() {
    for mut room in Room::each() {
        alone(|| {
            if !small_disk(room.dir.path(), "size=64k,mode=700") {
                return println!("SKIPPED: a full disk: needs root, and mounts");
            }
            room.root = Root::open(room.dir.path(), Within::Root).unwrap();
            room.write("f", "old", ALWAYS).unwrap();
            let mut put = room.put("f").unwrap();
            let mut write = || (0..100).try_for_each(|_| put.write(&[b'x'; 4096]));
            assert!(matches!(write(), Err(Error::Full)));
            let error = put.finish(ALWAYS).unwrap_err();
            assert!(matches!(error, Error::Io { doing: "finish it", .. }), "what is torn is not finished");
            assert_eq!(room.content("f"), "old");
            assert_eq!(room.names(), ["f"]);
            room.write("f", &"y".repeat(32 * 1024), ALWAYS).unwrap();
        });
    }
}

#[test]
fn without_inodes_there_is_no_file() {
    for mut room in Room::each() {
        alone(|| {
            // One is the root's.
            if !small_disk(room.dir.path(), "nr_inodes=4,mode=700") {
                return println!("SKIPPED: no inodes: needs root, and mounts");
            }
            room.root = Root::open(room.dir.path(), Within::Root).unwrap();
            room.write("old", "old", ALWAYS).unwrap();
            let mut refused = 0;
            for name in ["a", "b", "c", "old"] {
                match room.write(name, "new", ALWAYS) {
                    Ok(_) => {}
                    Err(Error::Full) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            assert!(refused >= 1);
            assert!(room.names().iter().all(|name| !name.starts_with(crate::PUT_PREFIX)));
            let all = room.root.put(&path("both-ways")).and_then(|put| put.finish(ALWAYS));
            assert!(matches!(all, Err(Error::Full)), "{all:?}");
        });
    }
}

#[test]
fn what_is_not_on_disk_does_not_get_the_name() {
    for room in Room::each() {
        fs::write(room.at("f"), "old").unwrap();
        alone(|| {
            refuse(libc::SYS_fsync, libc::EIO);
            for name in ["f", "new"] {
                let written = room.write(name, "new", ALWAYS);
                assert!(matches!(written, Err(Error::Io { doing: "write it", .. })), "{written:?}");
            }
        });
        assert_eq!((room.names(), room.content("f")), (vec!["f".to_owned()], "old".to_owned()));
    }
}

#[test]
fn without_proc_there_is_the_other_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path(), Within::Root).unwrap();
    alone(|| {
        let mounted = tempfile::tempdir().unwrap();
        if !small_disk(mounted.path(), "mode=700") || umount2("/proc", MntFlags::MNT_DETACH).is_err() {
            return println!("SKIPPED: no /proc: needs root, and mounts");
        }
        let nameless = root.put_by(&path("f"), &[Staging::Nameless]);
        assert!(matches!(nameless, Err(Error::Unsupported(_))), "{nameless:?}");
        root.put(&path("f")).and_then(|put| put.finish(ABSENT)).unwrap();
    });
    assert!(names(dir.path()).iter().all(|name| name == "f"));
}

const ALICE: u32 = 20001;
const BOB: u32 = 20002;

/// As another user, as far as files are concerned; the capabilities that go with it are root's alone.
fn as_user<T: Send>(uid: u32, run: impl FnOnce() -> T + Send) -> T {
    alone(|| {
        setfsgid(Gid::from_raw(uid));
        setfsuid(Uid::from_raw(uid));
        run()
    })
}

#[test]
fn another_users_files() {
    if !Uid::effective().is_root() {
        return println!("SKIPPED: another_users_files: needs root");
    }
    for room in Room::each() {
        let own = |name: &str, uid, gid, mode| {
            chown(room.at(name), Some(uid), Some(gid)).unwrap();
            fs::set_permissions(room.at(name), Permissions::from_mode(mode)).unwrap();
        };
        own("", ALICE, ALICE, 0o777);
        for (name, owner, mode) in [
            ("read-only", ALICE, 0o444),
            ("alices", ALICE, 0o600),
            ("shared", ALICE, 0o666),
            ("for-the-group", BOB, 0o664),
        ] {
            fs::write(room.at(name), "old").unwrap();
            own(name, owner, ALICE, mode);
        }
        fs::create_dir(room.at("closed")).unwrap();
        own("closed", ALICE, ALICE, 0o755);
        fs::create_dir(room.at("drop-box")).unwrap();
        own("drop-box", ALICE, ALICE, 0o733);
        fs::create_dir(room.at("locked")).unwrap();
        own("locked", ALICE, ALICE, 0o700);
        let write =
            |name: &str| room.write(name, "new", ALWAYS).map(|status| (status.mode, status.uid, status.gid));
        as_user(ALICE, || {
            assert!(matches!(write("read-only"), Err(Error::Denied)), "its owner made it read-only");
        });
        as_user(BOB, || {
            for name in ["read-only", "alices", "closed/f", "locked/f"] {
                assert!(matches!(write(name), Err(Error::Denied)), "{name}");
            }
            assert!(matches!(room.root.read(&path("alices")), Err(Error::Denied)));
            // Bob is not in that group, and his own gets no more than everybody.
            assert_eq!(write("for-the-group").unwrap(), (0o644, BOB, BOB));
            assert_eq!(write("shared").unwrap(), (0o666, BOB, BOB));
            write("drop-box/f").unwrap();
        });
        // Root may give it any group.
        own("shared", ALICE, ALICE, 0o664);
        assert_eq!(write("shared").unwrap(), (0o664, 0, ALICE));
        assert_eq!(room.content("alices"), "old");
        let hidden = |dir: &str| names(&room.at(dir)).iter().any(|name| name.starts_with(crate::PUT_PREFIX));
        assert!(!["", "closed", "drop-box", "locked"].into_iter().any(hidden));
    }
}
