//! Idle connections to applications, kept with the owner that was observed when each was made.
//!
//! Invariant: a pooled connection belongs to one user and one target, and is never used without a new judgement.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use crate::limits;
use crate::link::{Key, Link};

struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// One thread's idle connections.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Key, Vec<Idle>, RandomState>>,
    count: Cell<usize>,
}

impl Pool {
    /// The connection that was used last among those that can be used at once, as far as is looked; else the last one, if one is
    /// open. On a busy thread the tasks of the last ones, where they have some, have not found out yet that their answer was taken.
    pub(crate) fn take(&self, key: &Key, now: Instant) -> Option<Box<Link>> {
        let mut idle = self.idle.borrow_mut();
        let links = idle.get_mut(key)?;
        let before = links.len();
        while links.pop_if(|idle| idle.link.is_closed()).is_some() {}
        let looked = links.len().saturating_sub(limits::POOL_LOOKS);
        let ready = links[looked..].iter().rposition(|idle| idle.link.is_ready());
        let found = match ready {
            Some(at) => Some(links.remove(looked + at)),
            None => links.pop(),
        };
        self.count.set(self.count.get() - (before - links.len()));
        if links.is_empty() && found.is_none() {
            idle.remove(key);
        }
        let Idle { mut link, since } = found?;
        // One that was in use a moment ago is hardly closed; if it is, nothing is sent on it.
        if now.saturating_duration_since(since) > limits::POOL_LOOK_AFTER {
            link.look();
        }
        Some(link)
    }

    /// Keeps a connection for later, unless there are enough. `now` is when it became idle.
    pub(crate) fn put(&self, mut link: Box<Link>, now: Instant) {
        link.rest();
        if link.is_closed() || self.count.get() >= limits::POOL_TOTAL {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        // The key is cloned for the first connection to a target only.
        let links = match idle.get_mut(&link.key) {
            Some(links) => links,
            None => idle.entry(link.key.clone()).or_default(),
        };
        if links.len() < limits::POOL_PER_TARGET {
            links.push(Idle { link, since: now });
            self.count.set(self.count.get() + 1);
        }
    }

    /// Closes what has been idle for so long, and forgets what the applications have closed.
    pub(crate) fn drop_idle(&self, most: Duration, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, links| {
            links.retain_mut(|idle| {
                idle.link.look();
                !idle.link.is_closed() && now.duration_since(idle.since) < most
            });
            !links.is_empty()
        });
        self.count.set(idle.values().map(Vec::len).sum());
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.count.set(0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use http::Request;
    use hyper_util::rt::TokioIo;
    use portreeve_model::{ListenerId, Owner, OwnerGroups, Tuple};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::LocalSet;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::request_body::RequestBody;

    /// Connections that stay open for as long as the other half is held.
    pub(crate) async fn links(port: u16, count: usize) -> (Vec<Box<Link>>, Vec<DuplexStream>) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (mut links, mut held) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (ours, theirs) = tokio::io::duplex(1);
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
            held.push(theirs);
            let key = Key { uid: 1, address, tls: None };
            let owner =
                Owner { uid: 1, groups: OwnerGroups::NotLooked, listener: ListenerId(1), accepted: true };
            links.push(Link::new(key, Tuple { client: address, server: address }, owner, sender, connection));
        }
        (links, held)
    }

    #[tokio::test]
    async fn it_keeps_so_many_for_one_application_and_so_many_in_all() {
        let (pool, now) = (Pool::default(), Instant::now());
        let mut all_held = Vec::new();
        for port in 1..=32 {
            let (links, held) = links(port, limits::POOL_PER_TARGET + 3).await;
            all_held.push(held);
            links.into_iter().for_each(|link| pool.put(link, now));
            let expected = (usize::from(port) * limits::POOL_PER_TARGET).min(limits::POOL_TOTAL);
            assert_eq!(pool.count.get(), expected, "after {port} applications");
        }
        pool.clear();
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn one_that_can_be_used_at_once_is_preferred() {
        LocalSet::new()
            .run_until(async {
                let (pool, now, tasks) = (Pool::default(), Instant::now(), TaskTracker::new());
                let (links, held) = links(1, limits::POOL_LOOKS + 2).await;
                let key = links[0].key.clone();
                for (number, mut link) in links.into_iter().enumerate() {
                    link.tuple.client.set_port(u16::try_from(number).unwrap());
                    // The tasks of the others have not run yet.
                    if ![0, 3].contains(&number) {
                        link.let_go(&tasks);
                    }
                    pool.put(link, now);
                }
                let last = u16::try_from(held.len() - 1).unwrap();
                let taken = || pool.take(&key, now).map(|link| link.tuple.client.port());
                // The very first one is looked at only when so few are left.
                assert_eq!(
                    (taken(), taken(), taken(), taken()),
                    (Some(3), Some(last), Some(0), Some(last - 1))
                );
                assert_eq!(pool.count.get(), held.len() - 4);
            })
            .await;
    }

    #[tokio::test]
    async fn what_is_idle_for_too_long_is_closed_and_what_closed_is_not_given_out() {
        let (pool, start, most) = (Pool::default(), Instant::now(), Duration::from_secs(30));
        let (links, mut held) = links(1, 3).await;
        let key = links[0].key.clone();
        for (age, link) in links.into_iter().enumerate() {
            pool.put(link, start + Duration::from_secs(age as u64));
        }
        pool.drop_idle(most, start + most - Duration::from_millis(1));
        assert_eq!(pool.count.get(), 3);
        pool.drop_idle(most, start + most);
        assert_eq!(pool.count.get(), 2, "the first one's time is over");
        drop(held.pop());
        pool.drop_idle(most, start + most);
        assert_eq!(pool.count.get(), 1, "the last one has closed");
        assert!(pool.take(&key, start).is_some(), "this is the one before");
        assert!(pool.take(&key, start).is_none() && pool.is_empty());
    }

    #[tokio::test]
    async fn what_closed_or_spoke_unasked_while_it_rested_carries_no_request() {
        let (pool, start) = (Pool::default(), Instant::now());
        let long = limits::POOL_LOOK_AFTER + Duration::from_millis(1);
        // After a moment nobody looks, and it is found out before anything leaves.
        for (rested, is_looked_at) in [(long, true), (limits::POOL_LOOK_AFTER, false)] {
            for what in ["nothing", "closed", "spoke"] {
                let (mut links, mut held) = links(1, 1).await;
                let (link, mut application) = (links.remove(0), held.remove(0));
                let key = link.key.clone();
                pool.put(link, start);
                match what {
                    "closed" => application.shutdown().await.unwrap(),
                    "spoke" => application.write_all(b"H").await.unwrap(),
                    _ => {}
                }
                let mut link = pool.take(&key, start + rested).unwrap();
                assert!(pool.is_empty());
                assert_eq!(link.is_closed(), is_looked_at && what != "nothing", "{what}, {rested:?}");
                if what == "nothing" {
                    continue;
                }
                let mut unsent = link.send(Request::new(RequestBody::none())).await.unwrap_err();
                assert!(unsent.take_message().is_some(), "{what}, {rested:?}: it can be sent elsewhere");
                drop(link);
                let mut heard = Vec::new();
                application.read_to_end(&mut heard).await.unwrap();
                assert_eq!(heard, b"", "{what}, {rested:?}");
            }
        }
    }
}
