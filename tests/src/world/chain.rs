//! The whole chain that a cluster's portal stands on: root's process, the broker in its sandbox, PAM, dialers, workers; with
//! a portal that a test plays. Each value ends what it started.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portreeve_model::wire::broker::{Answer, Ask, FromBroker, PublicKey, Question};
use portreeve_model::wire::{ControlReply, ControlRequest, MAX_FRAME, decode, encode_bare};
use portreeve_model::{Claims, Secret, SessionId, UserName};
use tokio::time::timeout;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use super::etc::{Etc, PASSWORD};
use super::people::{Skip, skip};
use super::process::built_if_possible;
use super::spawner::{eventually, signal};

const PATIENCE: Duration = Duration::from_secs(20);

/// A PAM service that asks for the password and does nothing else.
pub const SERVICE: &str =
    "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n";

/// Who plays the workers.
#[derive(Debug, Clone, Copy)]
pub enum Workers {
    /// A stand-in, which tells each connection who it is and what it knows.
    StandIn,
    /// The real program.
    Real,
    /// The real program, which leaves after so many seconds without a connection.
    Idle(u32),
}

/// What runs.
#[derive(Debug)]
pub struct Cluster {
    /// Its machine. The log is its file `log`.
    pub etc: Etc,
    listener: UnixSeqpacketListener,
    broker: Child,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

impl Cluster {
    /// Starts it, with a PAM service of this content.
    ///
    /// # Errors
    /// When this is not root, or something was not built.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(service: &str, workers: Workers) -> Result<Self, Skip> {
        let etc = Etc::new(service)?;
        for (name, mode) in [("state", 0o700), ("forwards", 0o1777), ("bin", 0o755)] {
            std::fs::create_dir(etc.path(name)).unwrap();
            std::fs::set_permissions(etc.path(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        let (worker, called) = match workers {
            Workers::StandIn => ("portreeve-test-broker", "portreeve-worker"),
            Workers::Real => ("portreeve-worker", "portreeve-worker"),
            Workers::Idle(_) => ("portreeve-worker", "worker"),
        };
        for (from, to) in [
            ("portreeve-pam", "portreeve-pam"),
            (worker, called),
            ("portreeve-test-broker", "portreeve-test-broker"),
            ("portreeve-broker", "portreeve-broker"),
        ] {
            std::fs::copy(built_if_possible(from)?, etc.path("bin").join(to)).unwrap();
        }
        if let Workers::Idle(seconds) = workers {
            let script = format!("#!/bin/sh\nexec DIR/bin/worker --idle {seconds}\n");
            etc.program("bin/portreeve-worker", &script);
        }
        let listener = UnixSeqpacketListener::bind(etc.path("portal.sock")).unwrap();
        configure(&etc, "");
        let broker = run(&etc);
        Ok(Self { etc, listener, broker })
    }

    /// Root's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.broker.id()
    }

    /// Writes the configuration file, with `more` than is needed. It is read at the start and at SIGHUP.
    pub fn configure(&self, more: &str) {
        configure(&self.etc, more);
    }

    /// Root's process is asked to end, and with it everything.
    pub fn end(&mut self) {
        if self.broker.try_wait().unwrap().is_none() {
            signal(self.broker.id(), Signal::SIGTERM);
        }
        eventually("root's process ends", || self.broker.try_wait().unwrap());
    }

    /// Ends it and starts it again on the same state.
    pub async fn restart(&mut self) {
        self.end();
        // What waits in the queue is the old one's.
        while timeout(Duration::from_millis(50), self.listener.accept()).await.is_ok() {}
        self.broker = run(&self.etc);
    }

    /// A portal takes the connection that waits.
    pub async fn portal(&mut self) -> Portal {
        let socket = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let mut portal = Portal { socket, next: 0, keys: vec![], ended: vec![], answers: BTreeMap::new() };
        portal.hear_until(|portal| !portal.keys.is_empty()).await;
        portal
    }

    /// Asks at the login socket as somebody.
    #[must_use]
    pub fn ask(&self, uid: u32, request: &ControlRequest) -> ControlReply {
        self.ask_from(None, uid, request)
    }

    /// The same, from a control group.
    #[must_use]
    pub fn ask_from(&self, group: Option<&Path>, uid: u32, request: &ControlRequest) -> ControlReply {
        let request = String::from_utf8(encode_bare(request).unwrap()).unwrap();
        let id = uid.to_string();
        let mut command = Command::new("sh");
        command.args(["-c", "[ -z \"$1\" ] || echo $$ >\"$1/cgroup.procs\"; shift; exec \"$@\"", "sh"]);
        command.arg(group.unwrap_or(Path::new(""))).arg("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        command.arg(self.etc.path("bin/portreeve-test-broker")).arg("ask").arg(self.etc.path("login.sock"));
        let output = command.arg(request).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        decode(output.stdout.trim_ascii()).unwrap()
    }
}

/// What the broker is configured with, and `more` of it.
fn configure(etc: &Etc, more: &str) {
    let forwards = etc.path("forwards");
    let text = format!(
        "[portal]\nurl = \"https://portal.example.org/\"\n[forwards]\ndirectory = {forwards:?}\n{more}"
    );
    etc.write("portreeve.toml", &text);
}

fn run(etc: &Etc) -> Child {
    let mut command = etc.command(&etc.path("bin/portreeve-broker"));
    for (option, name) in [
        ("--config", "portreeve.toml"),
        ("--state", "state"),
        ("--portal", "portal.sock"),
        ("--login", "login.sock"),
        ("--pam", "bin/portreeve-pam"),
    ] {
        command.arg(option).arg(etc.path(name));
    }
    let log = std::fs::File::create(etc.path("log")).unwrap();
    command.stdin(Stdio::null()).stderr(log).spawn().unwrap()
}

/// A portal's connection with the broker.
#[derive(Debug)]
pub struct Portal {
    socket: UnixSeqpacket,
    next: u32,
    /// What it was told that tickets are signed with.
    pub keys: Vec<PublicKey>,
    /// Which sessions it was told to be over.
    pub ended: Vec<SessionId>,
    answers: BTreeMap<u32, Answer>,
}

impl Portal {
    /// Hears the broker until this is so.
    pub async fn hear_until(&mut self, what: impl Fn(&Self) -> bool) {
        let mut buffer = vec![0; MAX_FRAME];
        while !what(self) {
            let length =
                timeout(PATIENCE, self.socket.recv(&mut buffer)).await.unwrap().unwrap().bytes_read();
            match decode(&buffer[..length]).unwrap() {
                FromBroker::Keys(keys) => self.keys = keys,
                FromBroker::Ended(sessions) | FromBroker::AlsoEnded { sessions, .. } => {
                    self.ended.extend(sessions)
                }
                FromBroker::Answer { id, answer } => drop(self.answers.insert(id, answer)),
            }
        }
    }

    /// Asks a question that brings a descriptor.
    pub async fn ask_with(&mut self, question: Question, descriptor: Option<OwnedFd>) -> Answer {
        self.next += 1;
        let id = self.next;
        let frame = encode_bare(&Ask { id, question }).unwrap();
        let mut control = [0; 64];
        let mut control = AncillaryMessageWriter::new(&mut control);
        if let Some(descriptor) = &descriptor {
            control.add_fds([descriptor.as_fd()]).unwrap();
        }
        self.socket.send_with_ancillary(&frame, &mut control).await.unwrap();
        drop(descriptor);
        self.hear_until(|portal| portal.answers.contains_key(&id)).await;
        self.answers.remove(&id).unwrap()
    }

    /// Asks.
    pub async fn ask(&mut self, question: Question) -> Answer {
        self.ask_with(question, None).await
    }

    /// One try with one password.
    pub async fn try_password(&mut self, user: &str, password: &str) -> Answer {
        let begin = Question::Begin {
            user: UserName::parse(user).unwrap(),
            from: "192.0.2.7".parse().unwrap(),
            mark: None,
        };
        match self.ask(begin).await {
            Answer::Prompts { conversation, .. } => {
                let answers = vec![Secret::new(password.to_owned())];
                self.ask(Question::Reply { conversation, answers }).await
            }
            other => other,
        }
    }

    /// Signs somebody in by the password.
    pub async fn sign_in(&mut self, user: &str) -> (Claims, Secret) {
        signed_in(self.try_password(user, PASSWORD).await)
    }

    /// Takes the code of a sign-in address.
    pub async fn enter(&mut self, reply: ControlReply) -> Answer {
        let ControlReply::Address { url } = reply else { panic!("{reply:?}") };
        let code = Secret::new(url.rsplit_once("code=").unwrap().1.to_owned());
        self.ask(Question::Enter { code, from: "192.0.2.7".parse().unwrap() }).await
    }
}

/// Who was signed in.
///
/// # Panics
/// When nobody was.
#[must_use]
pub fn signed_in(answer: Answer) -> (Claims, Secret) {
    match answer {
        Answer::SignedIn { claims, ticket, .. } => (*claims, ticket),
        other => panic!("{other:?}"),
    }
}

/// Both ends of a pair of sockets.
///
/// # Panics
/// When the system refuses.
#[must_use]
pub fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// Runs a test with a cluster, or says why it can't be had.
pub async fn with_cluster(name: &str, service: &str, workers: Workers, test: impl AsyncFnOnce(Cluster)) {
    match Cluster::start(service, workers) {
        Ok(cluster) => test(cluster).await,
        Err(why) => skip(name, &why),
    }
}
