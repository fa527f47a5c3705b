//! What the broker's tests need around it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portreeve_model::wire::broker::{Answer, Ask, FromBroker, PublicKey, Question, UserEnded};
use portreeve_model::wire::{ControlReply, ControlRequest};
use portreeve_model::{Claims, Secret, SessionId, UserName};
use portreeve_sys::PeerProcess;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use super::spawner::Spawner;
use crate::service::caller::Caller;
use crate::service::channel::{Buffer, Channel, ChannelError};
use crate::service::{Begun, Service, ServiceError, ServiceSettings};

/// The address that browsers come from.
pub(super) const HOME: &str = "192.0.2.1";
/// Everybody's password, but root's and admin's is right too.
pub(super) const RIGHT: &str = "right";

thread_local! {
    static CLOCK: Cell<i64> = const { Cell::new(0) };
}

/// The broker's clock in these tests: unix seconds, moved by hand.
pub(super) fn now() -> i64 {
    CLOCK.get()
}

pub(super) fn set_clock(to: i64) {
    CLOCK.set(to);
}

/// Runs a test with time that stands still while nothing happens.
pub(super) fn run(test: impl AsyncFnOnce()) {
    set_clock(1_000_000_000);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test());
}

pub(super) fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

pub(super) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

pub(super) fn home() -> IpAddr {
    HOME.parse().unwrap()
}

/// A broker, and the sockets around it.
pub(super) struct World {
    pub(super) dir: Rc<tempfile::TempDir>,
    pub(super) spawner: Rc<Spawner>,
    listener: UnixSeqpacketListener,
    settings: ServiceSettings,
    service: Weak<Service>,
    broker: JoinHandle<ServiceError>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut ServiceSettings)) -> Self {
        let dir = Rc::new(tempfile::tempdir().unwrap());
        let at = |name: &str| dir.path().join(name);
        let mut settings = ServiceSettings::new(
            dir.path().to_owned(),
            at("portal.sock"),
            at("login.sock"),
            at("forwards"),
            "https://portal.example.org".to_owned(),
        );
        settings.clock = now;
        change(&mut settings);
        let listener = UnixSeqpacketListener::bind(&settings.portal_socket).unwrap();
        let (broker, service, spawner) = start(&settings);
        Self { dir, spawner, listener, settings, service, broker }
    }

    /// Ends the broker and starts another one on the same state.
    pub(super) async fn restart(&mut self) {
        self.broker.abort();
        let ended = (&mut self.broker).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
        // What waits in the queue is the old one's.
        while let Ok(Ok(_)) = timeout(Duration::from_millis(10), self.listener.accept()).await {}
        (self.broker, self.service, self.spawner) = start(&self.settings);
    }

    /// Whether the broker runs still.
    pub(super) fn runs(&self) -> bool {
        !self.broker.is_finished()
    }

    /// A portal takes the connection that waits.
    pub(super) async fn portal(&mut self) -> Portal {
        Portal::new(self.accept().await)
    }

    pub(super) async fn accept(&mut self) -> UnixSeqpacket {
        timeout(Duration::from_secs(100), self.listener.accept()).await.expect("the broker connects").unwrap()
    }

    /// Whether nobody waits in the queue for the next portal.
    pub(super) async fn nobody_waits(&mut self) -> bool {
        timeout(Duration::from_secs(60), self.listener.accept()).await.is_err()
    }

    /// Asks on the login socket, as the user that the test runs as.
    pub(super) async fn control(&self, request: ControlRequest) -> ControlReply {
        let channel = self.caller().await;
        channel.send(&request).await.unwrap();
        channel.receive_plain(&mut Buffer::new()).await.unwrap()
    }

    /// The same as anybody: what the broker answers once the kernel has told it the uid.
    pub(super) async fn control_as(&self, uid: u32, request: ControlRequest) -> ControlReply {
        let service = self.service();
        let pid = Some(std::process::id().cast_signed());
        service.control(request, uid, &Caller { pid, process: PeerProcess::Untold }).await
    }

    /// The broker itself.
    pub(super) fn service(&self) -> Rc<Service> {
        self.service.upgrade().expect("the broker runs")
    }

    pub(super) async fn caller(&self) -> Channel {
        loop {
            match UnixSeqpacket::connect(&self.settings.login_socket).await {
                Ok(socket) => return Channel::connected(socket),
                // It is just being made.
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

fn start(settings: &ServiceSettings) -> (JoinHandle<ServiceError>, Weak<Service>, Rc<Spawner>) {
    let (ours, brokers) = Channel::pair().unwrap();
    let spawner = Rc::new(Spawner::new(ours));
    spawn_local(Rc::clone(&spawner).serve());
    let begun = Begun::begin(settings.clone(), brokers).unwrap();
    let service = Rc::downgrade(&begun.service);
    // Its tasks end with it, as those of a process do.
    let broker = spawn_local(async move { LocalSet::new().run_until(begun.run()).await });
    (broker, service, spawner)
}

/// What a portal heard unasked.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) keys: Vec<PublicKey>,
    pub(super) sessions: Vec<SessionId>,
    pub(super) users: Vec<UserEnded>,
    /// Messages about ended sessions.
    pub(super) times: usize,
    pub(super) first: Option<&'static str>,
}

/// Plays a portal.
pub(super) struct Portal {
    channel: Rc<Channel>,
    next: Cell<u32>,
    pub(super) heard: Rc<RefCell<Heard>>,
    answers: Rc<RefCell<HashMap<u32, Answer>>>,
    changed: Rc<tokio::sync::Notify>,
    reader: JoinHandle<ChannelError>,
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Portal {
    pub(super) fn new(socket: UnixSeqpacket) -> Self {
        let channel = Rc::new(Channel::connected(socket));
        let heard: Rc<RefCell<Heard>> = Rc::default();
        let answers: Rc<RefCell<HashMap<u32, Answer>>> = Rc::default();
        let changed = Rc::new(tokio::sync::Notify::new());
        let (own, own_heard, own_answers, own_changed) =
            (Rc::clone(&channel), Rc::clone(&heard), Rc::clone(&answers), Rc::clone(&changed));
        let reader = spawn_local(async move {
            let mut buffer = Buffer::new();
            loop {
                let message = match own.receive_plain(&mut buffer).await {
                    Ok(message) => message,
                    Err(error) => {
                        own_changed.notify_waiters();
                        return error;
                    }
                };
                let mut heard = own_heard.borrow_mut();
                match message {
                    FromBroker::Keys(keys) => {
                        heard.first.get_or_insert("keys");
                        heard.keys = keys;
                    }
                    FromBroker::Ended(sessions) => {
                        heard.first.get_or_insert("ended");
                        heard.sessions.extend(sessions);
                        heard.times += 1;
                    }
                    FromBroker::AlsoEnded { sessions, users } => {
                        heard.sessions.extend(sessions);
                        heard.users.extend(users);
                    }
                    FromBroker::Answer { id, answer } => {
                        own_answers.borrow_mut().insert(id, answer);
                    }
                }
                drop(heard);
                own_changed.notify_waiters();
            }
        });
        Self { channel, next: Cell::new(1), heard, answers, changed, reader }
    }

    /// Waits for something that it hears.
    pub(super) async fn until(&self, what: impl Fn(&Heard) -> bool) {
        let heard = async {
            loop {
                let changed = self.changed.notified();
                if what(&self.heard.borrow()) {
                    return;
                }
                changed.await;
            }
        };
        timeout(Duration::from_secs(100), heard).await.expect("the news comes");
    }

    fn number(&self) -> u32 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    /// Sends a question without waiting for its answer.
    pub(super) async fn send(&self, question: Question, descriptor: Option<OwnedFd>) -> u32 {
        let id = self.number();
        let ask = Ask { id, question };
        match descriptor {
            Some(descriptor) => self.channel.send_with(&ask, descriptor.as_fd()).await.unwrap(),
            None => self.channel.send(&ask).await.unwrap(),
        }
        id
    }

    /// Sends anything.
    pub(super) async fn send_bytes(&self, bytes: &[u8]) {
        nix::sys::socket::send(
            std::os::fd::AsRawFd::as_raw_fd(&self.channel.as_fd()),
            bytes,
            nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
        )
        .unwrap();
    }

    pub(super) async fn answer_to(&self, id: u32) -> Option<Answer> {
        let answered = async {
            loop {
                let changed = self.changed.notified();
                if let Some(answer) = self.answers.borrow_mut().remove(&id) {
                    return Some(answer);
                }
                if self.reader.is_finished() {
                    return None;
                }
                changed.await;
            }
        };
        timeout(Duration::from_secs(1000), answered).await.expect("an answer comes")
    }

    pub(super) async fn ask(&self, question: Question) -> Answer {
        let id = self.send(question, None).await;
        self.answer_to(id).await.expect("the connection stands")
    }

    pub(super) async fn ask_with(&self, question: Question, descriptor: OwnedFd) -> Answer {
        let id = self.send(question, Some(descriptor)).await;
        self.answer_to(id).await.expect("the connection stands")
    }

    /// Whether the broker ended the connection.
    pub(super) async fn ends_soon(mut self) -> bool {
        timeout(Duration::from_secs(5), &mut self.reader).await.is_ok()
    }

    pub(super) async fn begin(&self, user: &str, mark: Option<Secret>) -> Answer {
        self.ask(Question::Begin { user: name(user), from: home(), mark }).await
    }

    pub(super) async fn reply(&self, conversation: &Secret, answers: &[&str]) -> Answer {
        let answers = answers.iter().map(|answer| secret(answer)).collect();
        self.ask(Question::Reply { conversation: conversation.clone(), answers }).await
    }

    /// One try with one password.
    pub(super) async fn try_password(&self, user: &str, password: &str, mark: Option<Secret>) -> Answer {
        match self.begin(user, mark).await {
            Answer::Prompts { conversation, .. } => self.reply(&conversation, &[password]).await,
            other => other,
        }
    }

    /// Signs somebody in.
    pub(super) async fn sign_in(&self, user: &str) -> SignedIn {
        signed_in(self.try_password(user, RIGHT, None).await)
    }
}

#[derive(Debug, Clone)]
pub(super) struct SignedIn {
    pub(super) claims: Claims,
    pub(super) ticket: Secret,
    pub(super) groups: Vec<u32>,
    pub(super) mark: Option<Secret>,
}

pub(super) fn signed_in(answer: Answer) -> SignedIn {
    match answer {
        Answer::SignedIn { claims, ticket, groups, mark, .. } => {
            SignedIn { claims: *claims, ticket, groups, mark }
        }
        other => panic!("{other:?}"),
    }
}

/// Waits for something that other tasks bring about.
pub(super) async fn until(what: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if what() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come about");
}

/// Two ends of a pair of sockets.
pub(super) fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}
