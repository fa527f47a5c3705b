//! Where the program's output and its viewers meet: who looks, who types, how large the terminal is.
//! Before: `program`. After: `viewer`, one for each browser.
//!
//! Invariants: at most one viewer types, and it may. The terminal has that viewer's size. Nothing here waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};

use crate::ended::Ended;
use crate::limits;
use crate::log::Log;
use crate::seat::{Next, Seat};
use crate::size::Size;

pub(crate) struct Room {
    pub(crate) run: String,
    pub(crate) title: String,
    inside: RefCell<Inside>,
    typed: mpsc::Sender<Bytes>,
    sizes: watch::Sender<Size>,
    /// A viewer came or went.
    moved: Notify,
}

struct Inside {
    log: Log,
    viewers: BTreeMap<u64, Viewer>,
    /// Viewers so far.
    count: u64,
    writer: Option<u64>,
    ended: Option<Ended>,
    /// Somebody who was told so has gone.
    seen: bool,
    closed: bool,
}

struct Viewer {
    seat: Seat,
    size: Size,
    may_type: bool,
    client: String,
    wake: Rc<Notify>,
}

/// What a browser said when it came.
pub(crate) struct Arrival {
    pub(crate) run: String,
    pub(crate) offset: u64,
    pub(crate) client: String,
    pub(crate) size: Size,
    pub(crate) may_type: bool,
}

/// What all viewers are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// This viewer types.
    pub(crate) you: bool,
    /// It may.
    pub(crate) may: bool,
    /// Another one does.
    pub(crate) other: bool,
    pub(crate) ended: Option<Ended>,
}

impl Room {
    pub(crate) fn new(
        run: String,
        title: String,
        typed: mpsc::Sender<Bytes>,
        sizes: watch::Sender<Size>,
    ) -> Self {
        let log = Log::new(Size::FIRST);
        let inside = Inside {
            log,
            viewers: BTreeMap::new(),
            count: 0,
            writer: None,
            ended: None,
            seen: false,
            closed: false,
        };
        Self { run, title, inside: RefCell::new(inside), typed, sizes, moved: Notify::new() }
    }

    /// The program wrote it.
    pub(crate) fn append(&self, bytes: &[u8]) {
        let mut inside = self.inside.borrow_mut();
        inside.log.append(bytes);
        inside.wake_all();
    }

    /// The program has ended and everything that it wrote is here.
    pub(crate) fn end(&self, ended: Ended) {
        let mut inside = self.inside.borrow_mut();
        inside.ended = Some(ended);
        inside.wake_all();
    }

    /// Everybody is to go.
    pub(crate) fn close(&self) {
        let mut inside = self.inside.borrow_mut();
        inside.closed = true;
        inside.wake_all();
    }

    /// Waits until nobody is here.
    pub(crate) async fn empty(&self) {
        while !self.inside.borrow().viewers.is_empty() {
            self.moved.notified().await;
        }
    }

    /// Waits until somebody has been shown the program's end and nobody is here any more.
    pub(crate) async fn seen(&self) {
        while {
            let inside = self.inside.borrow();
            !inside.seen || !inside.viewers.is_empty()
        } {
            self.moved.notified().await;
        }
    }

    /// Waits until nobody is here who may type.
    pub(crate) async fn left(&self) {
        while self.inside.borrow().viewers.values().any(|viewer| viewer.may_type) {
            self.moved.notified().await;
        }
    }

    /// Whether the program has.
    pub(crate) fn has_ended(&self) -> bool {
        self.inside.borrow().ended.is_some()
    }

    /// Somebody comes, unless there are too many. Whoever comes again, or finds nobody typing, types.
    pub(crate) fn enter(self: &Rc<Self>, arrival: Arrival) -> Option<Guest> {
        let wake = Rc::new(Notify::new());
        let id = {
            let mut inside = self.inside.borrow_mut();
            if inside.viewers.len() >= limits::VIEWERS || inside.closed {
                return None;
            }
            let id = inside.count;
            inside.count += 1;
            let seen = (arrival.run == self.run).then_some(arrival.offset);
            let viewer = Viewer {
                seat: Seat::new(seen, &inside.log),
                size: arrival.size,
                may_type: arrival.may_type,
                client: arrival.client,
                wake: Rc::clone(&wake),
            };
            let again = |writer: &u64| {
                let typing = inside.viewers.get(writer);
                typing.is_none_or(|typing| !viewer.client.is_empty() && typing.client == viewer.client)
            };
            let takes = viewer.may_type && inside.writer.as_ref().is_none_or(again);
            inside.viewers.insert(id, viewer);
            if takes {
                self.hand_over(&mut inside, id);
            }
            id
        };
        Some(Guest { room: Rc::clone(self), id, wake })
    }

    fn hand_over(&self, inside: &mut Inside, id: u64) {
        inside.writer = Some(id);
        if let Some(viewer) = inside.viewers.get(&id) {
            let size = viewer.size;
            self.resize(inside, size);
        }
        inside.wake_all();
    }

    fn resize(&self, inside: &mut Inside, size: Size) {
        if inside.ended.is_none() {
            inside.log.resize(size);
            self.sizes.send_if_modified(|current| std::mem::replace(current, size) != size);
            inside.wake_all();
        }
    }
}

impl Inside {
    fn wake_all(&mut self) {
        for viewer in self.viewers.values() {
            viewer.wake.notify_one();
        }
    }
}

/// A viewer's place in the room. It leaves when this is dropped.
pub(crate) struct Guest {
    room: Rc<Room>,
    id: u64,
    wake: Rc<Notify>,
}

impl Guest {
    /// What to say next; `None` if there is nothing to say yet.
    pub(crate) fn next(&self) -> Option<Next> {
        let mut inside = self.room.inside.borrow_mut();
        let Inside { log, viewers, writer, ended, closed, .. } = &mut *inside;
        let viewer = viewers.get_mut(&self.id)?;
        let you = *writer == Some(self.id);
        let facts = Facts { you, may: viewer.may_type, other: writer.is_some() && !you, ended: *ended };
        let next = viewer.seat.next(&self.room, log, facts);
        if next.is_none() && *closed { Some(Next::Close) } else { next }
    }

    /// Waits until there may be something to say.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// So many bytes were shown. Says whether that can be.
    pub(crate) fn acknowledge(&self, bytes: u64) -> bool {
        let mut inside = self.room.inside.borrow_mut();
        let Some(viewer) = inside.viewers.get_mut(&self.id) else { return false };
        self.wake.notify_one();
        viewer.seat.acknowledge(bytes)
    }

    /// Its window has another size.
    pub(crate) fn resize(&self, size: Size) {
        let mut inside = self.room.inside.borrow_mut();
        if let Some(viewer) = inside.viewers.get_mut(&self.id) {
            viewer.size = size;
        }
        if inside.writer == Some(self.id) {
            self.room.resize(&mut inside, size);
        }
    }

    /// It would like to type. Who may not is not heard.
    pub(crate) fn take(&self) {
        let mut inside = self.room.inside.borrow_mut();
        if inside.viewers.get(&self.id).is_some_and(|viewer| viewer.may_type) {
            self.room.hand_over(&mut inside, self.id);
        }
    }

    /// Typed bytes, if this is the viewer that types, or may and nobody does. Waits for the program to take them.
    pub(crate) async fn typed(&self, bytes: Bytes) {
        if self.room.inside.borrow().writer.is_none() {
            self.take();
        }
        if self.room.inside.borrow().writer == Some(self.id) && !bytes.is_empty() {
            // Fails when the program has ended.
            let _ = self.room.typed.send(bytes).await;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inside = self.room.inside.borrow_mut();
        let left = inside.viewers.remove(&self.id);
        inside.seen |= left.is_some_and(|viewer| viewer.seat.knows_the_end());
        if inside.writer == Some(self.id) {
            inside.writer = None;
            inside.wake_all();
        }
        // One that waits is told, and if none does, the next one.
        self.room.moved.notify_one();
    }
}
