//! The process that connects as a user: who it is, what it can't do, and that its sockets are nobody else's. A test plays
//! the broker and the portal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};
use portreeve_model::wire::dialer::{AT_ONCE, Dial, Dialed};
use portreeve_model::wire::encode_bare;
use portreeve_model::wire::spawner::{Identity, SpawnerNews, Start};
use portreeve_sys::{SockDiag, message, namespace_cookie};
use portreeve_tests::world::skip;
use portreeve_tests::world::spawner::{
    Spawner, SpawnerOptions, channel_pair, descriptors_of, eventually, hear, helper, identity, is_closed,
    push, status_of, tell,
};

const ALICE: u32 = 20001;

fn alice() -> Identity {
    identity("alice", ALICE, ALICE, &[ALICE, 20100])
}

/// Root's process, and alice's dialer once it is confined.
struct Rig {
    spawner: Spawner,
    child: u64,
    pid: u32,
    control: Option<OwnedFd>,
}

impl Rig {
    fn start() -> Result<Self, String> {
        let mut spawner = Spawner::start(&SpawnerOptions::default())?;
        let (child, pid, control) = spawner.begin(Start::Dialer(alice()));
        eventually("the dialer is in its sandbox", || (status_of(pid).get("Seccomp")? == "2").then_some(()));
        Ok(Self { spawner, child, pid, control: Some(control) })
    }

    fn control(&self) -> &OwnedFd {
        self.control.as_ref().unwrap()
    }

    /// One more channel, as the portal's thread has it.
    fn channel(&self) -> OwnedFd {
        let (ours, theirs) = channel_pair();
        push(self.control(), b"x", &[theirs.as_fd()]);
        ours
    }

    /// How many descriptors the dialer has besides the four that it always has.
    fn more_descriptors(&self) -> usize {
        descriptors_of(self.pid).len() - 4
    }

    /// Its exit status, once it has ended.
    fn status(&self) -> Option<i32> {
        match self.spawner.news() {
            SpawnerNews::Ended { child, status } if child == self.child => status,
            other => panic!("{other:?}"),
        }
    }
}

macro_rules! rig {
    ($test:literal) => {
        match Rig::start() {
            Ok(rig) => rig,
            Err(why) => return skip($test, &why),
        }
    };
}

fn dial(channel: &OwnedFd, id: u32, to: SocketAddr, patience: u32) {
    tell(channel, &Dial { id, to, patience }, &[]);
}

/// The connection that comes for this question, with nothing else between.
fn connected(channel: &OwnedFd, id: u32) -> TcpStream {
    let (said, mut sockets) = hear::<Dialed>(channel);
    assert_eq!(said, Dialed::Connected { id });
    assert_eq!(hear::<Dialed>(channel).0, Dialed::Released { id });
    TcpStream::from(sockets.pop().unwrap())
}

/// A port that answers nobody: its queue is full. Holds it so.
fn deaf() -> (SocketAddr, impl Sized) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address: SockaddrIn = getsockname(listener.as_raw_fd()).unwrap();
    let fillers: Vec<OwnedFd> = (0..4)
        .map(|_| {
            let filler = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            let begun = nix::sys::socket::connect(filler.as_raw_fd(), &address);
            assert!(matches!(begun, Ok(()) | Err(Errno::EINPROGRESS)), "{begun:?}");
            filler
        })
        .collect();
    (SocketAddr::new(address.ip().into(), address.port()), (listener, fillers))
}

#[test]
fn a_dialer_is_its_user_for_good_and_in_its_sandbox() {
    let rig = rig!("a_dialer_is_its_user_for_good_and_in_its_sandbox");
    let status = status_of(rig.pid);
    let zero = "0000000000000000";
    for (field, value) in [
        ("Uid", "20001\t20001\t20001\t20001"),
        ("Gid", "20001\t20001\t20001\t20001"),
        ("Groups", "20001 20100"),
        ("CapInh", zero),
        ("CapPrm", zero),
        ("CapEff", zero),
        ("CapAmb", zero),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("SigBlk", zero),
        ("Threads", "1"),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
    let found = descriptors_of(rig.pid);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3], "{found:?}");
    assert_eq!((found[&0].as_str(), found[&1].as_str()), ("/dev/null", "/dev/null"));
    assert!(found[&3].starts_with("socket:"), "{found:?}");
}

#[test]
fn its_own_user_cannot_get_at_it() {
    let rig = rig!("its_own_user_cannot_get_at_it");
    let spy = |pid: u32| helper(&["spy", &ALICE.to_string(), &pid.to_string()]).unwrap();
    // An ordinary process of hers is open to her, so the look is a good one.
    let mut ordinary = std::process::Command::new("setpriv")
        .args(["--reuid", "20001", "--regid", "20001", "--groups", "20001,20100", "sleep", "60"])
        .spawn()
        .unwrap();
    eventually("her program runs", || (status_of(ordinary.id()).get("Name")? == "sleep").then_some(()));
    let open = spy(ordinary.id());
    ordinary.kill().unwrap();
    ordinary.wait().unwrap();
    let restricted = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let expected: &[&str] = match restricted.is_ok_and(|scope| scope.trim() != "0") {
        true => &["fd/0", "cwd", "exe", "environ", "fd"],
        false => &["attach", "fd/0", "cwd", "exe", "environ", "fd", "mem", "process_vm_readv"],
    };
    for way in expected {
        assert!(open.lines().any(|line| line == *way), "{way} in {open}");
    }
    assert_eq!(spy(rig.pid), "done\n");
    // It is whole still.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let channel = rig.channel();
    dial(&channel, 1, listener.local_addr().unwrap(), 5000);
    connected(&channel, 1);
}

#[test]
fn a_connection_is_the_users_and_nobody_has_a_copy() {
    let rig = rig!("a_connection_is_the_users_and_nobody_has_a_copy");
    let channel = rig.channel();
    for (id, address) in ["127.0.0.1:0", "[::1]:0"].into_iter().enumerate() {
        let listener = TcpListener::bind(address).unwrap();
        let to = listener.local_addr().unwrap();
        let id = u32::try_from(id).unwrap();
        dial(&channel, id, to, 5000);
        let mut stream = connected(&channel, id);
        assert_eq!(rig.more_descriptors(), 1, "its channel, and no copy of the socket");
        assert_eq!(stream.peer_addr().unwrap(), to);
        // Whose it is, by the kernel's own record of it.
        let mut kernel = SockDiag::open().unwrap();
        let record = kernel.exact(stream.local_addr().unwrap(), to).unwrap().unwrap();
        assert_eq!(record.uid, ALICE);
        let flags = OFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        assert!(stream.nodelay().unwrap());
        assert_eq!(namespace_cookie(&stream).unwrap(), namespace_cookie(&listener).unwrap());
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        // The last one that has it: closing it here ends the connection.
        drop(stream);
        assert_eq!(accepted.read(&mut bytes).unwrap(), 0);
    }
}

#[test]
fn what_fails_is_said_and_patience_ends() {
    let rig = rig!("what_fails_is_said_and_patience_ends");
    let channel = rig.channel();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (deaf, _held) = deaf();
    let start = Instant::now();
    dial(&channel, 1, deaf, 400);
    dial(&channel, 2, closed, 5000);
    dial(&channel, 3, "255.255.255.255:80".parse().unwrap(), 5000);
    dial(&channel, 4, deaf, 0);
    let mut failed = BTreeMap::new();
    while failed.len() < 4 {
        match hear::<Dialed>(&channel).0 {
            Dialed::Failed { id, errno } => failed.insert(id, (Errno::from_raw(errno), start.elapsed())),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(failed[&2].0, Errno::ECONNREFUSED);
    assert!(matches!(failed[&3].0, Errno::EACCES | Errno::ENETUNREACH), "{:?}", failed[&3]);
    assert_eq!((failed[&1].0, failed[&4].0), (Errno::ETIMEDOUT, Errno::ETIMEDOUT));
    let millis = Duration::from_millis;
    assert!(failed[&1].1 >= millis(400) && failed[&1].1 < millis(2000), "{:?}", failed[&1]);
    assert!(failed[&4].1 < millis(390), "{:?}", failed[&4]);
    assert_eq!(rig.more_descriptors(), 1);
}

#[test]
fn many_at_once_and_no_more_than_that() {
    let rig = rig!("many_at_once_and_no_more_than_that");
    let channel = rig.channel();
    let (deaf, _held) = deaf();
    let ids = u32::try_from(AT_ONCE).unwrap();
    for id in 0..ids + 3 {
        dial(&channel, id, deaf, 60_000);
    }
    for id in ids..ids + 3 {
        assert_eq!(hear::<Dialed>(&channel).0, Dialed::Failed { id, errno: Errno::EBUSY as i32 });
    }
    assert_eq!(rig.more_descriptors(), 1 + AT_ONCE);
    // Another channel has places of its own.
    let other = rig.channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    dial(&other, 7, listener.local_addr().unwrap(), 5000);
    connected(&other, 7);
    // What is under way ends with its channel.
    drop(channel);
    eventually("what was under way is closed", || (rig.more_descriptors() == 1).then_some(()));
}

#[test]
fn answers_wait_for_a_portal_that_does_not_listen() {
    let rig = rig!("answers_wait_for_a_portal_that_does_not_listen");
    let channel = rig.channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let accepting = std::thread::spawn(move || while listener.accept().unwrap().1.ip().is_loopback() {});
    // Until the dialer stops to read, since nobody takes its answers.
    let (mut sent, mut quiet_since) = (0, Instant::now());
    while quiet_since.elapsed() < Duration::from_millis(300) && sent < 5000 {
        let frame = encode_bare(&Dial { id: sent, to, patience: 60_000 }).unwrap();
        if message::send(&channel, &frame, &[]).is_ok() {
            (sent, quiet_since) = (sent + 1, Instant::now());
        }
    }
    assert!((100..5000).contains(&sent), "{sent}");
    let mut streams = Vec::new();
    let (mut announced, mut released, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    while released.len() + busy.len() < sent as usize {
        match hear::<Dialed>(&channel) {
            (Dialed::Connected { id }, mut sockets) => {
                announced.push(id);
                streams.push(sockets.pop().unwrap());
            }
            (Dialed::Released { id }, _) => released.push(id),
            // More were asked for than may be under way.
            (Dialed::Failed { id, errno }, _) if errno == Errno::EBUSY as i32 => busy.push(id),
            (failed, _) => panic!("{failed:?}"),
        }
    }
    assert_eq!(announced, released);
    assert!(announced.len() >= AT_ONCE, "{}", announced.len());
    let mut answered = [announced, busy].concat();
    answered.sort_unstable();
    assert_eq!(answered, (0..sent).collect::<Vec<u32>>());
    assert_eq!(rig.more_descriptors(), 1);
    assert!(!accepting.is_finished());
}

#[test]
fn a_channel_that_says_anything_else_is_closed_and_no_other() {
    let rig = rig!("a_channel_that_says_anything_else_is_closed_and_no_other");
    let good = rig.channel();
    let (deaf, _held) = deaf();
    let text = String::from_utf8(encode_bare(&Dial { id: 1, to: deaf, patience: 9 }).unwrap()).unwrap();
    for frame in [
        b"x".to_vec(),
        b"{}".to_vec(),
        b"\0\0\0\0".to_vec(),
        vec![b' '; 60_000],
        format!("{text}{text}").into_bytes(),
        text.replace("{\"id\"", "{\"from\":1,\"id\"").into_bytes(),
        text.replace("127.0.0.1", "localhost").into_bytes(),
        text.replace(":1,", ":-1,").into_bytes(),
    ] {
        let channel = rig.channel();
        dial(&channel, 0, deaf, 60_000);
        push(&channel, &frame, &[]);
        assert!(is_closed(&channel), "{}", String::from_utf8_lossy(&frame));
    }
    // A descriptor is nothing that it could want.
    let channel = rig.channel();
    let frame = encode_bare(&Dial { id: 1, to: deaf, patience: 9 }).unwrap();
    push(&channel, &frame, &[good.as_fd()]);
    assert!(is_closed(&channel));
    // What is no such channel is closed, too, and the next one is taken.
    let (reader, writer) = nix::unistd::pipe().unwrap();
    push(rig.control(), b"x", &[tempfile::tempfile().unwrap().as_fd()]);
    push(rig.control(), b"x", &[writer.as_fd()]);
    drop((reader, writer));
    let next = rig.channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (id, channel) in [(7, &good), (8, &next)] {
        dial(channel, id, listener.local_addr().unwrap(), 5000);
        connected(channel, id);
    }
    eventually("only the good ones are left", || (rig.more_descriptors() == 2).then_some(()));
}

#[test]
fn a_dialer_ends_with_its_control_channel() {
    let mut rig = rig!("a_dialer_ends_with_its_control_channel");
    let channel = rig.channel();
    let (deaf, _held) = deaf();
    dial(&channel, 0, deaf, 60_000);
    rig.control = None;
    assert!(is_closed(&channel));
    assert_eq!(rig.status(), Some(0));
    // Also when that says something without bringing a channel, or brings two.
    for count in [0, 2] {
        let rig = rig!("a_dialer_ends_with_its_control_channel");
        let (_ours, theirs) = channel_pair();
        push(rig.control(), b"x", &vec![theirs.as_fd(); count]);
        assert_eq!(rig.status(), Some(76));
    }
}

#[test]
#[ignore = "measures"]
fn how_long_it_takes() {
    let mut spawner = Spawner::start(&SpawnerOptions::default()).unwrap();
    let median = |mut all: Vec<Duration>| {
        all.sort_unstable();
        (all[all.len() / 2], all[all.len() * 99 / 100])
    };
    let (mut started, mut usable) = (Vec::new(), Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    for _ in 0..200 {
        let start = Instant::now();
        let (child, _, control) = spawner.begin(Start::Dialer(alice()));
        started.push(start.elapsed());
        let (channel, theirs) = channel_pair();
        push(&control, b"x", &[theirs.as_fd()]);
        dial(&channel, 0, to, 5000);
        connected(&channel, 0);
        usable.push(start.elapsed());
        spawner.order(Start::End { child }, &[]);
        assert!(matches!(spawner.news(), SpawnerNews::Ended { .. }));
        listener.accept().unwrap();
    }
    println!("order to Started, median and 99th percentile: {:?}", median(started));
    println!("order to the first connection: {:?}", median(usable));
    let (_, _, control) = spawner.begin(Start::Dialer(alice()));
    let (channel, theirs) = channel_pair();
    push(&control, b"x", &[theirs.as_fd()]);
    let (mut direct, mut dialed) = (Vec::new(), Vec::new());
    for id in 0..2000 {
        let start = Instant::now();
        let stream = TcpStream::connect(to).unwrap();
        direct.push(start.elapsed());
        listener.accept().unwrap();
        drop(stream);
        let start = Instant::now();
        dial(&channel, id, to, 5000);
        let stream = connected(&channel, id);
        dialed.push(start.elapsed());
        listener.accept().unwrap();
        drop(stream);
    }
    println!("connect: {:?}; through the dialer: {:?}", median(direct), median(dialed));
}
