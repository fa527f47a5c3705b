//! How one thread counts. Beside the steps of a request's life, each of which notes what came of it.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Version};
use portreeve_model::SignIn;
use tokio::time::Instant;

use super::block::Block;
use super::codes;
use super::labels::{Connect, Direction, Entered, HandshakeFailure, Kind, Looked, Pooled, Turned};
use crate::connect::ConnectError;

/// The one writer of a block. It can't leave its thread.
pub(crate) struct Tally {
    block: Arc<Block>,
    stays: PhantomData<Rc<()>>,
}

impl Tally {
    pub(super) fn new(block: Arc<Block>) -> Self {
        Self { block, stays: PhantomData }
    }

    pub(crate) fn connection_accepted(&self) {
        self.block.connections_accepted.add(1);
    }

    pub(crate) fn connection_ended(&self) {
        self.block.connections_ended.add(1);
    }

    pub(crate) fn turned_away(&self, why: Turned) {
        self.block.turned_away.of(why).add(1);
    }

    pub(crate) fn handshake_failed(&self, why: HandshakeFailure) {
        self.block.handshakes_failed.of(why).add(1);
    }

    pub(crate) fn request_begun(&self) {
        self.block.requests_begun.add(1);
    }

    /// A request's answer, as far as its head; `None`: whoever asked left before.
    pub(crate) fn request_ended(&self, version: Version, status: Option<StatusCode>, took: Duration) {
        let block = &*self.block;
        block.requests_ended.add(1);
        block.requests.of(version.into(), status.into()).add(1);
        if status.is_some() {
            block.durations.note(took);
        }
    }

    /// A refusal, by its code.
    pub(crate) fn refused(&self, code: &str) {
        self.block.refusals[codes::number(code)].add(1);
    }

    /// Whether a connection to an application was in the pool.
    pub(crate) fn pooled(&self, found: bool) {
        self.block.pooled.of(if found { Pooled::Hit } else { Pooled::Miss }).add(1);
    }

    /// What came of connecting to an application; passes it on.
    pub(crate) fn connected<T>(&self, connected: Result<T, ConnectError>) -> Result<T, ConnectError> {
        self.block.connects.of(Connect::from(&connected)).add(1);
        connected
    }

    /// Waits for an owner's look-up, and passes on what came of it.
    pub(crate) async fn looked_up<T, E>(&self, looking: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let looked = looking.await;
        self.block.lookups.of(if looked.is_ok() { Looked::Found } else { Looked::Unowned }).add(1);
        self.block.lookup_durations.note(begun.elapsed());
        looked
    }

    pub(crate) fn tunnel_begun(&self) {
        self.block.tunnels_begun.add(1);
    }

    pub(crate) fn tunnel_ended(&self) {
        self.block.tunnels_ended.add(1);
    }

    /// Bytes that were carried.
    pub(crate) fn carried(&self, direction: Direction, kind: Kind, bytes: usize) {
        self.block.bytes.of(direction, kind).add(bytes as u64);
    }

    /// Somebody signed in.
    pub(crate) fn signed_in(&self, how: SignIn) {
        self.block.sign_ins.of(how.into(), Entered::In).add(1);
    }

    /// Somebody tried to.
    pub(crate) fn sign_in_refused(&self, how: SignIn) {
        self.block.sign_ins.of(how.into(), Entered::Refused).add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the counters cost a request that is carried over a pooled connection, with a piece of body each way. Run by
    /// hand, optimized, on a quiet machine.
    #[test]
    #[ignore = "measures"]
    fn what_counting_costs_a_request() {
        const REQUESTS: u32 = 2_000_000;
        let tally = Tally::new(Arc::new(Block::default()));
        let measure = |count: bool| {
            let start = std::time::Instant::now();
            for _ in 0..REQUESTS {
                let begun = Instant::now();
                if count {
                    tally.request_begun();
                    tally.pooled(true);
                    tally.carried(Direction::ToApplication, Kind::Body, 100);
                    tally.carried(Direction::ToBrowser, Kind::Body, 1024);
                    tally.request_ended(Version::HTTP_11, Some(StatusCode::OK), begun.elapsed());
                }
                std::hint::black_box(&begun);
            }
            start.elapsed() / REQUESTS
        };
        let (clock, all) = (measure(false), measure(true));
        println!("one look at the clock: {clock:?}; everything, with two looks: {all:?}");
    }
}
