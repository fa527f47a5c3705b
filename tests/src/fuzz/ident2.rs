//! ident2: what any process of the node and any node may send.

use portreeve_model::wire::ident2::{ANSWER, MAX_GROUPS, Message, QUESTION, parse};

/// One packet.
pub fn ident2_messages(data: &[u8]) {
    let Ok(message) = parse(data) else { return };
    let written = match &message {
        Message::Hello => return assert_eq!(data.first(), Some(&0)),
        Message::Question(question) => {
            assert_eq!(data.len(), QUESTION);
            assert_eq!(question.local.is_ipv4(), question.remote.is_ipv4());
            question.to_bytes()
        }
        Message::Answer(answer) => {
            let groups = answer.found.as_ref().and_then(|found| found.groups.as_ref()).map_or(0, Vec::len);
            assert!(groups <= MAX_GROUPS && data.len() >= ANSWER + 4 * groups);
            answer.to_bytes()
        }
    };
    // What was read means the same when it is sent on.
    assert!(written.len() <= data.len() && written.first() == data.first());
    assert_eq!(parse(&written), Ok(message));
}
