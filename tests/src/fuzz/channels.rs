//! The channels between a cluster's processes: each side may be taken over, and the other reads what it says.

use portreeve_model::wire::{MAX_FRAME, WireError, agent, broker, decode, dialer, encode_bare, pam, spawner};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Between the broker and root's process, and what a look-up answers.
pub fn spawner_messages(data: &[u8]) {
    comes_back::<spawner::Order>(data);
    comes_back::<spawner::Found>(data);
    comes_back::<spawner::SpawnerNews>(data);
}

/// Between a portal's thread and a dialer.
pub fn dialer_messages(data: &[u8]) {
    comes_back::<dialer::Dial>(data);
    comes_back::<dialer::Dialed>(data);
}

/// Between portal and broker.
pub fn broker_messages(data: &[u8]) {
    comes_back::<broker::Ask>(data);
    comes_back::<broker::FromBroker>(data);
}

/// Between the broker and who speaks with PAM.
pub fn pam_messages(data: &[u8]) {
    comes_back::<pam::PamNews>(data);
    if let Some(reply) = comes_back::<pam::PamReply>(data) {
        let hidden = vec!["(hidden)"; reply.answers.len()].join(", ");
        assert_eq!(format!("{reply:?}"), format!("PamReply {{ answers: [{hidden}] }}"), "an answer is shown");
    }
}

/// Between an agent and a portal.
pub fn agent_messages(data: &[u8]) {
    comes_back::<agent::FromAgent>(data);
    comes_back::<agent::ToAgent>(data);
}

/// What was understood is the same when it is said again; nothing that is too long was understood.
pub(super) fn comes_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let message: T = decode(data).ok()?;
    assert!((1..=MAX_FRAME).contains(&data.len()));
    match encode_bare(&message) {
        Ok(frame) => assert_eq!(decode::<T>(&frame).ok().as_ref(), Some(&message)),
        // The form with [ ] for { } is shorter: it may be read, but is not written.
        Err(WireError::TooLong { .. }) => assert!(data.len() > MAX_FRAME / 16),
        Err(other) => panic!("{other}"),
    }
    Some(message)
}
