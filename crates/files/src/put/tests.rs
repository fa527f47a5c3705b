use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::umask;
use nix::unistd::{Uid, mkfifo, setfsgid, setfsuid};

use super::*;
use crate::rel_path::RelPath;
use crate::root::Within;

const ALWAYS: Finish = Finish { mode: NewMode::Kept, only: Only::Always };
const ABSENT: Finish = Finish { mode: NewMode::Kept, only: Only::IfAbsent };

fn only(only: Only) -> Finish {
    Finish { mode: NewMode::Kept, only }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A temporary directory, and how files get there.
struct Room {
    dir: tempfile::TempDir,
    root: Root,
    way: Staging,
}

impl Room {
    /// One for each way to stage a file that works here.
    fn each() -> Vec<Self> {
        let room = |way: &Staging| {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::open(dir.path(), Within::Root).unwrap();
            Self { dir, root, way: *way }
        };
        let works = |room: &Self| match room.put("probe") {
            Err(Error::Unsupported(_)) => {
                println!("SKIPPED: {:?}: this file system can't", room.way);
                false
            }
            begun => begun.map(|_| true).unwrap(),
        };
        Staging::ALL.iter().map(room).filter(works).collect()
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str) -> Result<Put, Error> {
        self.root.put_by(&path(name), &[self.way])
    }

    fn write(&self, name: &str, content: &str, how: Finish) -> Result<Status, Error> {
        let mut put = self.put(name)?;
        put.write(content.as_bytes())?;
        put.finish(how)
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// All names, sorted.
    fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// In a thread of its own, which may change what belongs to a thread: its umask, its mounts, its user for files.
fn alone<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn a_file_is_replaced_whole_and_who_reads_the_old_one_goes_on() {
    for room in Room::each() {
        let first = room.write("f", "one", ABSENT).unwrap();
        assert_eq!((first.size, first.kind), (3, Kind::File));
        assert_eq!(first, room.root.status(&path("f")).unwrap(), "what finish says is what is there");
        let mut reader = room.root.read(&path("f")).unwrap().into_file();
        let mut put = room.put("f").unwrap();
        for part in ["t", "", "wo!"] {
            put.write(part.as_bytes()).unwrap();
        }
        assert_eq!(put.written(), 4);
        assert_eq!(room.content("f"), "one", "nothing is seen of it yet");
        put.finish(ALWAYS).unwrap();
        assert_eq!(room.content("f"), "two!");
        let mut old = String::new();
        reader.read_to_string(&mut old).unwrap();
        assert_eq!(old, "one");
        assert_eq!(room.names(), ["f"]);
    }
}

#[test]
fn dropped_it_leaves_nothing() {
    for room in Room::each() {
        fs::write(room.at("old"), "old").unwrap();
        for name in ["old", "new"] {
            let mut put = room.put(name).unwrap();
            put.write(b"half of it").unwrap();
            let hidden = room.names().iter().filter(|name| name.starts_with(crate::PUT_PREFIX)).count();
            assert_eq!(hidden, usize::from(room.way == Staging::Hidden));
        }
        assert_eq!(room.names(), ["old"]);
        assert_eq!(room.content("old"), "old");
    }
}

#[test]
fn a_file_being_written_is_nobody_elses() {
    for room in Room::each() {
        let put = room.put("f").unwrap();
        assert_eq!(Status::of(put.staged.file()).unwrap().mode, 0o600);
    }
}

#[test]
fn whose_mode_it_gets() {
    // umask, mode of the old file, what is asked for, what it gets
    let cases = [
        (0o022, None, NewMode::Kept, 0o644),
        (0o027, None, NewMode::Kept, 0o640),
        (0o077, None, NewMode::Kept, 0o600),
        (0o000, None, NewMode::Kept, 0o666),
        (0o077, Some(0o755), NewMode::Kept, 0o755),
        (0o000, Some(0o600), NewMode::Kept, 0o600),
        (0o022, Some(0o6755), NewMode::Kept, 0o755),
        (0o022, None, NewMode::Exactly(0o600), 0o600),
        (0o077, None, NewMode::Exactly(0o664), 0o664),
        (0o022, Some(0o644), NewMode::Exactly(0o600), 0o600),
        (0o022, None, NewMode::Exactly(0o106_755), 0o755),
    ];
    for room in Room::each() {
        for (mask, old, mode, expected) in cases {
            let _ = fs::remove_file(room.at("f"));
            if let Some(old) = old {
                fs::write(room.at("f"), "old").unwrap();
                fs::set_permissions(room.at("f"), Permissions::from_mode(old)).unwrap();
            }
            let status = alone(|| {
                unshare(CloneFlags::CLONE_FS).unwrap();
                umask(Mode::from_bits_truncate(mask));
                room.write("f", "new", Finish { mode, only: Only::Always }).unwrap()
            });
            assert_eq!(status.mode, expected, "{:?} {mask:o} {old:?} {mode:?}", room.way);
            assert_eq!(fs::metadata(room.at("f")).unwrap().mode() & 0o7777, expected);
        }
        assert_eq!(room.names(), ["f"]);
    }
}

#[test]
fn a_default_access_control_list_counts_as_for_any_new_file() {
    for room in Room::each() {
        let set = Command::new("setfacl")
            .args(["-d", "-m", "u::rwx,g::r-x,g:12345:rwx,m::rwx,o::---"])
            .arg(room.dir.path())
            .status();
        if !set.is_ok_and(|status| status.success()) {
            return println!(
                "SKIPPED: a default access control list: needs setfacl, and a file system with lists"
            );
        }
        fs::write(room.at("plain"), "").unwrap();
        room.write("put", "x", ALWAYS).unwrap();
        let list = |name: &str| {
            let output = Command::new("getfacl").args(["-c", "-p"]).arg(room.at(name)).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(list("plain").contains("group:12345:rwx"), "{}", list("plain"));
        assert_eq!(list("put"), list("plain"), "{:?}", room.way);
        room.write("secret", "x", Finish { mode: NewMode::Exactly(0o600), only: Only::Always }).unwrap();
        assert!(list("secret").contains("mask::---"), "{}", list("secret"));
    }
}

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
fn what_is_no_file_is_not_replaced() {
    for room in Room::each() {
        fs::create_dir(room.at("dir")).unwrap();
        mkfifo(&room.at("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(room.at("socket")).unwrap();
        let cases = [
            ("dir", "IsADirectory"),
            ("fifo", "NotRegular(Fifo)"),
            ("socket", "NotRegular(Socket)"),
            ("fifo/x", "NotADirectory"),
            ("none/x", "NotFound"),
        ];
        for (name, expected) in cases {
            assert_eq!(format!("{:?}", room.put(name).unwrap_err()), expected, "{name}");
        }
        // It may also come while the file is being written.
        for (how, expected) in [(ALWAYS, "NotRegular(Fifo)"), (ABSENT, "Exists")] {
            let put = room.put("late").unwrap();
            mkfifo(&room.at("late"), Mode::S_IRWXU).unwrap();
            assert_eq!(format!("{:?}", put.finish(how).unwrap_err()), expected);
            fs::remove_file(room.at("late")).unwrap();
        }
        assert_eq!(room.names(), ["dir", "fifo", "socket"]);
    }
}

#[test]
fn of_two_writers() {
    for room in Room::each() {
        // The last one to finish wins.
        let (mut first, mut second) = (room.put("f").unwrap(), room.put("f").unwrap());
        second.write(b"second").unwrap();
        first.write(b"first").unwrap();
        second.finish(ALWAYS).unwrap();
        first.finish(ALWAYS).unwrap();
        assert_eq!(room.content("f"), "first");
        // Who wanted to create it loses.
        assert!(matches!(room.write("f", "third", ABSENT), Err(Error::Exists)));
        // Who had seen something else loses.
        let seen = room.root.status(&path("f")).unwrap().identity;
        let now = room.write("f", "fourth", only(Only::IfStill(seen))).unwrap().identity;
        assert!(matches!(room.write("f", "fifth", only(Only::IfStill(seen))), Err(Error::Changed)));
        assert_eq!(room.content("f"), "fourth");
        // What was removed has changed too.
        fs::remove_file(room.at("f")).unwrap();
        assert!(matches!(room.write("f", "sixth", only(Only::IfStill(now))), Err(Error::Changed)));
        assert!(room.names().is_empty());
    }
}

#[test]
fn of_many_writers_at_once_one_wins() {
    const WRITERS: usize = 8;
    for room in Room::each() {
        for round in 0..20 {
            let name = format!("f{round}");
            let start = Barrier::new(WRITERS);
            let race = |how: Finish| {
                let wins = std::thread::scope(|scope| {
                    let write = |writer: usize| {
                        let (room, start, name) = (&room, &start, &name);
                        move || {
                            let mut put = room.put(name).unwrap();
                            put.write(&[u8::try_from(writer).unwrap(); 1000]).unwrap();
                            start.wait();
                            put.finish(how)
                        }
                    };
                    let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
                    let answers = writers.into_iter().map(|writer| writer.join().unwrap());
                    answers.filter(Result::is_ok).count()
                });
                let content = fs::read(room.at(&name)).unwrap();
                assert_eq!(content.len(), 1000);
                assert!(content.iter().all(|byte| *byte == content[0]), "one writer's, whole");
                wins
            };
            assert_eq!(race(ABSENT), 1);
            let seen = room.root.status(&path(&name)).unwrap().identity;
            assert_eq!(race(only(Only::IfStill(seen))), 1);
            assert_eq!(race(ALWAYS), WRITERS);
        }
        assert_eq!(room.names().len(), 20);
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

#[test]
fn a_long_name_needs_no_longer_one() {
    for room in Room::each() {
        let name = "n".repeat(255);
        for content in ["one", "two"] {
            room.write(&name, content, ALWAYS).unwrap();
            assert_eq!(room.content(&name), content);
        }
        let strange = RelPath::parse(b"a\nb\xff").unwrap();
        room.root.put_by(&strange, &[room.way]).unwrap().finish(ABSENT).unwrap();
        assert!(room.at("").join(std::ffi::OsStr::from_bytes(b"a\nb\xff")).exists());
    }
}

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
