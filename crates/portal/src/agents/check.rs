//! Does this answer fit that question? Before: `converse`, which read it. After: whoever asked.
//! Invariant: what does not fit ends the connection. An agent that answers more than it was asked, or something else, is
//! broken or somebody else.

use std::net::SocketAddr;

use portreeve_model::OwnerGroups;
use portreeve_model::wire::agent::{Answer, FIRST_PORT, MAX_COMMAND, MAX_ROWS, Owned, Question, Row};

/// What an agent may say of itself or of a program, in bytes.
const WORDS: usize = 512;

/// The server's end of the connection that is asked about.
pub(super) fn server_of(question: &Question) -> Option<SocketAddr> {
    match question {
        Question::Owner { tuple, .. }
        | Question::Confirm { tuple, .. }
        | Question::ListensStill { tuple, .. } => Some(tuple.server),
        Question::Listening { .. } | Question::Ping => None,
    }
}

/// Whether it could be a true answer.
pub(super) fn fits(question: &Question, answer: &Answer) -> bool {
    match (question, answer) {
        (_, Answer::Refused { why }) => are_words(why, WORDS),
        (Question::Ping, Answer::Pong) | (Question::ListensStill { .. }, Answer::ListensStill(_)) => true,
        (Question::Owner { .. } | Question::Confirm { .. }, Answer::Owner(Err(unowned))) => {
            are_words(&unowned.to_string(), WORDS)
        }
        (Question::Owner { group, .. }, Answer::Owner(Ok(owned))) => {
            is_somebody(owned) && (owned.owner.groups != OwnerGroups::NotLooked) == *group
        }
        (Question::Confirm { before, .. }, Answer::Owner(Ok(owned))) => {
            let looked = |groups: OwnerGroups| groups != OwnerGroups::NotLooked;
            is_somebody(owned)
                && owned.owner.accepted
                && owned.owner.uid == before.uid
                && looked(owned.owner.groups) == looked(before.groups)
        }
        (Question::Listening { .. }, Answer::Listening { rows, .. }) => {
            rows.len() <= MAX_ROWS && rows.iter().all(is_row)
        }
        _ => false,
    }
}

/// The last uid and gid stand for "none" in the kernel's calls.
fn is_somebody(owned: &Owned) -> bool {
    owned.owner.uid != u32::MAX && owned.owner.groups != OwnerGroups::Egid(u32::MAX)
}

fn is_row(row: &Row) -> bool {
    row.port >= FIRST_PORT && row.command.as_ref().is_none_or(|command| are_words(command, MAX_COMMAND))
}

/// Short enough, and nothing that a terminal would obey.
fn are_words(text: &str, most: usize) -> bool {
    text.len() <= most && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_model::{ListenerId, Owner, Tuple, Unowned};

    fn owner(uid: u32, groups: OwnerGroups, accepted: bool) -> Answer {
        let owner = Owner { uid, groups, listener: ListenerId(1), accepted };
        Answer::Owner(Ok(Owned { owner, job: None }))
    }

    #[test]
    fn only_a_fitting_answer_fits() {
        use OwnerGroups::{Egid, NotLooked};
        let end = |text: &str| text.parse().unwrap();
        let tuple = Tuple { client: end("10.0.0.1:40000"), server: end("10.0.0.2:8888") };
        let ask = |group| Question::Owner { tuple, group };
        let before = |groups| Owner { uid: 7, groups, listener: ListenerId(1), accepted: false };
        let confirm = |groups| Question::Confirm { tuple, before: before(groups) };
        let still = Question::ListensStill { tuple, listener: ListenerId(1) };
        let refused = |why: &str| Answer::Refused { why: why.to_owned() };
        let row = |port, command: &str| Answer::Listening {
            rows: vec![Row {
                address: end("10.0.0.2:1").ip(),
                port,
                command: Some(command.to_owned()),
                job: None,
            }],
            more: false,
        };
        let many = |count| {
            let Answer::Listening { rows, .. } = row(8888, "x") else { panic!() };
            Answer::Listening { rows: vec![rows[0].clone(); count], more: true }
        };
        for (question, answer, expected) in [
            (Question::Ping, Answer::Pong, true),
            (Question::Ping, refused("busy"), true),
            (Question::Ping, refused(&"x".repeat(513)), false),
            (Question::Ping, refused("\u{1b}[2J"), false),
            (Question::Ping, Answer::ListensStill(true), false),
            (Question::Ping, owner(7, NotLooked, true), false),
            (still.clone(), Answer::ListensStill(false), true),
            (still.clone(), Answer::Pong, false),
            (still, owner(7, NotLooked, true), false),
            (ask(false), owner(7, NotLooked, false), true),
            (ask(false), owner(7, Egid(7), false), false),
            (ask(false), owner(u32::MAX, NotLooked, false), false),
            (ask(false), Answer::ListensStill(true), false),
            (ask(false), Answer::Pong, false),
            (ask(false), Answer::Owner(Err(Unowned::Closing)), true),
            (ask(false), Answer::Owner(Err(Unowned::Lookup("\n".to_owned()))), false),
            (ask(true), owner(7, Egid(7), false), true),
            (ask(true), owner(7, NotLooked, false), false),
            (ask(true), owner(7, Egid(u32::MAX), false), false),
            (confirm(NotLooked), owner(7, NotLooked, true), true),
            (confirm(NotLooked), owner(7, NotLooked, false), false),
            (confirm(NotLooked), owner(8, NotLooked, true), false),
            (confirm(NotLooked), owner(7, Egid(7), true), false),
            (confirm(Egid(7)), owner(7, Egid(8), true), true),
            (confirm(Egid(7)), owner(7, NotLooked, true), false),
            (Question::Listening { uid: 7 }, row(1024, "python3"), true),
            (Question::Listening { uid: 7 }, row(1023, "python3"), false),
            (Question::Listening { uid: 7 }, row(8888, "a\u{7}"), false),
            (Question::Listening { uid: 7 }, row(8888, &"x".repeat(65)), false),
            (Question::Listening { uid: 7 }, many(MAX_ROWS), true),
            (Question::Listening { uid: 7 }, many(MAX_ROWS + 1), false),
            (Question::Listening { uid: 7 }, Answer::Pong, false),
        ] {
            assert_eq!(fits(&question, &answer), expected, "{question:?} {answer:?}");
        }
    }
}
