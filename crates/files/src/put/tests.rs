use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::umask;
use nix::unistd::mkfifo;

use super::*;
use crate::rel_path::RelPath;
use crate::root::Within;

mod links;
mod rivals;
mod scarcity;

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

/// From now on a system call of this thread fails so.
fn refuse(call: i64, errno: i32) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    let rules = std::collections::BTreeMap::from([(call, Vec::new())]);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    apply_filter(&program).unwrap();
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
