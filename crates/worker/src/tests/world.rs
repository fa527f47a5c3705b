//! A worker, with the broker and the portal that a test plays.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portreeve_broker::{Forwards, TicketKey};
use portreeve_jobs::Person;
use portreeve_model::config::WorkspaceConfig;
use portreeve_model::wire::encode_bare;
use portreeve_model::wire::worker::{NodeView, Nodes, Reader, Rows, ToWorker, VISIT, Visit, WORKSPACE};
use portreeve_model::{Audience, Claims, NodeName, SessionId, SignIn, UserName};
use portreeve_sys::message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use crate::process::{ControlError, Settings, serve};
use crate::workspace::OwnForward;

pub(super) const UID: u32 = 20001;
pub(super) const NOW: i64 = 1_000_000_000;
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) type List = fn(&Forwards, u32) -> Result<Vec<OwnForward>, String>;

/// Runs a test on one thread.
pub(super) fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
    runtime.shutdown_background();
}

/// A worker of [`UID`]'s.
pub(super) struct Worker {
    pub(super) control: OwnedFd,
    pub(super) key: TicketKey,
    pub(super) forwards: tempfile::TempDir,
    running: JoinHandle<Result<(), ControlError>>,
}

pub(super) fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// A connection, of which the worker does not have its end yet.
pub(super) fn prepared() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = pair(SockType::Stream);
    let ours = std::os::unix::net::UnixStream::from(ours);
    ours.set_nonblocking(true).unwrap();
    (UnixStream::from_std(ours).unwrap(), theirs)
}

impl Worker {
    /// One that was told nothing.
    pub(super) fn silent(settings: Settings) -> Self {
        let (control, theirs) = pair(SockType::SeqPacket);
        let running = spawn_local(async move { LocalSet::new().run_until(serve(theirs, &settings)).await });
        let key = TicketKey::generate().unwrap().0;
        Self { control, key, forwards: tempfile::tempdir().unwrap(), running }
    }

    pub(super) fn with(idle: Duration, list: List) -> Self {
        Self::of(Settings { idle, clock: || NOW, list, ..Settings::of(person()) })
    }

    pub(super) fn of(settings: Settings) -> Self {
        let worker = Self::silent(settings);
        worker.tell(&site(worker.forwards.path()), &[]);
        worker.tell(&ToWorker::Keys(vec![worker.key.public_key()]), &[]);
        worker
    }

    pub(super) fn new() -> Self {
        Self::with(Duration::from_secs(600), |_, _| Ok(Vec::new()))
    }

    pub(super) fn tell(&self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) {
        message::send(&self.control, &encode_bare(message).unwrap(), descriptors).unwrap();
    }

    /// Another connection of the portal's.
    pub(super) fn connect(&self) -> UnixStream {
        self.try_to_connect().unwrap()
    }

    pub(super) fn try_to_connect(&self) -> std::io::Result<UnixStream> {
        let (ours, theirs) = prepared();
        self.hand_over(theirs).map(|()| ours)
    }

    /// Gives it the other end of a connection.
    pub(super) fn hand_over(&self, theirs: OwnedFd) -> std::io::Result<()> {
        message::send(&self.control, &encode_bare(&ToWorker::Connection).unwrap(), &[theirs.as_fd()])
    }

    pub(super) fn ticket(&self, change: impl FnOnce(&mut Claims)) -> String {
        ticket_of(&self.key, change)
    }

    /// Posts this to the workspace with a good ticket.
    pub(super) async fn post(&self, body: &[u8]) -> Said {
        let ticket = self.ticket(|_| ());
        ask(&mut self.connect(), "POST", WORKSPACE, &[&format!("portreeve-ticket: {ticket}")], body).await
    }

    /// How it ended.
    pub(super) async fn end(self) -> Result<(), ControlError> {
        timeout(PATIENCE, self.running).await.expect("it ends").unwrap()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.running.is_finished()
    }
}

/// A ticket of [`UID`]'s, but for what is changed.
pub(super) fn ticket_of(key: &TicketKey, change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = Claims {
        iss: "portreeve".to_owned(),
        sub: UserName::parse("alice").unwrap(),
        uid: UID,
        sid: SessionId::from_bytes([1; 16]),
        iat: NOW - 10,
        auth_time: NOW - 10,
        exp: NOW + 3600,
        how: SignIn::Pam,
        aud: Audience::Portal,
    };
    change(&mut claims);
    key.sign(&claims).unwrap()
}

/// An answer.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

/// Asks and reads one answer, which says its length.
pub(super) async fn ask(
    connection: &mut UnixStream,
    method: &str,
    path: &str,
    fields: &[&str],
    body: &[u8],
) -> Said {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: worker\r\n");
    head += &format!("{}\r\n", visit_field());
    for field in fields {
        head += &format!("{field}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes()).await.unwrap();
    // It may be refused before all of it was read.
    let _ = connection.write_all(body).await;
    timeout(PATIENCE, answer(connection)).await.expect("an answer comes").expect("there is one")
}

/// The next answer; `None` when the connection ends instead.
pub(super) async fn answer(connection: &mut UnixStream) -> Option<Said> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match connection.read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap().to_lowercase();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + length {
        assert!(connection.read_buf(&mut bytes).await.unwrap() > 0, "half an answer");
    }
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = String::from_utf8(bytes[head..head + length].to_vec()).unwrap();
    Some(Said { status, head: text, body })
}

pub(super) fn person() -> Person {
    Person { name: "alice".to_owned(), uid: UID, home: "/nonexistent".into(), shell: "/bin/sh".into() }
}

pub(super) fn site(forwards: &std::path::Path) -> ToWorker {
    ToWorker::Site { forwards: forwards.to_owned(), workspace: WorkspaceConfig::default() }
}

pub(super) fn visit() -> Visit {
    Visit {
        user: UserName::parse("alice").unwrap(),
        origin: "https://portal".to_owned(),
        own_origins: None,
        shared_origin: None,
        modes: std::collections::BTreeMap::new(),
        page_secret: None,
        reader: Reader::Program,
    }
}

pub(super) fn visit_field() -> String {
    format!("{VISIT}: {}", data_encoding::BASE64URL_NOPAD.encode(&serde_json::to_vec(&visit()).unwrap()))
}

pub(super) fn view() -> Nodes {
    let node = NodeView {
        node: NodeName::parse("c1").unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        listening: Ok(Rows { rows: Vec::new(), more: false }),
    };
    Nodes { own_port: None, not_understood: None, nodes: Some(vec![node]) }
}

pub(super) fn json(view: &Nodes) -> Vec<u8> {
    serde_json::to_vec(view).unwrap()
}
