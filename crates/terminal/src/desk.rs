//! What all requests share. One thread has it.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use tokio::task::JoinSet;

use crate::room::Room;
use crate::settings::Settings;

pub(crate) struct Desk {
    pub(crate) settings: Settings,
    /// Where it really listens.
    pub(crate) port: u16,
    pub(crate) room: Rc<Room>,
    program: Option<u32>,
    /// Connections, and the conversations that some of them become.
    tasks: RefCell<JoinSet<()>>,
}

impl Desk {
    pub(crate) fn new(settings: Settings, port: u16, room: Rc<Room>, program: Option<u32>) -> Self {
        Self { settings, port, room, program, tasks: RefCell::default() }
    }

    /// The program's process, as long as it runs: then the number may be somebody else's.
    pub(crate) fn program(&self) -> Option<u32> {
        self.program.filter(|_| !self.room.has_ended())
    }

    /// Runs it beside everything else, at most until the desk is cleared.
    pub(crate) fn beside(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task);
    }

    /// How many still run.
    pub(crate) fn busy(&self) -> usize {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }

    /// Ends them all.
    pub(crate) fn clear(&self) {
        self.tasks.borrow_mut().abort_all();
    }
}
