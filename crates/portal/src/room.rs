//! What one thread keeps for itself, so that no request waits for another thread's lock: its pool of connections, what
//! it remembers of tickets, places and forward files, its long-lived flows, its own look-up socket.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use portreeve_model::{Due, ForwardName, LoginGroup, Owner, RECORDS_SUMMED, Records, Tuple};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::authenticate::Known;
use crate::flows::Flows;
use crate::limits;
use crate::link::Link;
use crate::metrics::Tally;
use crate::mode::Listener;
use crate::pool::Pool;
use crate::portal::Portal;
use crate::powers::Powers;
use crate::resolve::ForwardEntry;
use crate::route::Place;

/// One thread's own.
pub(crate) struct Room {
    pub(crate) portal: Arc<Portal>,
    pub(crate) powers: Powers,
    pub(crate) pool: Pool,
    pub(crate) flows: Flows,
    pub(crate) tickets: RefCell<LruCache<Box<str>, Known>>,
    pub(crate) places: RefCell<LruCache<Box<str>, Rc<Place>>>,
    /// What forward files say, to each user of their own.
    pub(crate) forwards: RefCell<LruCache<(u32, ForwardName), ForwardEntry>>,
    pub(crate) tasks: TaskTracker,
    /// What happens here is counted here.
    pub(crate) tally: Tally,
    /// Login groups of other users, for a while.
    pub(crate) logins: RefCell<LruCache<u32, (Instant, Option<LoginGroup>)>>,
    /// The first flow or idle connection is there: `flows::sweep` has work.
    pub(crate) to_look_after: Notify,
    connections: Cell<u64>,
    strangers: Rarely,
    bad_headers: Rarely,
    refusals: Rc<RefCell<Records>>,
    number: u64,
}

fn sized<K: std::hash::Hash + Eq, V>(most: usize) -> RefCell<LruCache<K, V>> {
    RefCell::new(LruCache::new(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)))
}

impl Room {
    pub(crate) fn open(portal: Arc<Portal>, number: u64) -> std::io::Result<Self> {
        Ok(Self {
            powers: Powers::open(&portal.service)?,
            tally: portal.metrics.tally(),
            portal,
            pool: Pool::default(),
            flows: Flows::default(),
            tickets: sized(limits::TICKETS),
            places: sized(limits::PLACES),
            forwards: sized(limits::PLACES),
            tasks: TaskTracker::new(),
            logins: sized(limits::LOGINS),
            to_look_after: Notify::new(),
            connections: Cell::new(0),
            strangers: Rarely::new(limits::STRANGER_RECORDS),
            bad_headers: Rarely::new(limits::PROXY_RECORDS),
            refusals: Rc::new(RefCell::new(Records::new(limits::REFUSAL_RECORDS))),
            number,
        })
    }

    /// The socket that listened for a connection: the same for all of them until the application is restarted.
    pub(crate) fn listener(&self, tuple: &Tuple, owner: &Owner) -> Listener {
        let generation = self.powers.generation(tuple.server);
        Listener { node: tuple.server.ip(), generation, id: owner.listener }
    }

    /// Keeps a connection to an application for later.
    pub(crate) fn keep(&self, link: Box<Link>) {
        // Some of those that are kept have a task that goes on.
        if self.portal.draining.is_set() {
            return;
        }
        if self.pool.is_empty() {
            self.to_look_after.notify_one();
        }
        self.pool.put(link, Instant::now());
    }

    /// Closes the connections that are kept, because nothing will ask for them any more.
    pub(crate) fn stop_keeping(&self) {
        self.pool.clear();
    }

    /// Lets a stranger be written down, at most once in a while: nobody may fill the log from outside.
    pub(crate) fn note_stranger(&self, write: impl FnOnce()) {
        if self.strangers.is_due(Instant::now()) {
            write();
        }
    }

    /// The same for a proxy whose header is not good.
    pub(crate) fn note_bad_header(&self, write: impl FnOnce()) {
        if self.bad_headers.is_due(Instant::now()) {
            write();
        }
    }

    /// The same for a refusal of somebody who is not signed in: so many a second, and how many there were beside them.
    pub(crate) fn note_refusal(&self, write: impl FnOnce()) {
        let due = self.refusals.borrow_mut().next(std::time::Instant::now());
        match due {
            Due::Now => write(),
            Due::Not => {}
            Due::Summed => {
                let refusals = Rc::clone(&self.refusals);
                self.tasks.spawn_local(async move {
                    tokio::time::sleep(RECORDS_SUMMED).await;
                    let more = refusals.borrow_mut().take_left_out();
                    tracing::warn!(
                        more,
                        "refusals of people who are not signed in were not logged one by one"
                    );
                });
            }
        }
    }

    /// A number for a new connection that no other connection of this process has.
    pub(crate) fn next_connection(&self) -> u64 {
        let count = self.connections.get() + 1;
        self.connections.set(count);
        count << 8 | self.number
    }
}

/// Something that is done at most once in a while, however often there is cause.
struct Rarely {
    every: Duration,
    last: Cell<Option<Instant>>,
}

impl Rarely {
    fn new(every: Duration) -> Self {
        Self { every, last: Cell::new(None) }
    }

    /// Whether it is time; then it counts as done.
    fn is_due(&self, now: Instant) -> bool {
        let is_due = self.last.get().is_none_or(|last| now.duration_since(last) >= self.every);
        if is_due {
            self.last.set(Some(now));
        }
        is_due
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use portreeve_broker::Verifier;
    use portreeve_broker::{Account, Broker, Forwards, Lifetimes};
    use portreeve_model::config::WorkspaceConfig;
    use portreeve_model::{Config, GroupRules, HostRules};
    use portreeve_worker::local::Settings as WorkerSettings;
    use portreeve_worker::{Local, Person};

    use super::*;
    use crate::portal::Settings;
    use crate::powers::StateDir;
    use crate::{Embedded, Service, certificate, server_config};

    /// A room of a portal with the defaults, whose state is in the directory for as long as that is held.
    pub(crate) fn room() -> (tempfile::TempDir, Room) {
        let state = tempfile::tempdir().unwrap();
        let (chain, key) = certificate::self_signed(state.path(), &["localhost".to_owned()], 0).unwrap();
        let config = Config::default();
        let tls = Arc::new(server_config(chain, key).unwrap());
        let settings = Settings { config, tls, groups: GroupRules { never: vec![] } };
        let forwards = Forwards::in_dir(state.path().to_owned());
        let lifetimes = Lifetimes { code: 60, session: 3600 };
        let account = Account::of_this_process().unwrap();
        let broker = Broker::open(account, state.path(), forwards, lifetimes, 0).unwrap();
        let (key, id) = broker.ticket_key();
        let worker = Local::start(WorkerSettings {
            person: Person {
                name: "me".to_owned(),
                uid: broker.account().uid,
                home: "/".into(),
                shell: "/bin/sh".into(),
            },
            state: state.path().to_owned(),
            machine: "here".to_owned(),
            look: |_| Ok(Vec::new()),
            forwards: state.path().to_owned(),
            site: WorkspaceConfig::default(),
            keys: Verifier::new([(id, key)]),
        });
        let worker = worker.unwrap();
        let hosts = HostRules {
            portal_names: vec!["localhost".to_owned()],
            apps_name: String::new(),
            apps_domain: String::new(),
            tagged: false,
        };
        let service =
            Service::Embedded(Arc::new(Embedded::new(Arc::new(broker), worker, StateDir::Usual).unwrap()));
        let portal = Portal::new(settings, service, hosts, vec![]).unwrap();
        (state, Room::open(Arc::new(portal), 0).unwrap())
    }

    #[test]
    fn what_is_remembered_has_its_bound() {
        let (_state, room) = room();
        for (name, bound, limit) in [
            ("tickets", room.tickets.borrow().cap(), limits::TICKETS),
            ("places", room.places.borrow().cap(), limits::PLACES),
            ("forwards", room.forwards.borrow().cap(), limits::PLACES),
            ("logins", room.logins.borrow().cap(), limits::LOGINS),
            ("modes", room.portal.modes.most(), limits::MODES),
            ("attempts", room.portal.attempts.most(), limits::CODE_FAILURE_ADDRESSES),
        ] {
            assert_eq!(bound.get(), limit, "{name}");
        }
    }

    #[test]
    fn however_many_strangers_come_few_are_written_down() {
        let rarely = Rarely::new(limits::STRANGER_RECORDS);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let due: Vec<bool> =
            [0, 1, 999, 1000, 1001, 1999, 2000, 9000].into_iter().map(|ms| rarely.is_due(at(ms))).collect();
        assert_eq!(due, [true, false, false, true, false, false, true, true]);
    }
}
