//! Flows of UDP that were let through. The kernel's table of connections takes a flow for the same as long as datagrams
//! come, whoever has the port by now. So each is remembered with the sockets that could get it; when there is another one, or
//! after a while, the kernel is made to forget it, and its next datagram is judged anew.
//! Invariant: a flow that is let through is either remembered here, or the kernel does not know it. What it knew before
//! the firewall started is forgotten then.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use portreeve_model::wire::firewall::Flow;
use portreeve_sys::Connections;

use super::audit::Seldom;
use super::limits;
use crate::lookup::{Lookup, Takers};

const MOST: NonZeroUsize = NonZeroUsize::new(limits::FLOWS).expect("not 0");
/// Of the flows, one part is looked at in one go, since packets wait meanwhile. Their sockets are read at once, as a round begins.
const PARTS: usize = 20;

/// The flows that one queue has let through.
pub(super) struct Flows {
    connections: Connections,
    watched: LruCache<Flow, Watched>,
    /// Still to be looked at before the next round.
    round: Vec<Flow>,
    /// When the round began, and which sockets there were then.
    begun: Instant,
    sockets: Takers,
    failed: Seldom,
}

/// Which sockets could get it, and when both ends were judged.
struct Watched {
    cookies: Vec<u64>,
    judged: Instant,
    /// Its time is over; it is watched until the kernel does not know it any more.
    over: bool,
}

impl Flows {
    pub(super) fn open() -> std::io::Result<Self> {
        Ok(Self {
            connections: Connections::open()?,
            watched: LruCache::new(MOST),
            round: Vec::new(),
            begun: Instant::now(),
            sockets: Takers::default(),
            failed: Seldom::new(),
        })
    }

    /// Has all flows to and from this node forgotten that nobody watches yet: they were let through by another firewall,
    /// or none, and who began them is not known. How many there were.
    pub(super) fn begin(&mut self, is_ours: impl Fn(SocketAddr) -> bool) -> std::io::Result<usize> {
        let mut known = self.connections.udp_flows()?;
        known.retain(|(from, to)| is_ours(*from) || is_ours(*to));
        for (from, to) in &known {
            self.connections.forget_udp(*from, *to)?;
        }
        Ok(known.len())
    }

    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }

    /// How long until [`look`](Self::look) should be called again, for each flow to be looked at once a second.
    pub(super) fn pause() -> Duration {
        limits::FLOWS_LOOK / u32::try_from(PARTS).unwrap_or(1)
    }

    /// Whether this datagram is of a flow that was let through to the same sockets, not long ago.
    pub(super) fn knows(&mut self, flow: &Flow, cookies: &[u64], again: Duration) -> bool {
        let known = self.watched.get(flow);
        known.is_some_and(|known| !known.over && known.cookies == cookies && known.judged.elapsed() < again)
    }

    /// The flow is let through.
    pub(super) fn remember(&mut self, flow: &Flow, cookies: Vec<u64>) {
        let watched = Watched { cookies, judged: Instant::now(), over: false };
        if let Some((given_up, _)) = self.watched.push(*flow, watched)
            && given_up != *flow
        {
            self.forget(&given_up);
        }
    }

    /// Looks at a part of them, and has those forgotten whose time is over or whose sockets are others now. How many.
    pub(super) fn look(&mut self, lookup: &Lookup, again: Duration) -> u64 {
        if self.round.is_empty() && !self.watched.is_empty() {
            self.begin_round(lookup);
        }
        let mut forgotten = 0;
        let part = self.watched.len().div_ceil(PARTS).min(self.round.len());
        for flow in self.round.split_off(self.round.len() - part) {
            let Some(watched) = self.watched.peek_mut(&flow) else { continue };
            let is_still = watched.judged >= self.begun || self.sockets.are_among(&flow, &watched.cookies);
            if !watched.over && watched.judged.elapsed() < again && is_still {
                continue;
            }
            forgotten += u64::from(!watched.over);
            watched.over = true;
            if !self.forget(&flow) {
                self.watched.pop(&flow);
            }
        }
        forgotten
    }

    /// All sockets that could get them are looked for in one go. Where they can't be, there are none.
    fn begin_round(&mut self, lookup: &Lookup) {
        self.round = self.watched.iter().map(|(flow, _)| *flow).collect();
        self.begun = Instant::now();
        let sockets = lookup.takers(self.round.iter().map(|flow| flow.to.port()));
        self.sockets = sockets.unwrap_or_else(|error| {
            if self.failed.now() {
                tracing::warn!(%error, "the sockets of UDP can't be read: flows are asked about again");
            }
            Takers::default()
        });
    }

    /// In both directions: once a flow is forgotten, a datagram from this node begins it anew the other way round, and
    /// the next one that comes is then taken for the answer. Whether the kernel knew it.
    fn forget(&mut self, flow: &Flow) -> bool {
        let mut knew = false;
        for (from, to) in [(flow.from, flow.to), (flow.to, flow.from)] {
            match self.connections.forget_udp(from, to) {
                Ok(known) => knew |= known,
                Err(error) => {
                    if self.failed.now() {
                        tracing::warn!(
                            %error, %from, %to,
                            "the kernel can't be made to forget a flow of UDP: it goes on as it was judged"
                        );
                    }
                    knew = true;
                }
            }
        }
        knew
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sys::socket::{setsockopt, sockopt};
    use portreeve_model::wire::firewall::Transport;

    use super::*;
    use crate::firewall::tests::{ALICE, BOB, alone, one_of, shell, skip};
    use crate::lookup::tests::FORKS;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn what_the_kernel_knows_is_forgotten_at_the_start_and_in_time() {
        alone(&["10.9.0.1/32", "10.9.0.2/32"], || {
            // With this, the kernel keeps its table here.
            if !shell("iptables -t mangle -A INPUT -p udp -m conntrack --ctstate NEW") {
                return skip("needs iptables and conntrack");
            }
            let [one, other] = ["10.9.0.1:0", "10.9.0.2:0"].map(|at| UdpSocket::bind(at).unwrap());
            let (to, from) = (one.local_addr().unwrap(), other.local_addr().unwrap());
            let (mut flows, mut connections) = (Flows::open().unwrap(), Connections::open().unwrap());
            for is_ours in [from, to] {
                other.send_to(b"x", to).unwrap();
                assert_eq!(connections.udp_flows().unwrap(), [(from, to)]);
                // What this node only passes on is not ours to forget.
                assert_eq!(flows.begin(|_| false).unwrap(), 0);
                assert_eq!(connections.udp_flows().unwrap(), [(from, to)]);
                assert_eq!(flows.begin(|end| end == is_ours).unwrap(), 1);
                assert_eq!(connections.udp_flows().unwrap(), []);
            }
            // The same for one that is watched, when its time is over. It stays watched until the kernel has no more of it.
            let (flow, lookup) = (Flow { transport: Transport::Udp, from, to }, Lookup::open().unwrap());
            other.send_to(b"x", to).unwrap();
            flows.remember(&flow, vec![1]);
            for (forgotten, watched) in [(1, 1), (0, 0)] {
                assert_eq!((flows.look(&lookup, Duration::ZERO), flows.len()), (forgotten, watched));
                assert_eq!(connections.udp_flows().unwrap(), []);
                assert!(!flows.knows(&flow, &[1], LONG));
            }
        });
    }

    #[test]
    fn a_flow_is_known_for_its_sockets_and_for_a_while() {
        let end = |text: &str| text.parse().unwrap();
        let lookup = Lookup::open().unwrap();
        for to in ["224.0.0.251:9", "[ff02::fb]:9", "127.0.0.1:9"] {
            let from = if to.starts_with('[') { end("[2001:db8::2]:9") } else { end("192.0.2.2:9") };
            let flow = Flow { transport: Transport::Udp, from, to: end(to) };
            let mut flows = Flows::open().unwrap();
            assert!(!flows.knows(&flow, &[1, 2], LONG));
            flows.remember(&flow, vec![1, 2]);
            assert!(flows.knows(&flow, &[1, 2], LONG));
            for others in [&[1, 2, 3][..], &[1], &[1, 3], &[]] {
                assert!(!flows.knows(&flow, others, LONG), "{to} {others:?}");
            }
            assert!(!flows.knows(&flow, &[1, 2], Duration::ZERO), "its time is over");
            let back = Flow { from: flow.to, to: flow.from, ..flow };
            assert!(!flows.knows(&back, &[1, 2], LONG));
            // Nobody has such sockets.
            assert_eq!(flows.look(&lookup, LONG), 1, "{to}");
            assert!(!flows.knows(&flow, &[1, 2], LONG));
        }
    }

    #[test]
    fn a_flow_goes_on_while_no_other_socket_could_get_it() {
        alone(&["10.9.0.1/32"], || {
            let _quiet = FORKS.read().unwrap();
            let lookup = Lookup::open().unwrap();
            let alices = one_of(ALICE, 0);
            let to = SocketAddr::from(([10, 9, 0, 1], alices.local_addr().unwrap().port()));
            let flow = Flow { transport: Transport::Udp, from: "192.0.2.2:9".parse().unwrap(), to };
            let mut flows = Flows::open().unwrap();
            let judged = |flows: &mut Flows| {
                let cookies: Vec<u64> =
                    lookup.goes_to(&flow, 0).unwrap().iter().map(|end| end.cookie).collect();
                flows.remember(&flow, cookies.clone());
                (0..3).map(|_| flows.look(&lookup, LONG)).sum::<u64>() == 0
                    && flows.knows(&flow, &cookies, LONG)
            };
            assert!(judged(&mut flows));
            // One more who may get it, although the kernel would not name him but for his interface.
            let bobs = one_of(BOB, to.port());
            setsockopt(&bobs, sockopt::BindToDevice, &"lo".into()).unwrap();
            assert_eq!(flows.look(&lookup, LONG), 1);
            assert!(judged(&mut flows), "both of them");
            drop(bobs);
            assert!(judged(&mut flows));
            drop(alices);
            assert_eq!(flows.look(&lookup, LONG), 1, "nobody has it");
        });
    }

    #[test]
    fn what_was_judged_since_the_sockets_were_read_is_for_the_next_round() {
        alone(&["10.9.0.1/32"], || {
            let lookup = Lookup::open().unwrap();
            let mut flows = Flows::open().unwrap();
            let flow = |port| {
                let end = |port| SocketAddr::from(([10, 9, 0, 1], port));
                Flow { transport: Transport::Udp, from: end(9), to: end(port) }
            };
            let all: Vec<Flow> = (5000..5000 + 2 * PARTS as u16).map(flow).collect();
            for flow in &all {
                flows.remember(flow, vec![1]);
            }
            assert_eq!(flows.look(&lookup, LONG), 2, "a part");
            let waits = *flows.round.last().unwrap();
            flows.remember(&waits, vec![1]);
            assert_eq!(flows.look(&lookup, LONG), 1, "the other one of its part");
            assert!(flows.knows(&waits, &[1], LONG));
        });
    }
}
