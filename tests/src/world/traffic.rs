//! People who go on using the portal while parts of it die: what each of them saw, and when.
//!
//! They live in a thread of their own, in the network of whoever begins it, so that a test's own waits don't hold them up.
//! Each request begins when it is due, whether or not the one before has its answer, on a connection of its own.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::{Client, Tunnel};

/// Between two requests of one person.
const EVERY: Duration = Duration::from_millis(200);
/// Longer than any limit of the portal that these requests can meet.
const MOST: Duration = Duration::from_secs(60);
/// Between two bytes in a tunnel, and for one's way there and back.
const PULSE: Duration = Duration::from_millis(100);
/// See [`PULSE`].
const ECHO: Duration = Duration::from_secs(20);

/// The people. They stop with this value.
#[derive(Debug)]
pub struct Traffic {
    record: Arc<Record>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Record {
    began: Instant,
    stop: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    ended: Mutex<Vec<(&'static str, Duration)>>,
}

/// Who does what.
#[derive(Debug)]
pub enum Use {
    /// Asks for this path again and again.
    Page(&'static str, Client, String),
    /// Has opened a tunnel to something that echoes, and goes on using it.
    Tunnel(&'static str, Tunnel),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whose.
    pub who: &'static str,
    /// When it began, since the traffic did.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// The answer's status; 0: there was none.
    pub status: u16,
    /// The portal's short name for its refusal; or what went wrong.
    pub code: String,
}

impl Seen {
    /// When its answer was there, since the traffic began.
    #[must_use]
    pub fn answered(&self) -> Duration {
        self.at + self.took
    }
}

impl Record {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Vec<(&'static str, Duration)>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Traffic {
    /// Begins.
    ///
    /// # Panics
    /// When there is no thread.
    #[must_use]
    pub fn begin(uses: Vec<Use>) -> Self {
        let (stop, began) = (AtomicBool::new(false), Instant::now());
        let record = Arc::new(Record { began, stop, seen: Mutex::default(), ended: Mutex::default() });
        let theirs = Arc::clone(&record);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(go_on(theirs, uses));
        });
        Self { record, thread: Some(thread) }
    }

    /// How long it has gone on.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.record.began.elapsed()
    }

    /// What one person saw so far, by when it began.
    #[must_use]
    pub fn of(&self, who: &str) -> Vec<Seen> {
        let mut seen: Vec<Seen> = self.record.seen().iter().filter(|seen| seen.who == who).cloned().collect();
        seen.sort_by_key(|seen| seen.at);
        seen
    }

    /// When one person's tunnel ended.
    #[must_use]
    pub fn tunnel_ended(&self, who: &str) -> Option<Duration> {
        self.record.ended().iter().find(|(name, _)| *name == who).map(|(_, at)| *at)
    }

    /// Waits until one person sees this on a request that began at `from` or later; it.
    ///
    /// # Panics
    /// When they do not within `patience`.
    pub async fn until(
        &self,
        who: &'static str,
        from: Duration,
        patience: Duration,
        is_it: impl Fn(&Seen) -> bool,
    ) -> Seen {
        let deadline = self.time() + patience;
        loop {
            let found = self.of(who).into_iter().find(|seen| seen.at >= from && is_it(seen));
            if let Some(found) = found {
                return found;
            }
            assert!(self.time() < deadline, "not seen within {patience:?}:\n{}", self.story());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// No more requests begin. Returns when the last one has its answer.
    ///
    /// # Panics
    /// When the people's thread did.
    pub async fn stop(&mut self) {
        self.record.stop.store(true, Relaxed);
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            sleep(Duration::from_millis(10)).await;
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the traffic's thread ends in order");
        }
    }

    /// All of it, to be read by people: equal answers one after the other are one line.
    #[must_use]
    pub fn story(&self) -> String {
        let mut people: Vec<&str> = self.record.seen().iter().map(|seen| seen.who).collect();
        people.sort_unstable();
        people.dedup();
        let mut story = String::new();
        for who in people {
            let seen = self.of(who);
            for run in seen.chunk_by(|one, next| (one.status, &one.code) == (next.status, &next.code)) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
                let slowest = run.iter().map(|seen| seen.took).max().unwrap_or_default();
                let _ = writeln!(
                    story,
                    "  {who:12} {:5.1} to {:5.1} s: {} {} ({} times, up to {:.1} s)",
                    first.at.as_secs_f32(),
                    last.at.as_secs_f32(),
                    first.status,
                    first.code,
                    run.len(),
                    slowest.as_secs_f32(),
                );
            }
        }
        for (who, at) in self.record.ended().iter() {
            let _ = writeln!(story, "  {who:12} {:5.1} s: the tunnel ended", at.as_secs_f32());
        }
        story
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.record.stop.store(true, Relaxed);
        if std::thread::panicking() {
            println!("{}", self.story());
        }
    }
}

async fn go_on(record: Arc<Record>, uses: Vec<Use>) {
    let mut people = JoinSet::new();
    for one in uses {
        let record = Arc::clone(&record);
        match one {
            Use::Page(who, client, path) => people.spawn(ask(record, who, client, path)),
            Use::Tunnel(who, tunnel) => people.spawn(talk(record, who, tunnel)),
        };
    }
    while people.join_next().await.is_some() {}
}

async fn ask(record: Arc<Record>, who: &'static str, client: Client, path: String) {
    let (mut due, mut under_way) = (interval(EVERY), JoinSet::new());
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !record.stop.load(Relaxed) {
        due.tick().await;
        while under_way.try_join_next().is_some() {}
        let (record, client, path) = (Arc::clone(&record), client.clone(), path.clone());
        under_way.spawn(async move {
            let at = record.began.elapsed();
            let (status, code) = match client.try_get(&path, MOST).await {
                Ok(answer) => (answer.status.as_u16(), answer.error().to_owned()),
                Err(why) => (0, why),
            };
            let took = record.began.elapsed().saturating_sub(at);
            record.seen().push(Seen { who, at, took, status, code });
        });
    }
    while under_way.join_next().await.is_some() {}
}

async fn talk(record: Arc<Record>, who: &'static str, mut tunnel: Tunnel) {
    while !record.stop.load(Relaxed) {
        let echoed = async {
            tunnel.write_all(b"x").await?;
            tunnel.read_u8().await
        };
        match timeout(ECHO, echoed).await {
            Ok(Ok(b'x')) => sleep(PULSE).await,
            _ => return record.ended().push((who, record.began.elapsed())),
        }
    }
}
