//! The broker of a cluster: the process that signs tickets for many users, and tells the spawner what to start for whom.
//!
//! It is root's, and speaks on three sorts of sockets only: with the spawner that forked it, with portals at the socket
//! where systemd listens for them, and with whoever types `portreeve` on this machine. It forks nothing, runs nothing,
//! opens no file but its own, and reads no frame longer than 64 KiB.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`portals`](self) | reaches portals, hears one, tells it the news |
//! | `questions` | each of a portal's questions, and its answer |
//! | `sign_in` | conversations with PAM, and codes |
//! | `throttle`, `marks` | slows wrong tries, without locking the right person out |
//! | `holders` | whose ticket this is, whether it is good, and how it ends |
//! | `keyring` | what tickets are signed with |
//! | `accounts` | who somebody is now, by the user database and PAM |
//! | `posts` | the dialer and the worker of each user |
//! | `login` | `portreeve login` on this machine, and the sysadmin's verbs |
//! | `access`, `tokens` | access tokens of programs |
//! | `ident2` | connections with the site's ident2 service, where a portal asks that |
//! | `children`, `channel` | what the spawner starts; frames |
//!
//! Invariant: whom a portal's question is about is read from a ticket that was verified here, or from a code or an access
//! token that was made here. It says a uid for two questions only: the login group of one, which is public, and an address for one who signed
//! in on a login node, which the sysadmin must have allowed.

mod access;
mod accounts;
mod caller;
mod channel;
mod children;
mod holders;
mod ident2;
mod keyring;
mod limits;
mod login;
mod marks;
mod news;
mod places;
mod portal;
mod portals;
mod posts;
mod questions;
mod random;
mod refusals;
mod remembered;
mod sessions;
mod shares;
mod sign_in;
mod throttle;
mod tokens;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use portreeve_model::config::WorkspaceConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior};

use self::accounts::Accounts;
use self::children::Children;
use self::ident2::Ident2Lines;
use self::keyring::{Keyring, KeyringError};
use self::login::LoginSocket;
use self::marks::{Marks, MarksError};
use self::news::News;
use self::posts::Posts;
use self::refusals::Refusals;
use self::sessions::Sessions;
use self::sign_in::{Conversations, EntryCode, SignInCode};
use self::throttle::Throttle;
use self::tokens::{Tokens, TokensError};
use crate::authority::Lifetimes;
use crate::codes::Codes;
use crate::revocations::{RevocationError, Revocations};

pub use self::throttle::SlowDown;

/// What the broker is to do. Fields may be changed after [`ServiceSettings::new`].
#[derive(Clone)]
pub struct ServiceSettings {
    /// Where keys and lists are kept: a directory that is root's, and closed to everybody else.
    pub state_dir: PathBuf,
    /// Where a portal listens.
    pub portal_socket: PathBuf,
    /// Where `portreeve login` asks.
    pub login_socket: PathBuf,
    /// The directory of forwards, which workers are told.
    pub forwards: PathBuf,
    /// No uid below it is served.
    pub first_uid: u32,
    /// What a reload may change.
    pub policy: Policy,
    /// What people start, and where: told to each worker.
    pub workspace: WorkspaceConfig,
    /// Called at SIGHUP: the policy as it is now configured. Without it, or when it has nothing, the old one stays.
    pub reload: Option<Rc<dyn Fn() -> Option<Policy>>>,
    /// The clock: unix seconds.
    pub clock: fn() -> i64,
}

/// The part of the settings that a reload may change.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The portal's address, `https://HOST[:PORT]` without a slash at its end.
    pub url: String,
    /// How long codes and sessions last; what was handed out keeps its end.
    pub lifetimes: Lifetimes,
    /// Without being shown for so long a session counts as left, in seconds: the portal's idle time.
    pub idle: i64,
    /// How often a portal reads groups again. What the broker remembers of them is never older.
    pub groups_refresh: Duration,
    /// A key signs for so long, in seconds.
    pub key_period: i64,
    /// A portal may ask for sign-in addresses of people on login nodes. Whoever takes such a portal over can sign in as
    /// anybody.
    pub relays_logins: bool,
    /// Where the ident2 service listens that portals ask about connections; `None`: they ask the nodes' agents.
    pub ident2: Option<PathBuf>,
    /// How wrong tries are slowed.
    pub slow_down: SlowDown,
}

impl ServiceSettings {
    /// With the defaults of the configuration file.
    #[must_use]
    pub fn new(
        state_dir: PathBuf,
        portal_socket: PathBuf,
        login_socket: PathBuf,
        forwards: PathBuf,
        url: String,
    ) -> Self {
        let policy = Policy::new(url);
        Self {
            state_dir,
            portal_socket,
            login_socket,
            forwards,
            first_uid: 1000,
            policy,
            workspace: WorkspaceConfig::default(),
            reload: None,
            clock: unix_seconds,
        }
    }
}

impl Policy {
    /// With the defaults of the configuration file.
    #[must_use]
    pub fn new(url: String) -> Self {
        const HOUR: i64 = 3600;
        Self {
            url,
            lifetimes: Lifetimes { code: 300, session: 24 * HOUR },
            idle: 8 * HOUR,
            groups_refresh: Duration::from_secs(300),
            key_period: 30 * 24 * HOUR,
            relays_logins: false,
            ident2: None,
            slow_down: SlowDown::default(),
        }
    }
}

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// Why the broker does not run (any more).
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another broker has the state directory.
    #[error("{0} is in use by another broker")]
    InUse(PathBuf),
    /// The state directory can't be used.
    #[error("{0} can't be used")]
    State(PathBuf, #[source] io::Error),
    /// Keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Marks.
    #[error(transparent)]
    Marks(#[from] MarksError),
    /// The list of ended sessions.
    #[error(transparent)]
    Revocations(#[from] RevocationError),
    /// Access tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The login socket can't be made.
    #[error("the login socket {0} can't be made")]
    Login(PathBuf, #[source] io::Error),
    /// The runtime, or the spawner's channel.
    #[error("the broker can't begin")]
    Begin(#[source] io::Error),
    /// The spawner is gone: without it nothing can be done.
    #[error("the spawner is gone")]
    Spawner(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// All that the broker's tasks share. One thread has it.
struct Service {
    settings: ServiceSettings,
    policy: RefCell<Rc<Policy>>,
    accounts: Accounts,
    keys: RefCell<Keyring>,
    revocations: RefCell<Revocations>,
    sessions: RefCell<Sessions>,
    tokens: RefCell<Tokens>,
    marks: Marks,
    throttle: Throttle,
    conversations: Conversations,
    sign_in_codes: RefCell<Codes<SignInCode>>,
    entry_codes: RefCell<Codes<EntryCode>>,
    dialers: Posts,
    workers: Posts,
    ident2: Ident2Lines,
    news: News,
    refusals: Refusals,
    /// Accounts that were not found, and are looked for once more.
    doubtful: RefCell<HashSet<u32>>,
    /// Nobody else writes in the state directory.
    _lock: Flock<File>,
}

/// Runs the broker until its spawner is gone. Blocks. `spawner` is our end of the pair that the spawner made before it
/// forked.
///
/// # Errors
/// See [`ServiceError`]. It never returns without one.
pub fn run(settings: ServiceSettings, spawner: OwnedFd) -> Result<(), ServiceError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServiceError::Begin)?;
    // Everything that runs belongs to this set, and ends with it.
    Err(LocalSet::new().block_on(&runtime, serve(settings, spawner)))
}

/// As [`run`], inside a `LocalSet`.
async fn serve(settings: ServiceSettings, spawner: OwnedFd) -> ServiceError {
    match Begun::begin(settings, spawner) {
        Ok(begun) => begun.run().await,
        Err(error) => error,
    }
}

/// A broker that is ready to run.
struct Begun {
    service: Rc<Service>,
    children: Rc<Children>,
    login: LoginSocket,
    hangups: Signal,
}

impl Begun {
    fn begin(settings: ServiceSettings, spawner: OwnedFd) -> Result<Self, ServiceError> {
        let children = Rc::new(Children::new(spawner).map_err(ServiceError::Begin)?);
        let hangups = signal(SignalKind::hangup()).map_err(ServiceError::Begin)?;
        let service = Rc::new(Service::open(settings, Rc::clone(&children))?);
        let socket = &service.settings.login_socket;
        let login = LoginSocket::bind(socket).map_err(|error| ServiceError::Login(socket.clone(), error))?;
        Ok(Self { service, children, login, hangups })
    }

    async fn run(self) -> ServiceError {
        let Self { service, children, login, hangups } = self;
        tracing::info!(first_uid = service.settings.first_uid, "the broker runs");
        tokio::select! {
            error = children.hear() => ServiceError::Spawner(error.into()),
            never = login.serve(Rc::clone(&service)) => never,
            never = portals::reach(Rc::clone(&service)) => never,
            never = tend(Rc::clone(&service), Rc::clone(&children)) => never,
            never = heed_hangups(Rc::clone(&service), hangups) => never,
        }
    }
}

/// Reloads.
async fn heed_hangups(service: Rc<Service>, mut hangups: Signal) -> ServiceError {
    loop {
        hangups.recv().await;
        service.reload();
    }
}

/// What is due every second.
async fn tend(service: Rc<Service>, children: Rc<Children>) -> ServiceError {
    let mut seconds = tokio::time::interval(limits::NEWS);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0u32;
    loop {
        seconds.tick().await;
        let now = Instant::now();
        service.conversations.end_late(now);
        service.let_sessions_expire();
        service.dialers.sweep(now);
        service.workers.sweep(now);
        children.end_the_lasting(now).await;
        if count.is_multiple_of(limits::WRITE_AGAIN) {
            service.write_again();
        }
        if count.is_multiple_of(60) {
            service.turn_keys();
            service.tidy_tokens();
        }
        count = count.wrapping_add(1);
    }
}

impl Service {
    fn open(settings: ServiceSettings, children: Rc<Children>) -> Result<Self, ServiceError> {
        let dir = &settings.state_dir;
        let now = (settings.clock)();
        let lock = lock(dir)?;
        let keys = Keyring::load(dir.join("ticket-keys.json"), now)?;
        let revocations = Revocations::load(dir.join("ended-sessions.json"), now)?;
        let tokens = Tokens::load(dir.join("tokens.json"))?;
        let marks = Marks::load(&dir.join("mark-key"))?;
        Ok(Self {
            accounts: Accounts::new(Rc::clone(&children), settings.first_uid, settings.policy.groups_refresh),
            keys: RefCell::new(keys),
            revocations: RefCell::new(revocations),
            sessions: RefCell::default(),
            tokens: RefCell::new(tokens),
            marks,
            throttle: Throttle::new(settings.policy.slow_down),
            conversations: Conversations::default(),
            sign_in_codes: RefCell::default(),
            entry_codes: RefCell::default(),
            dialers: Posts::new(Rc::clone(&children)),
            workers: Posts::new(children),
            ident2: Ident2Lines::default(),
            news: News::default(),
            refusals: Refusals::default(),
            doubtful: RefCell::default(),
            policy: RefCell::new(Rc::new(settings.policy.clone())),
            settings,
            _lock: lock,
        })
    }

    fn now(&self) -> i64 {
        (self.settings.clock)()
    }

    fn policy(&self) -> Rc<Policy> {
        Rc::clone(&self.policy.borrow())
    }

    fn reload(&self) {
        match self.settings.reload.as_ref().and_then(|reload| reload()) {
            Some(policy) => {
                self.throttle.change(policy.slow_down);
                self.accounts.change(policy.groups_refresh);
                self.policy.replace(Rc::new(policy));
                tracing::info!("the configuration was reloaded");
            }
            None => tracing::warn!("not reloaded: the old configuration stays in force"),
        }
    }
}

fn lock(dir: &std::path::Path) -> Result<Flock<File>, ServiceError> {
    let path = dir.join("broker.lock");
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(&path)
        .map_err(|error| ServiceError::State(dir.to_owned(), error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => ServiceError::InUse(dir.to_owned()),
        other => ServiceError::State(dir.to_owned(), other.into()),
    })
}

#[cfg(test)]
mod tests;
