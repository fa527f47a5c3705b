//! Where jobs run: clusters with Slurm, and this machine. What Slurm said last is kept, and asked again when it is old.
//!
//! Invariant: one question to a Slurm at a time, however many wait; none is put more often than `limits::QUEUE_AGE` allows. Who
//! waits too long gets what was said last, with a word about how old it is.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use portreeve_jobs::Slurm;
use portreeve_jobs::slurm::{Association, Partition, Row};
use portreeve_model::manifest::{Choice, Offered};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use super::Workplace;
use crate::limits;

/// All systems.
pub(crate) struct Systems {
    all: Vec<Rc<System>>,
}

/// One.
pub(crate) struct System {
    pub(crate) name: String,
    /// `None`: this machine.
    pub(crate) slurm: Option<Slurm>,
    queue: Kept<Vec<Row>>,
    site: Kept<Site>,
}

/// What a cluster offers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Site {
    pub(crate) partitions: Vec<Partition>,
    /// `None`: there is no accounting.
    pub(crate) associations: Option<Vec<Association>>,
}

/// What was said last.
struct Kept<T> {
    said: RefCell<Option<(Instant, Rc<T>)>>,
    /// The last try failed, for this reason.
    trouble: RefCell<Option<String>>,
    tried: RefCell<Option<Instant>>,
    asking: RefCell<Option<Rc<Notify>>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        let (said, trouble, tried, asking) = Default::default();
        Self { said, trouble, tried, asking }
    }
}

/// What is known.
pub(crate) struct Said<T> {
    /// What was said last, if anything ever was.
    pub(crate) last: Option<Rc<T>>,
    /// Why that is not how it is now.
    pub(crate) doubt: Option<String>,
}

impl Systems {
    pub(super) fn new(place: &Workplace) -> Self {
        let mut all = Vec::new();
        for system in &place.site.systems {
            let path = std::env::var("PATH").unwrap_or_default();
            let commands = system.commands.clone().or_else(|| Slurm::find(&path));
            // One that is not there says so when it is asked.
            let commands = commands.unwrap_or_else(|| PathBuf::from("/usr/bin"));
            let slurm = Slurm::new(commands, system.slurm_conf.clone(), place.person.uid);
            all.push(System::new(system.name.clone(), Some(slurm)));
        }
        all.extend(place.here.clone().map(|name| System::new(name, None)));
        Self { all: all.into_iter().map(Rc::new).collect() }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Rc<System>> {
        self.all.iter().find(|system| system.name == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<System>> {
        self.all.iter()
    }
}

impl System {
    fn new(name: String, slurm: Option<Slurm>) -> Self {
        Self { name, slurm, queue: Kept::default(), site: Kept::default() }
    }

    pub(crate) fn is_here(&self) -> bool {
        self.slurm.is_none()
    }

    /// One's jobs in the queue, not older than `age`, if Slurm answers within `patience`.
    pub(crate) async fn queue(self: &Rc<Self>, age: Duration, patience: Duration) -> Said<Vec<Row>> {
        let Some(slurm) = self.slurm.clone() else { return Said { last: Some(Rc::default()), doubt: None } };
        let ask = async move { slurm.queue().await.map_err(|error| error.to_string()) };
        fresh(self, |system| &system.queue, age, patience, ask).await
    }

    /// What it offers.
    pub(crate) async fn site(self: &Rc<Self>, patience: Duration) -> Said<Site> {
        let Some(slurm) = self.slurm.clone() else { return Said { last: Some(Rc::default()), doubt: None } };
        let ask = async move {
            let partitions = slurm.partitions().await.map_err(|error| error.to_string())?;
            let associations = slurm.associations().await.ok();
            Ok(Site { partitions, associations })
        };
        fresh(self, |system| &system.site, limits::SITE_AGE, patience, ask).await
    }
}

/// Asks unless it is young enough or somebody asks already.
async fn fresh<T: 'static>(
    system: &Rc<System>,
    kept: fn(&System) -> &Kept<T>,
    age: Duration,
    patience: Duration,
    ask: impl Future<Output = Result<T, String>> + 'static,
) -> Said<T> {
    let state = kept(system);
    let is_young = state.tried.borrow().is_some_and(|tried| tried.elapsed() < age.max(limits::QUEUE_AGE));
    let asking = state.asking.borrow().clone();
    let done = match asking {
        Some(done) => Some(done),
        None if is_young => None,
        None => {
            let done = Rc::new(Notify::new());
            state.asking.replace(Some(Rc::clone(&done)));
            let (system, done_too) = (Rc::clone(system), Rc::clone(&done));
            spawn_local(async move {
                let begun = Instant::now();
                let said = ask.await;
                let state = kept(&system);
                match said {
                    Ok(said) => {
                        state.said.replace(Some((begun, Rc::new(said))));
                        state.trouble.replace(None);
                    }
                    Err(why) => drop(state.trouble.replace(Some(why))),
                }
                state.tried.replace(Some(Instant::now()));
                state.asking.replace(None);
                done_too.notify_waiters();
            });
            Some(done)
        }
    };
    let mut late = false;
    if let Some(done) = done {
        // With something to show, or where nothing is to be hoped for, nobody waits long: whoever watches is told of what is new.
        let is_known = state.said.borrow().as_ref().is_some_and(|(at, _)| at.elapsed() < limits::STALE);
        let in_trouble = state.trouble.borrow().is_some();
        let patience = if is_known || in_trouble { patience.min(limits::HASTE) } else { patience };
        late = timeout(patience, done.notified()).await.is_err();
    }
    let said = state.said.borrow();
    let last = said.as_ref().map(|(_, said)| Rc::clone(said));
    let doubt = match (&*state.trouble.borrow(), late, &*said) {
        (Some(why), _, _) => Some(why.clone()),
        (None, true, Some((at, _))) if at.elapsed() > limits::STALE => {
            Some(format!("it has not answered for {} seconds", at.elapsed().as_secs()))
        }
        (None, true, None) => Some("it does not answer".to_owned()),
        _ => None,
    };
    Said { last, doubt }
}

impl Site {
    /// What a select offers there; `None`: nobody knows.
    pub(crate) fn offers(&self, offered: &Offered) -> Option<Vec<Choice>> {
        let choice = |value: &str, label: String| Choice { value: value.to_owned(), label };
        let mut choices: Vec<Choice> = match offered {
            Offered::Listed(choices) => return Some(choices.clone()),
            Offered::Partitions => {
                self.partitions.iter().map(|one| choice(&one.name, partition(one))).collect()
            }
            Offered::GpuTypes => {
                let types = self
                    .partitions
                    .iter()
                    .flat_map(|one| one.gpus.iter())
                    .filter(|(kind, _)| !kind.is_empty());
                types.map(|(kind, _)| choice(kind, kind.clone())).collect()
            }
            Offered::Features => self
                .partitions
                .iter()
                .flat_map(|one| one.features.iter())
                .map(|one| choice(one, one.clone()))
                .collect(),
            Offered::Accounts => self
                .associations
                .as_ref()?
                .iter()
                .map(|one| choice(&one.account, one.account.clone()))
                .collect(),
            Offered::Qos => self
                .associations
                .as_ref()?
                .iter()
                .flat_map(|one| one.qos.iter())
                .map(|one| choice(one, one.clone()))
                .collect(),
        };
        if *offered != Offered::Partitions {
            choices.sort_by(|one, other| one.value.cmp(&other.value));
        }
        choices.dedup_by(|one, other| one.value == other.value);
        Some(choices)
    }
}

fn partition(one: &Partition) -> String {
    let limit = match one.limit {
        Some(seconds) => format!(", up to {}", crate::said::duration(seconds)),
        None => String::new(),
    };
    let usual = if one.is_default { ", the usual one" } else { "" };
    let down = if one.is_up { "" } else { ", closed at the moment" };
    format!("{} ({} of {} nodes free{limit}{usual}{down})", one.name, one.idle_nodes, one.nodes)
}
