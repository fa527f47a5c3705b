//! Root's process with a broker that a test plays, and a look at the processes that it starts.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, Uid};
use portreeve_model::wire::spawner::{Identity, Order, SpawnerNews, Start};
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};
use portreeve_model::{UserName, wire::spawner::Found};
use portreeve_sys::message::{self, ReceiveError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::PATIENCE;
use super::people::Skip;
use super::process::built;

/// The user database of a test, as `tests/run` has it for the others.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    admin:x:20009:0:in root's group:/nonexistent:/bin/sh\n\
    alice:x:20001:20001:Alice:/nonexistent:/bin/sh\n\
    bob:x:20002:20002:Bob:/nonexistent:/bin/sh\n\
    carol:x:20003:20200:Carol:/nonexistent:/bin/sh\n\
    Wrong Name:x:20010:20010::/nonexistent:/bin/sh\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nalice:x:20001:\nbob:x:20002:\n\
    proj:x:20100:alice,bob\neveryone:x:20200:alice,bob\n";

/// How it is started.
#[derive(Debug, Clone)]
pub struct SpawnerOptions {
    /// Below it nobody is served.
    pub first_uid: u32,
    /// A shell script in place of `portreeve-pam`.
    pub pam: String,
    /// How long a look-up may take.
    pub look_up_patience: Duration,
    /// How long a program may take to end.
    pub end_patience: Duration,
    /// Whether whoever asks the user database waits for ever.
    pub database_hangs: bool,
}

impl Default for SpawnerOptions {
    fn default() -> Self {
        Self {
            first_uid: 1000,
            pam: "#!/bin/sh\nexit 3\n".to_owned(),
            look_up_patience: PATIENCE,
            end_patience: PATIENCE,
            database_hangs: false,
        }
    }
}

/// Root's process. It ends with this value.
#[derive(Debug)]
pub struct Spawner {
    child: Child,
    channel: Option<OwnedFd>,
    dir: tempfile::TempDir,
    next: u64,
}

impl Spawner {
    /// Starts it.
    ///
    /// # Errors
    /// When this is not root, or no mount namespace can be had.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(options: &SpawnerOptions) -> Result<Self, Skip> {
        if !Uid::effective().is_root() {
            return Err("needs root".into());
        }
        let unshared = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).output();
        if !unshared.is_ok_and(|output| output.status.success()) {
            return Err("needs a mount namespace of its own".into());
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("our own file");
        };
        open(dir.path(), 0o755);
        if options.database_hangs {
            nix::unistd::mkfifo(&at("passwd"), nix::sys::stat::Mode::S_IRUSR).expect("a fifo");
        } else {
            std::fs::write(at("passwd"), PASSWD).expect("a file");
        }
        std::fs::write(at("group"), GROUP).expect("a file");
        std::fs::write(at("pam"), &options.pam).expect("a file");
        open(&at("pam"), 0o755);
        std::fs::create_dir(at("forwards")).expect("a directory");
        open(&at("forwards"), 0o1777);
        let (ours, theirs) = channel_pair();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$1\" /etc/passwd; mount --bind \"$2\" /etc/group; shift 2; exec \"$@\"")
            .arg("sh")
            .args([at("passwd"), at("group"), built("portreeve-test-spawner")])
            .args(["serve", &options.first_uid.to_string()])
            .args([at("forwards"), at("pam")])
            .arg(options.look_up_patience.as_millis().to_string())
            .arg(options.end_patience.as_millis().to_string())
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // When the test process ends in any way, the channel ends, and with it everything.
        let child = command.spawn().expect("it starts");
        Ok(Self { child, channel: Some(ours), dir, next: 1 })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A directory that everybody can look into.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The broker's end of the channel.
    ///
    /// # Panics
    /// After [`Self::close`].
    #[must_use]
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_ref().expect("it is open").as_fd()
    }

    /// The broker ends.
    pub fn close(&mut self) {
        self.channel = None;
    }

    /// Gives an order with these descriptors, and returns the child's number.
    ///
    /// # Panics
    /// When the channel is closed.
    pub fn order(&mut self, start: Start, descriptors: &[BorrowedFd<'_>]) -> u64 {
        let child = self.next;
        self.next += 1;
        tell(self.channel(), &Order { child, start }, descriptors);
        child
    }

    /// Starts something, and returns its number, its process and our end of its channel.
    ///
    /// # Panics
    /// When it is refused.
    pub fn begin(&mut self, start: Start) -> (u64, u32, OwnedFd) {
        let (ours, theirs) = channel_pair();
        let child = self.order(start, &[theirs.as_fd()]);
        drop(theirs);
        match self.news() {
            SpawnerNews::Started { child: started, pid } if started == child => (child, pid, ours),
            other => panic!("{other:?}"),
        }
    }

    /// Looks something up: what was found, once the child has ended.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn find(&mut self, start: Start) -> Found {
        let (child, _, channel) = self.begin(start);
        let found = hear(&channel).0;
        assert_eq!(self.news(), SpawnerNews::Ended { child, status: Some(0) });
        found
    }

    /// The next news.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn news(&self) -> SpawnerNews {
        hear(self.channel()).0
    }

    /// How it ended.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("root's process ends", || self.child.try_wait().expect("our own child"))
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.channel = None;
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            pause();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A user as the broker knows them.
///
/// # Panics
/// When the name is none.
#[must_use]
pub fn identity(name: &str, uid: u32, gid: u32, groups: &[u32]) -> Identity {
    Identity { name: UserName::parse(name).expect("a name"), uid, gid, groups: groups.to_vec() }
}

/// Both ends of a channel that keeps messages apart.
///
/// # Panics
/// When the system refuses.
#[must_use]
pub fn channel_pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair")
}

/// Sends a message.
///
/// # Panics
/// When it can't be sent.
pub fn tell<T: Serialize>(channel: impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) {
    push(channel, &encode_bare(message).expect("it fits"), descriptors);
}

/// Sends these bytes as a message, once there is room for it.
///
/// # Panics
/// When it can't be sent.
pub fn push(channel: impl AsFd, frame: &[u8], descriptors: &[BorrowedFd<'_>]) {
    eventually("there is room in the channel", || match message::send(&channel, frame, descriptors) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        sent => {
            sent.expect("it is sent");
            Some(())
        }
    });
}

/// The next message, and what came with it.
///
/// # Panics
/// When none comes.
pub fn hear<T: DeserializeOwned>(channel: impl AsFd) -> (T, Vec<OwnedFd>) {
    let mut buffer = vec![0; MAX_FRAME];
    let message = listen(&channel, &mut buffer).expect("a message");
    (decode(message.bytes).expect("of the right form"), message.descriptors)
}

/// Whether the other end closes the channel without another message.
///
/// # Panics
/// When it does neither.
#[must_use]
pub fn is_closed(channel: impl AsFd) -> bool {
    matches!(listen(&channel, &mut [0; 4096]), Err(ReceiveError::Closed))
}

fn listen<'b>(channel: &impl AsFd, buffer: &'b mut [u8]) -> Result<message::Message<'b>, ReceiveError> {
    let patience = u16::try_from(PATIENCE.as_millis()).expect("it is short");
    poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], patience).expect("it can be waited for");
    message::receive(channel, buffer, 1)
}

/// Waits until `condition` gives something.
///
/// # Panics
/// When it does not; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
        pause();
    }
}

/// Between two looks at something that can't be waited for.
fn pause() {
    let _ = poll(&mut [], 5u16);
}

/// What stands in `/proc/PID/status`; empty when there is no such process.
#[must_use]
pub fn status_of(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            line.split_once(":\t").map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// Which descriptors the process has open, and what they are.
#[must_use]
pub fn descriptors_of(pid: u32) -> BTreeMap<i32, String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeMap::new() };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            Some((number, std::fs::read_link(&path).ok()?.to_string_lossy().into_owned()))
        })
        .collect()
}

/// Whether the process runs: one that has ended and was not reaped does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    status_of(pid).get("State").is_some_and(|state| !state.starts_with('Z'))
}

/// Sends a signal.
///
/// # Panics
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("it is there");
}

/// Runs the helper program to its end and returns what it said.
///
/// # Errors
/// When it can't be run.
pub fn helper(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(built("portreeve-test-spawner")).args(arguments).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The real program, with its broker.
#[must_use]
pub fn portreeve_broker() -> Command {
    let mut command = Command::new(built("portreeve-broker"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The processes whose parent this is.
#[must_use]
pub fn children_of(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}
