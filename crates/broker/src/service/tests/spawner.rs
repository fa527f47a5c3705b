//! Plays the spawner, PAM and the user database.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use portreeve_model::wire::broker::PublicKey;
use portreeve_model::wire::dialer::ToDialer;
use portreeve_model::wire::pam::{PamNews, PamRefusal, PamReply, Prompt, PromptKind};
use portreeve_model::wire::spawner::{Found, Identity, LookUp, Missing, Order, SpawnerNews, Start};
use portreeve_model::wire::worker::ToWorker;
use portreeve_model::{ForwardStat, Login, LoginGroup, SessionId};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::world::{RIGHT, name};
use crate::service::channel::{Buffer, Channel, ChannelError};

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
    /// Dialers don't leave until they are ended.
    pub(super) stays: Cell<bool>,
    /// Dialers and workers take nothing more.
    pub(super) hangs: Cell<bool>,
    /// Orders are refused.
    pub(super) refuses: Cell<bool>,
    /// What dialers and workers were handed, by child.
    pub(super) handed: RefCell<Vec<(u64, Handed)>>,
    /// Children whose channel is open.
    pub(super) alive: RefCell<HashSet<u64>>,
    /// Dialers and workers that are told to leave.
    leave: tokio::sync::Notify,
    /// And those that are told to take nothing more.
    shut: tokio::sync::Notify,
}

#[derive(Debug)]
pub(super) enum Handed {
    Channel(OwnedFd),
    Connection,
    Keys(Vec<PublicKey>),
    Ended(Vec<SessionId>, i64),
    Site(PathBuf),
}

fn identity(name_: &str, uid: u32, groups: &[u32]) -> Identity {
    Identity { name: name(name_), uid, gid: uid, groups: groups.to_vec() }
}

impl Spawner {
    pub(super) fn new(channel: Channel) -> Self {
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
            stays: Cell::default(),
            hangs: Cell::default(),
            refuses: Cell::default(),
            handed: RefCell::default(),
            alive: RefCell::default(),
            leave: tokio::sync::Notify::new(),
            shut: tokio::sync::Notify::new(),
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

    /// They are about to leave: they run still, and can't be handed anything.
    pub(super) fn all_shut(&self) {
        self.stays.set(true);
        self.shut.notify_waiters();
    }

    async fn say(&self, news: SpawnerNews) {
        let _ = self.channel.send(&news).await;
    }

    pub(super) async fn serve(self: Rc<Self>) {
        let mut buffer = Buffer::new();
        while let Ok((Order { child, start }, descriptor)) = self.channel.receive(&mut buffer).await {
            self.orders.borrow_mut().push(start.clone());
            if matches!(start, Start::End { .. }) {
                assert!(descriptor.is_none());
                self.leave.notify_waiters();
            }
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
                if name.as_str() == "hanging" {
                    // Until it is let go.
                    let _ = channel.receive_plain::<()>(&mut Buffer::new()).await;
                    return;
                }
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
                    ToWorker::Site { forwards, .. } => Some(Handed::Site(forwards)),
                    ToWorker::Keys(keys) => Some(Handed::Keys(keys)),
                    ToWorker::Ended { sessions, until } => Some(Handed::Ended(sessions, until)),
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
                received = channel.receive(&mut buffer), if !self.hangs.get() => match received {
                    Ok((message, descriptor)) => {
                        self.handed.borrow_mut().push((child, handed(message, descriptor).unwrap()));
                    }
                    Err(_) if self.stays.get() => return self.leave.notified().await,
                    Err(_) => return,
                },
                () = self.leave.notified() => return,
                () = self.shut.notified() => {
                    shutdown(channel.as_fd().as_raw_fd(), Shutdown::Read).unwrap();
                }
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
            LookUp::Login(20003) => Found::Nothing(Missing::NoAccount),
            LookUp::Login(uid) => Found::Login(Login {
                user: "somebody".into(),
                group: LoginGroup { gid: *uid, private: true },
            }),
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
