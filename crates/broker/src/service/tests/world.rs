//! What the broker's tests need around it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portreeve_model::wire::broker::{Answer, Ask, FromBroker, PublicKey, Question, UserEnded};
use portreeve_model::wire::dialer::ToDialer;
use portreeve_model::wire::pam::{PamNews, PamRefusal, PamReply, Prompt, PromptKind};
use portreeve_model::wire::spawner::{Found, Identity, LookUp, Missing, Order, SpawnerNews, Start};
use portreeve_model::wire::worker::ToWorker;
use portreeve_model::wire::{ControlReply, ControlRequest};
use portreeve_model::{Claims, ForwardStat, LoginGroup, Secret, SessionId, UserName};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use crate::service::channel::{Buffer, Channel, ChannelError};
use crate::service::{ServiceError, ServiceSettings, serve};

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

/// Plays the spawner, and everything that it starts.
pub(super) struct Spawner {
    channel: Channel,
    /// By name, as typed; the identity may have another.
    pub(super) users: RefCell<HashMap<String, Identity>>,
    /// The user database does not work.
    pub(super) broken: Cell<bool>,
    /// What PAM's account check says.
    pub(super) closed: RefCell<HashMap<String, PamRefusal>>,
    /// All orders, in their order.
    pub(super) orders: RefCell<Vec<Start>>,
    /// How long starting takes.
    pub(super) slow: Cell<Duration>,
    /// Dialers and workers die at once.
    pub(super) dies: Cell<bool>,
    /// Orders are refused.
    pub(super) refuses: Cell<bool>,
    /// What dialers and workers were handed, by child.
    pub(super) handed: RefCell<Vec<(u64, Handed)>>,
    /// Children whose channel is open.
    pub(super) alive: RefCell<HashSet<u64>>,
    /// Dialers and workers that are told to leave.
    leave: tokio::sync::Notify,
}

#[derive(Debug)]
pub(super) enum Handed {
    Channel(OwnedFd),
    Connection,
    Keys(Vec<PublicKey>),
}

fn identity(name_: &str, uid: u32, groups: &[u32]) -> Identity {
    Identity { name: name(name_), uid, gid: uid, groups: groups.to_vec() }
}

impl Spawner {
    fn new(channel: Channel) -> Self {
        let users = [
            ("alice", identity("alice", 20001, &[20100])),
            ("bob", identity("bob", 20002, &[])),
            ("ALICE", identity("alice", 20001, &[20100])),
            ("push", identity("push", 20003, &[])),
            ("otp", identity("otp", 20004, &[])),
            ("mute", identity("mute", 20005, &[])),
            ("endless", identity("endless", 20006, &[])),
            ("root", identity("root", 0, &[])),
            ("daemon", identity("daemon", 999, &[])),
            ("nobody", identity("nobody", 65534, &[])),
        ];
        Self {
            channel,
            users: RefCell::new(users.map(|(name, identity)| (name.to_owned(), identity)).into()),
            broken: Cell::default(),
            closed: RefCell::default(),
            orders: RefCell::default(),
            slow: Cell::default(),
            dies: Cell::default(),
            refuses: Cell::default(),
            handed: RefCell::default(),
            alive: RefCell::default(),
            leave: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn count(&self, is: impl Fn(&Start) -> bool) -> usize {
        self.orders.borrow().iter().filter(|order| is(order)).count()
    }

    pub(super) fn dialers(&self) -> usize {
        self.count(|order| matches!(order, Start::Dialer(_)))
    }

    /// Dialers and workers leave by themselves.
    pub(super) fn all_leave(&self) {
        self.leave.notify_waiters();
    }

    async fn say(&self, news: SpawnerNews) {
        let _ = self.channel.send(&news).await;
    }

    async fn serve(self: Rc<Self>) {
        let mut buffer = Buffer::new();
        while let Ok((Order { child, start }, descriptor)) = self.channel.receive(&mut buffer).await {
            self.orders.borrow_mut().push(start.clone());
            let own = Rc::clone(&self);
            spawn_local(async move {
                let Some(descriptor) = descriptor else { return };
                sleep(own.slow.get()).await;
                if own.refuses.get() {
                    own.say(SpawnerNews::Refused { child, why: "not today".to_owned() }).await;
                    return;
                }
                own.say(SpawnerNews::Started { child, pid: 1 }).await;
                own.alive.borrow_mut().insert(child);
                own.play(child, start, Channel::new(descriptor).unwrap()).await;
                own.alive.borrow_mut().remove(&child);
                own.say(SpawnerNews::Ended { child, status: Some(0) }).await;
            });
        }
    }

    async fn play(&self, child: u64, start: Start, channel: Channel) {
        match start {
            Start::LookUp(question) => {
                let _ = channel.send(&self.look_up(&question)).await;
            }
            Start::Forward { visitor, name } => {
                assert_ne!(visitor.uid, 0);
                let found = match name.as_str() {
                    "secret" => Found::Nothing(Missing::NotExecutable),
                    _ => Found::Forward {
                        stat: ForwardStat { uid: 20002, gid: 20100, mode: 0o710 },
                        line: "http://c1:12001/".to_owned(),
                        lines_differ: false,
                    },
                };
                let _ = channel.send(&found).await;
            }
            Start::AccountCheck { user } => {
                let news = match self.closed.borrow().get(user.as_str()) {
                    Some(why) => PamNews::Refused { why: *why, said: vec![] },
                    None => PamNews::Granted { user, said: vec![] },
                };
                let _ = channel.send(&news).await;
            }
            Start::Conversation { user, .. } => {
                let _ = converse(user.unwrap().as_str(), &channel).await;
            }
            Start::Dialer(_) | Start::Worker { .. } if self.dies.get() => {}
            Start::Dialer(_) => {
                self.be_handed(child, &channel, |_: ToDialer, descriptor| descriptor.map(Handed::Channel))
                    .await
            }
            Start::Worker { .. } => {
                self.be_handed(child, &channel, |message, descriptor| match message {
                    ToWorker::Keys(keys) => Some(Handed::Keys(keys)),
                    ToWorker::Connection => descriptor.map(|_| Handed::Connection),
                })
                .await
            }
            Start::End { .. } => {}
        }
    }

    async fn be_handed<M: serde::de::DeserializeOwned>(
        &self,
        child: u64,
        channel: &Channel,
        handed: impl Fn(M, Option<OwnedFd>) -> Option<Handed>,
    ) {
        let mut buffer = Buffer::new();
        loop {
            tokio::select! {
                received = channel.receive(&mut buffer) => match received {
                    Ok((message, descriptor)) => {
                        self.handed.borrow_mut().push((child, handed(message, descriptor).unwrap()));
                    }
                    Err(_) => return,
                },
                () = self.leave.notified() => return,
            }
        }
    }

    fn look_up(&self, question: &LookUp) -> Found {
        if self.broken.get() {
            return Found::Nothing(Missing::Failed("the directory server does not answer".to_owned()));
        }
        let users = self.users.borrow();
        let account = |found: Option<&Identity>| match found {
            Some(identity) => Found::Account(identity.clone()),
            None => Found::Nothing(Missing::NoAccount),
        };
        match question {
            LookUp::Name(name) => account(users.get(name.as_str())),
            LookUp::Uid(uid) => account(users.values().find(|identity| identity.uid == *uid)),
            LookUp::LoginGroup(20003) => Found::Nothing(Missing::NoAccount),
            LookUp::LoginGroup(uid) => Found::LoginGroup(LoginGroup { gid: *uid, private: true }),
        }
    }
}

pub(super) fn prompt(kind: PromptKind, text: &str) -> Prompt {
    Prompt { kind, text: text.to_owned() }
}

/// Plays PAM.
async fn converse(user: &str, channel: &Channel) -> Result<(), ChannelError> {
    let mut buffer = Buffer::new();
    let hidden = |text: &str| prompt(PromptKind::Hidden, text);
    let refused = PamNews::Refused { why: PamRefusal::Credentials, said: vec![] };
    if user == "mute" {
        let _: PamReply = channel.receive_plain(&mut buffer).await?;
    }
    if user != "push" {
        let mut first = vec![hidden("Password: ")];
        if user == "otp" {
            first = vec![
                prompt(PromptKind::Info, "Welcome"),
                hidden("Password: "),
                prompt(PromptKind::Visible, "Token? "),
            ];
        }
        if user == "silly" {
            first = vec![prompt(PromptKind::Info, "nothing to answer")];
        }
        loop {
            channel.send(&PamNews::Prompts(first.clone())).await?;
            let reply: PamReply = channel.receive_plain(&mut buffer).await?;
            if user != "endless" {
                let right = reply.answers.iter().all(|answer| answer.reveal() == RIGHT);
                if !right {
                    return channel.send(&refused).await;
                }
                break;
            }
        }
    }
    let said = vec![prompt(PromptKind::Info, "Last login: yesterday")];
    channel.send(&PamNews::Granted { user: name(user), said }).await
}

/// A broker, and the sockets around it.
pub(super) struct World {
    pub(super) dir: Rc<tempfile::TempDir>,
    pub(super) spawner: Rc<Spawner>,
    listener: UnixSeqpacketListener,
    settings: ServiceSettings,
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
            "https://portal.example.org".to_owned(),
        );
        settings.clock = now;
        change(&mut settings);
        let listener = UnixSeqpacketListener::bind(&settings.portal_socket).unwrap();
        let (broker, spawner) = start(&settings);
        Self { dir, spawner, listener, settings, broker }
    }

    /// Ends the broker and starts another one on the same state.
    pub(super) async fn restart(&mut self) {
        self.broker.abort();
        let ended = (&mut self.broker).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
        // What waits in the queue is the old one's.
        while let Ok(Ok(_)) = timeout(Duration::from_millis(10), self.listener.accept()).await {}
        (self.broker, self.spawner) = start(&self.settings);
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

fn start(settings: &ServiceSettings) -> (JoinHandle<ServiceError>, Rc<Spawner>) {
    let (ours, brokers) = Channel::pair().unwrap();
    let spawner = Rc::new(Spawner::new(ours));
    spawn_local(Rc::clone(&spawner).serve());
    let settings = settings.clone();
    // Its tasks end with it, as those of a process do.
    let broker = spawn_local(async move { LocalSet::new().run_until(serve(settings, brokers)).await });
    (broker, spawner)
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
    pub(super) async fn is_ended(mut self) -> bool {
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
