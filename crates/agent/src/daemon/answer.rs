//! Answers one question. Before: `converse`, which read it. After: `lookup` and `listening`, which ask the kernel.
//! Invariant: what takes milliseconds (looks at processes) never stands in the way of what takes microseconds.

use std::sync::Arc;

use portreeve_model::wire::agent::{Answer, MAX_ROWS, Owned, Question, Row};
use portreeve_model::{Owner, OwnerGroups, Tuple, Unowned};

use super::jobs::{self, Jobs};
use crate::listening::{Listening, listening};
use crate::lookup::Lookup;
use crate::own_addresses::OwnAddresses;

/// Answers questions about this node.
pub(super) struct Answerer {
    /// For the quick questions, on the thread that reads them.
    quick: Lookup,
    slow: Arc<Slow>,
    own: OwnAddresses,
}

/// For the questions that look at processes, on threads of their own.
pub(super) struct Slow {
    lookup: Lookup,
    jobs: Jobs,
}

/// What is to be done for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Owner with group.
    Owner(Tuple),
    /// Confirm with group.
    Confirm(Tuple, Owner),
    /// What a user listens on.
    Listening(u32),
}

/// An answer, or the slow work that makes one.
pub(super) enum Reply {
    Now(Answer),
    Later(Work),
}

impl Answerer {
    /// Opens the sockets towards the kernel.
    pub(super) fn open() -> std::io::Result<Self> {
        let slow = Arc::new(Slow { lookup: Lookup::open()?, jobs: Jobs::open() });
        Ok(Self { quick: Lookup::open()?, slow, own: OwnAddresses::default() })
    }

    pub(super) fn slow(&self) -> Arc<Slow> {
        Arc::clone(&self.slow)
    }

    pub(super) fn answer(&self, question: Question) -> Reply {
        if let Some(tuple) = tuple_of(&question)
            && !self.own.has(tuple.server.ip())
        {
            tracing::warn!(server = %tuple.server, "a portal asked about an address that is not this node's");
            let why = format!("{} is no address of this node", tuple.server.ip());
            return Reply::Now(Answer::Refused { why });
        }
        Reply::Now(match question {
            Question::Ping => Answer::Pong,
            Question::Owner { tuple, group: false } => Answer::Owner(
                self.quick
                    .see(&tuple)
                    .map(|seen| Owned { owner: seen.owner, job: self.slow.jobs.of_group(seen.cgroup) }),
            ),
            Question::Confirm { tuple, before } if before.groups == OwnerGroups::NotLooked => {
                let confirmed = self.quick.confirm(&tuple, &before);
                Answer::Owner(confirmed.map(|owner| Owned { owner, job: None }))
            }
            Question::ListensStill { tuple, listener } => {
                Answer::ListensStill(self.quick.listens_still(&tuple, listener))
            }
            Question::Owner { tuple, group: true } => return Reply::Later(Work::Owner(tuple)),
            Question::Confirm { tuple, before } => return Reply::Later(Work::Confirm(tuple, before)),
            Question::Listening { uid } => return Reply::Later(Work::Listening(uid)),
        })
    }
}

impl Slow {
    /// Blocks for milliseconds.
    pub(super) fn answer(&self, work: Work) -> Answer {
        match work {
            Work::Owner(tuple) => Answer::Owner(self.owner(&tuple)),
            Work::Confirm(tuple, before) => {
                let confirmed = self.lookup.confirm(&tuple, &before);
                Answer::Owner(confirmed.map(|owner| Owned { owner, job: None }))
            }
            Work::Listening(uid) => match listening(uid) {
                Ok(found) => rows(found),
                Err(error) => Answer::Refused { why: format!("the kernel can't be asked: {error}") },
            },
        }
    }

    fn owner(&self, tuple: &Tuple) -> Result<Owned, Unowned> {
        let seen = self.lookup.see(tuple)?;
        Ok(Owned { owner: self.lookup.with_group(tuple, seen.owner), job: self.jobs.of_group(seen.cgroup) })
    }
}

fn tuple_of(question: &Question) -> Option<&Tuple> {
    match question {
        Question::Owner { tuple, .. }
        | Question::Confirm { tuple, .. }
        | Question::ListensStill { tuple, .. } => Some(tuple),
        Question::Listening { .. } | Question::Ping => None,
    }
}

fn rows(found: Vec<Listening>) -> Answer {
    let more = found.len() > MAX_ROWS;
    let row = |row: Listening| {
        let job = row.pid.and_then(jobs::of_process);
        Row { job, ..Row::from(row) }
    };
    Answer::Listening { rows: found.into_iter().take(MAX_ROWS).map(row).collect(), more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_model::ListenerId;
    use portreeve_model::wire;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn now(answerer: &Answerer, question: Question) -> Answer {
        match answerer.answer(question) {
            Reply::Now(answer) => answer,
            Reply::Later(work) => panic!("not at once: {work:?}"),
        }
    }

    fn later(answerer: &Answerer, question: Question) -> Answer {
        match answerer.answer(question) {
            Reply::Later(work) => answerer.slow().answer(work),
            Reply::Now(answer) => panic!("at once: {answer:?}"),
        }
    }

    #[test]
    fn each_question_is_answered() {
        let answerer = Answerer::open().unwrap();
        let me = nix::unistd::geteuid().as_raw();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tuple = Tuple { client: client.local_addr().unwrap(), server: client.peer_addr().unwrap() };
        assert_eq!(now(&answerer, Question::Ping), Answer::Pong);
        let Answer::Owner(Ok(waiting)) = now(&answerer, Question::Owner { tuple, group: false }) else {
            panic!()
        };
        assert_eq!((waiting.owner.uid, waiting.owner.accepted), (me, false));
        let still = |listener| Question::ListensStill { tuple, listener };
        assert_eq!(now(&answerer, still(waiting.owner.listener)), Answer::ListensStill(true));
        assert_eq!(now(&answerer, still(ListenerId(1))), Answer::ListensStill(false));
        let before = waiting.owner;
        assert_eq!(
            now(&answerer, Question::Confirm { tuple, before }),
            Answer::Owner(Err(Unowned::NotAccepted))
        );
        let (_accepted, _) = listener.accept().unwrap();
        let Answer::Owner(Ok(owned)) = later(&answerer, Question::Owner { tuple, group: true }) else {
            panic!()
        };
        assert_ne!(owned.owner.groups, OwnerGroups::NotLooked);
        let before = owned.owner;
        let Answer::Owner(Ok(confirmed)) = later(&answerer, Question::Confirm { tuple, before }) else {
            panic!()
        };
        assert!(confirmed.owner.accepted);
        let Answer::Listening { rows, .. } = later(&answerer, Question::Listening { uid: me }) else {
            panic!()
        };
        assert!(rows.iter().any(|row| row.port == tuple.server.port()));
    }

    #[test]
    fn other_nodes_addresses_are_refused() {
        let answerer = Answerer::open().unwrap();
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        for server in ["192.0.2.1:80", "[2001:db8::1]:80", "0.0.0.0:80"] {
            let client = if server.starts_with('[') { "[2001:db8::2]:81" } else { "192.0.2.2:81" };
            let tuple = Tuple { client: end(client), server: end(server) };
            let before =
                Owner { uid: 1, groups: OwnerGroups::NotLooked, listener: ListenerId(1), accepted: false };
            for question in [
                Question::Owner { tuple, group: false },
                Question::Owner { tuple, group: true },
                Question::Confirm { tuple, before },
                Question::ListensStill { tuple, listener: ListenerId(1) },
            ] {
                assert!(matches!(now(&answerer, question), Answer::Refused { .. }), "{server}");
            }
        }
    }

    #[test]
    fn the_longest_list_fits_a_frame() {
        let row = |port| Listening {
            address: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe".parse().unwrap(),
            port,
            pid: None,
            command: Some("\"\\é".repeat(40)),
        };
        let answer = rows((0..300).map(|n| row(60_000 + n)).collect());
        let Answer::Listening { rows, more: true } = &answer else { panic!() };
        assert_eq!(
            (rows.len(), rows[0].command.as_ref().unwrap().len()),
            (MAX_ROWS, wire::agent::MAX_COMMAND)
        );
        wire::encode(&wire::agent::FromAgent::Answer { id: u32::MAX, answer }).unwrap();
    }
}
