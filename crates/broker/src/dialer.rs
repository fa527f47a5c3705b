//! The process that connects as a user. Forked by the spawner, never exec'd: none of the user's code or environment is in
//! it, and the user can't trace it. Before: an order of the broker. After: a portal's thread, which is handed the sockets.
//!
//! | module | what |
//! | --- | --- |
//! | `serve` | the loop: channels in, who waits for what |
//! | `channel` | one portal thread's channel (`wire::dialer`) |
//! | `attempt` | one connection under way |
//!
//! What it inherits from root's process: its code, its settings, and what of earlier orders and news was left in memory,
//! which are users' names and numbers. Root's process never has a key, a ticket, a password, or anything that a conversation
//! with PAM said. It keeps standard error, and no other descriptor but its control channel.
//!
//! Invariants: before the first message is read it is the user for good, closed to debuggers, and in its sandbox, in which
//! nothing can be opened, read or run. It connects to the address it is told, once, and has no copy of a socket by the time
//! it says so.

mod attempt;
mod channel;
mod serve;

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use portreeve_model::wire::spawner::Identity;
use portreeve_sys::Sandbox;
use portreeve_sys::privileges::become_user;
use portreeve_sys::process::die_with;

/// Exit statuses besides 0, which says that the control channel was closed.
const NOT_CONFINED: u8 = 70;
const SYSTEM_FAILED: u8 = 71;
const CONTROL_BROKEN: u8 = 76;

/// Becomes the user and serves `control` until its other end is closed. Returns the exit status.
#[must_use]
pub fn run(control: OwnedFd, identity: &Identity, parent: Pid) -> u8 {
    if let Err(error) = confine(identity, parent) {
        tracing::error!(error = &*error, uid = identity.uid, "a dialer can't be made");
        return NOT_CONFINED;
    }
    // Nothing is logged from here on: the exit status says it.
    serve::serve(control)
}

fn confine(identity: &Identity, parent: Pid) -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = Sandbox::dialer()?;
    become_user(identity.uid, identity.gid, &identity.groups)?;
    // After the change of user, which would undo it.
    die_with(parent, Signal::SIGKILL)?;
    sandbox.enter()?;
    Ok(())
}
