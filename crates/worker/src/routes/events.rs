//! `/api/v1/events`: server-sent events (HTML standard, section 9.2). `change` says that something changed, and nothing more: what
//! it is, whoever watches asks for. A comment every few seconds says that the connection is there.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval};

use super::Asked;
use crate::desk::Desk;
use crate::limits;
use crate::respond::{self, Answer, BrokeOff, Refused};

pub(super) fn watch(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let (sender, receiver) = mpsc::channel(4);
    let Some(watcher) = Watcher::begin(Rc::clone(asked.desk)) else { return Err(Refused::TooMany) };
    spawn_local(watcher.run(sender));
    Ok(respond::stream("text/event-stream", receiver))
}

/// Counted until dropped.
struct Watcher(Rc<Desk>);

impl Watcher {
    fn begin(desk: Rc<Desk>) -> Option<Self> {
        let watchers = desk.jobs.watchers.get();
        if watchers >= limits::WATCHERS {
            return None;
        }
        desk.jobs.watchers.set(watchers + 1);
        Some(Self(desk))
    }

    /// Until whoever watches is gone.
    async fn run(self, events: mpsc::Sender<Result<Bytes, BrokeOff>>) {
        let jobs = &self.0.jobs;
        let mut versions = jobs.watch();
        let mut look = interval(limits::WATCH);
        let mut told = Instant::now();
        if events.send(Ok(Bytes::from_static(b"event: hello\ndata: 1\n\n"))).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return },
                _ = look.tick() => {
                    // Says itself what changed.
                    jobs.list().await;
                    let is_new = versions.has_changed().unwrap_or(false);
                    if !is_new && told.elapsed() < limits::HEARTBEAT {
                        if events.is_closed() { return }
                        continue;
                    }
                    if !is_new {
                        told = Instant::now();
                        if events.send(Ok(Bytes::from_static(b": still here\n\n"))).await.is_err() { return }
                        continue;
                    }
                    versions.mark_unchanged();
                }
                () = events.closed() => return,
            }
            told = Instant::now();
            let event = format!("event: change\ndata: {}\n\n", *versions.borrow_and_update());
            if events.send(Ok(event.into())).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let watchers = &self.0.jobs.watchers;
        watchers.set(watchers.get().saturating_sub(1));
    }
}
