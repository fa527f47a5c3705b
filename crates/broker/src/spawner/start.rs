//! What an order starts, and what is refused. Before: `serve`, which read the order.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};
use portreeve_model::wire::spawner::{AT_ONCE, Identity, Start};
use portreeve_sys::process::{ForkError, fork_with};

use super::children::{Child, Children};
use super::{Settings, forward, look_up, program};
use crate::account::is_served;
use crate::dialer;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// One descriptor with what is started, none with an end.
    #[error("the order came with a wrong number of descriptors")]
    Descriptor,
    /// Root, a system account, or nobody.
    #[error(
        "uid {uid} is not served: below {first_uid}, nobody's, or in a login group of root's or nobody's"
    )]
    NotServed { uid: u32, first_uid: u32 },
    /// The broker's number is in use.
    #[error("there is a child of this number")]
    NumberInUse,
    /// See `wire::spawner::AT_ONCE`.
    #[error("there are {AT_ONCE} children already")]
    TooMany,
    /// The system refused.
    #[error("no process could be made")]
    Fork(#[from] ForkError),
}

/// Starts what was ordered, with its descriptor.
pub(super) fn start(
    settings: &Settings,
    children: &mut Children,
    number: u64,
    what: Start,
    descriptor: OwnedFd,
) -> Result<Pid, Refusal> {
    if children.len() >= AT_ONCE {
        return Err(Refusal::TooMany);
    }
    if children.has(number) {
        return Err(Refusal::NumberInUse);
    }
    if let Start::Dialer(identity) | Start::Forward { visitor: identity, .. } = &what {
        check_served(settings, identity)?;
    }
    let parent = getpid();
    let look_up_until = Some(Instant::now() + settings.look_up_patience);
    let (ending, until) = match &what {
        Start::Dialer(_) => (Signal::SIGKILL, None),
        Start::LookUp(_) | Start::Forward { .. } => (Signal::SIGKILL, look_up_until),
        _ => (Signal::SIGTERM, None),
    };
    // In the child; what is captured owns no descriptor.
    let pid = fork_with(descriptor, |channel| match what {
        Start::Dialer(identity) => dialer::run(channel, &identity, parent),
        Start::LookUp(question) => look_up::run(channel, &question, settings.first_uid, parent),
        Start::Forward { visitor, name } => {
            forward::run(channel, &settings.forwards, &visitor, &name, parent)
        }
        Start::Worker { user } => program::session(settings, &user, channel, parent),
        Start::AccountCheck { user } => program::account(settings, &user, channel, parent),
        Start::Conversation { user, from } => {
            program::converse(settings, user.as_ref(), from, channel, parent)
        }
        // Handled without a child.
        Start::End { .. } => 0,
    })?;
    children.add(pid, Child { number, ending, until });
    Ok(pid)
}

fn check_served(settings: &Settings, identity: &Identity) -> Result<(), Refusal> {
    if is_served(settings.first_uid, identity.uid, identity.gid) {
        Ok(())
    } else {
        Err(Refusal::NotServed { uid: identity.uid, first_uid: settings.first_uid })
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::wire::spawner::LookUp;
    use portreeve_model::{ForwardName, UserName};

    use super::*;

    fn settings() -> Settings {
        Settings {
            first_uid: 1000,
            pam: "/nonexistent".into(),
            forwards: "/nonexistent".into(),
            look_up_patience: Settings::LOOK_UP_PATIENCE,
            end_patience: Settings::END_PATIENCE,
        }
    }

    fn ordered(
        settings: &Settings,
        children: &mut Children,
        number: u64,
        what: Start,
    ) -> Result<Pid, Refusal> {
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        start(settings, children, number, what, theirs.into())
    }

    #[test]
    fn there_is_a_most() {
        let settings = settings();
        let mut children = Children::default();
        for number in 0..AT_ONCE as u64 {
            let pid = Pid::from_raw(1 << 23 | number as i32);
            children.add(pid, Child { number, ending: Signal::SIGKILL, until: None });
        }
        let start = |children: &mut Children, number, what| ordered(&settings, children, number, what);
        let worker = || Start::Worker { user: UserName::parse("alice").unwrap() };
        for what in [worker(), Start::LookUp(LookUp::Uid(1))] {
            let refused = start(&mut children, 1 << 40, what);
            assert!(matches!(refused, Err(Refusal::TooMany)), "{refused:?}");
        }
        // A place is free again; that the test program has threads is the next obstacle.
        assert_eq!(children.remove(Pid::from_raw(1 << 23 | 7)), Some(7));
        assert!(matches!(start(&mut children, 8, worker()), Err(Refusal::NumberInUse)));
        assert!(matches!(start(&mut children, 7, worker()), Err(Refusal::Fork(_))));
    }

    #[test]
    fn the_last_check_is_here() {
        let settings = settings();
        for (uid, gid) in [
            (0, 1000),
            (999, 1000),
            (65_534, 1000),
            (65_535, 1000),
            (u32::MAX, 1000),
            (1000, 0),
            (1000, 65_534),
            (1000, u32::MAX),
        ] {
            let identity = || {
                let name = UserName::parse("alice").unwrap();
                Identity { name, uid, gid, groups: vec![] }
            };
            let forward = || ForwardName::parse("plots").unwrap();
            for what in [Start::Dialer(identity()), Start::Forward { visitor: identity(), name: forward() }] {
                let refused = ordered(&settings, &mut Children::default(), 1, what);
                assert!(matches!(refused, Err(Refusal::NotServed { .. })), "{uid} {gid}: {refused:?}");
            }
        }
    }
}
