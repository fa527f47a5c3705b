//! The program with a configuration of its own, and machines made of network namespaces.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::fchown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use portreeve_model::wire::ident2::{
    Flags, Found, MAX_MESSAGE, Message, Op, Protocol, Request, Response, TcpStates, parse,
};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing has to come, so that nothing comes.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
pub(crate) const PROJECT: u32 = 20_502;

/// Says aloud that the test which runs in this thread does not run here.
pub(crate) fn skip(why: &str) {
    println!("SKIPPED: {}: {why}", std::thread::current().name().unwrap_or_default());
}

/// A uid of this test's own, which needs root.
pub(crate) fn user() -> Option<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(20_600);
    if nix::unistd::geteuid().is_root() {
        return Some(NEXT.fetch_add(1, Relaxed));
    }
    skip("needs root");
    None
}

/// Until it holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("{what}: not in time");
}

/// A process, ended with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program.
pub(crate) struct Service {
    program: Running,
    dir: TempDir,
}

impl Service {
    /// Runs on this machine, or on another one.
    pub(crate) fn start(config: &str, on: Option<&Machine>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let file = dir.path().join("ident2.toml");
        std::fs::write(&file, format!("socket = '{}'\n{config}", socket.display())).unwrap();
        let program = launch(dir.path(), on);
        let service = Self { program, dir };
        until("the service begins", || service.log().contains("ready"));
        service
    }

    /// Ends it, and has it run again on this machine.
    pub(crate) fn restart(&mut self, between: impl FnOnce()) {
        self.signal(Signal::SIGTERM);
        until("the service ends", || self.program.0.try_wait().unwrap().is_some());
        assert!(self.program.0.wait().unwrap().success() && self.log().contains("stopped"), "{}", self.log());
        assert!(self.socket().exists());
        between();
        self.program = launch(self.dir.path(), None);
        until("the service begins", || self.log().contains("ready"));
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::at(&self.socket())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.program.0.id().cast_signed()), signal).unwrap();
    }

    /// The rest of the configuration, from now on.
    pub(crate) fn reconfigure(&self, config: &str) {
        let text = format!("socket = '{}'\n{config}", self.socket().display());
        std::fs::write(self.dir.path().join("ident2.toml"), text).unwrap();
        self.signal(Signal::SIGHUP);
        until("it is read", || self.log().contains("configuration reloaded"));
    }
}

fn launch(dir: &Path, on: Option<&Machine>) -> Running {
    let program = env!("CARGO_BIN_EXE_portreeve-agent");
    let mut command = on.map_or_else(|| Command::new(program), |machine| machine.command(program));
    command.arg("ident2").arg("--config").arg(dir.join("ident2.toml"));
    Running(command.stdin(Stdio::null()).stderr(File::create(dir.join("log")).unwrap()).spawn().unwrap())
}

/// A connection to the service.
pub(crate) struct Caller(pub(crate) UnixStream);

impl Caller {
    pub(crate) fn at(path: &Path) -> Self {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        let stream = UnixStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn say(&self, bytes: &[u8]) {
        assert_eq!((&self.0).write(bytes).unwrap(), bytes.len());
    }

    /// The next message; empty at the end.
    pub(crate) fn hear(&self) -> Vec<u8> {
        let mut buffer = vec![0; MAX_MESSAGE + 1];
        match (&self.0).read(&mut buffer) {
            Ok(length) => buffer[..length].to_vec(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn ask(&self, request: &Request) -> Response {
        self.say(&request.to_bytes());
        self.response()
    }

    pub(crate) fn response(&self) -> Response {
        response(&self.hear())
    }

    pub(crate) fn hears_nothing(&self) {
        self.0.set_read_timeout(Some(SILENCE)).unwrap();
        let error = (&self.0).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

pub(crate) fn response(bytes: &[u8]) -> Response {
    match parse(bytes) {
        Ok(Message::Answer(response)) => response,
        other => panic!("{other:?}"),
    }
}

/// Who listens there?
pub(crate) fn listens(op: Op, query_id: u64, local: SocketAddr) -> Request {
    let remote = if local.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    Request {
        op,
        client_id: 0,
        query_id,
        flags: Flags::PROCESS.and(Flags::GROUPS),
        protocol: Protocol::Tcp,
        states: TcpStates::LISTEN,
        local,
        remote: remote.parse().unwrap(),
    }
}

pub(crate) fn only(uid: u32) -> Option<Found> {
    Some(Found { uid, gid: None, pid: None, groups: None })
}

/// A machine, for as long as this lives.
pub(crate) struct Machine {
    holder: Running,
}

impl Machine {
    /// `None`, and said aloud, without what it takes.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("needs root");
            return None;
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--", "cat"]);
        let Ok(holder) = command.stdin(Stdio::piped()).spawn() else {
            skip("needs setpriv and unshare");
            return None;
        };
        let machine = Self { holder: Running(holder) };
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        until("a namespace", || {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", machine.holder.0.id())).unwrap();
            comm.trim() == "cat" && std::fs::read_link(machine.namespace()).unwrap() != ours
        });
        if machine.command("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|done| done.success()) {
            return Some(machine);
        }
        skip("needs nsenter and ip");
        None
    }

    fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.0.id()).into()
    }

    /// Two of them, with a cable in between.
    pub(crate) fn pair(one: &[&str], other: &[&str]) -> Option<(Self, Self)> {
        let (a, b) = (Self::new()?, Self::new()?);
        let pid = b.holder.0.id().to_string();
        a.ip(&["link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", &pid]);
        for (machine, addresses) in [(&a, one), (&b, other)] {
            machine.ip(&["link", "set", "e0", "up"]);
            for address in addresses {
                machine.add(address);
            }
        }
        Some((a, b))
    }

    pub(crate) fn add(&self, address: &str) {
        let nodad = address.contains(':').then_some("nodad");
        self.ip(&["addr", "add", address, "dev", "e0"].into_iter().chain(nodad).collect::<Vec<_>>());
    }

    fn ip(&self, arguments: &[&str]) {
        let done = self.command("ip").args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A program that runs there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).arg("--").arg(program);
        command
    }

    /// Whatever this opens belongs there.
    pub(crate) fn inside<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.namespace()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                open()
            });
            thread.join().unwrap()
        })
    }

    pub(crate) fn udp(&self, at: &str) -> Udp {
        let socket = self.inside(|| UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Udp(socket)
    }
}

/// Another node, by hand.
pub(crate) struct Udp(UdpSocket);

impl Udp {
    pub(crate) fn say(&self, bytes: &[u8], to: &str) {
        assert_eq!(self.0.send_to(bytes, to).unwrap(), bytes.len());
    }

    pub(crate) fn hear(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; MAX_MESSAGE + 1];
        let (length, from) = self.0.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from)
    }

    pub(crate) fn question(&self) -> (Request, SocketAddr) {
        let (bytes, from) = self.hear();
        match parse(&bytes) {
            Ok(Message::Question(request)) => (request, from),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn hears_nothing(&self) {
        self.0.set_read_timeout(Some(SILENCE)).unwrap();
        let error = self.0.recv_from(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

/// A socket of that user's.
pub(crate) fn given<S: AsFd>(socket: S, uid: u32) -> S {
    fchown(&socket, Some(uid), None).unwrap();
    socket
}

pub(crate) fn listener_of(uid: u32, at: &str) -> TcpListener {
    given(TcpListener::bind(at).unwrap(), uid)
}

/// A process of this user and group that holds the socket.
pub(crate) fn holds(socket: &impl AsFd, uid: u32, gid: u32, groups: &str) -> Running {
    let ids = [&*format!("--reuid={uid}"), &format!("--regid={gid}"), "--groups", groups];
    let stdin = Stdio::from(socket.as_fd().try_clone_to_owned().unwrap());
    let child = Command::new("setpriv").args(ids).args(["sleep", "300"]).stdin(stdin).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let running = Running(child);
    until("a holder", || std::fs::read_to_string(&status).unwrap().contains("Name:\tsleep"));
    running
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

pub(crate) fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}
