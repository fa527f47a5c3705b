//! To whom datagrams of many flows go. For the firewall's looks at flows of UDP. Before: the flows. After: whether each goes
//! on.
//! Invariant: the kernel is asked once, or for a few ports once for each, however many flows there are; and a user is named
//! only if nobody else has a socket that could take the flow's datagrams, whichever of them the kernel picks and whatever
//! interface one is bound to.

use std::collections::HashMap;
use std::io;

use portreeve_model::wire::firewall::Flow;
use portreeve_sys::SocketRecord;

use super::Lookup;
use super::ends::{MOST, takes};

/// So many ports are asked about one by one. For each the kernel goes through all sockets, and yet it is some 20 times cheaper
/// than to be told of all of them.
const FEW: usize = 8;

/// The sockets of UDP on some ports, as they were at one look. Of none, by default.
#[derive(Default)]
pub(crate) struct Takers {
    /// `None`: more than [`MOST`].
    on_port: HashMap<u16, Option<Vec<SocketRecord>>>,
    /// The uid that is nobody's.
    nobody: u32,
}

impl Lookup {
    /// All sockets of UDP on these ports.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub(crate) fn takers(&self, ports: impl Iterator<Item = u16>) -> io::Result<Takers> {
        let mut on_port: HashMap<u16, Option<Vec<SocketRecord>>> =
            ports.map(|port| (port, Some(Vec::new()))).collect();
        let mut diag = self.diag();
        if on_port.len() <= FEW {
            for (port, found) in &mut on_port {
                *found = diag.udp_on(*port, MOST)?;
            }
        } else {
            diag.all_udp(&mut |record| {
                if let Some(on_port) = on_port.get_mut(&record.local.port())
                    && let Some(found) = on_port
                {
                    found.push(record);
                    if found.len() > MOST {
                        *on_port = None;
                    }
                }
            })?;
        }
        Ok(Takers { on_port, nobody: self.nobody })
    }
}

impl Takers {
    /// The one user who gets datagrams of this flow.
    pub(crate) fn user(&self, flow: &Flow) -> Option<u32> {
        let mut uids = self.of(flow)?.map(|record| record.uid);
        let first = uids.next().filter(|uid| ![self.nobody, u32::MAX].contains(uid))?;
        uids.all(|uid| uid == first).then_some(first)
    }

    /// Whether some sockets get datagrams of this flow, and each of them has one of these cookies.
    pub(crate) fn are_among(&self, flow: &Flow, cookies: &[u64]) -> bool {
        let mut takers = self.of(flow).into_iter().flatten().map(|record| record.cookie).peekable();
        takers.peek().is_some() && takers.all(|cookie| cookies.contains(&cookie))
    }

    /// All that take its datagrams; `None`: more than were looked at.
    fn of(&self, flow: &Flow) -> Option<impl Iterator<Item = &SocketRecord>> {
        let on_port = self.on_port.get(&flow.to.port())?.as_ref()?;
        Some(on_port.iter().filter(|record| record.inode != 0 && takes(record, flow)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use nix::sys::socket::{setsockopt, sockopt};
    use portreeve_model::wire::firewall::Transport;

    use super::*;
    use crate::firewall::tests::{ALICE, BOB, alone, one_of};
    use crate::lookup::tests::FORKS;

    const STRANGER: &str = "192.0.2.9:53";

    /// Who gets a datagram that comes from a stranger to this port.
    fn user(lookup: &Lookup, from: &str, port: u16) -> Option<u32> {
        let to = SocketAddr::from(([10, 9, 0, 1], port));
        let flow = Flow { transport: Transport::Udp, from: from.parse().unwrap(), to };
        // Others are looked for at the same time: few, and many.
        let [by_few, by_many] = [3, FEW as u16 + 1].map(|others| {
            let ports = (0..others).map(|number| 9 + number).chain([port]);
            lookup.takers(ports).unwrap().user(&flow)
        });
        assert_eq!(by_few, by_many);
        by_few
    }

    #[test]
    fn whoever_shares_a_port_leaves_it_nobodys_alone_whatever_interface_is_theirs() {
        alone(&["10.9.0.1/32"], || {
            let _quiet = FORKS.read().unwrap();
            let lookup = Lookup::open().unwrap();
            let alices = one_of(ALICE, 0);
            let port = alices.local_addr().unwrap().port();
            assert_eq!(user(&lookup, STRANGER, port), Some(ALICE));
            let second = one_of(ALICE, port);
            assert_eq!(user(&lookup, STRANGER, port), Some(ALICE), "both are hers");
            let bobs = one_of(BOB, port);
            assert_eq!(user(&lookup, STRANGER, port), None);
            // The kernel names one that is bound to an interface only if it is asked for that interface.
            setsockopt(&bobs, sockopt::BindToDevice, &"lo".into()).unwrap();
            let flow = Flow {
                transport: Transport::Udp,
                from: STRANGER.parse().unwrap(),
                to: SocketAddr::from(([10, 9, 0, 1], port)),
            };
            assert_eq!(lookup.diag().udp(flow.to, flow.from).unwrap().unwrap().uid, ALICE);
            assert_eq!(user(&lookup, STRANGER, port), None);
            // Connected to somebody else, it takes nothing of the stranger's.
            bobs.connect("10.9.0.1:9").unwrap();
            assert_eq!(user(&lookup, STRANGER, port), Some(ALICE));
            assert_eq!(user(&lookup, "10.9.0.1:9", port), None);
            drop((alices, second));
            assert_eq!(user(&lookup, STRANGER, port), None, "hers are gone");
            assert_eq!(user(&lookup, "10.9.0.1:9", port), Some(BOB));
        });
    }

    #[test]
    fn a_nobody_and_too_many_are_no_user() {
        alone(&["10.9.0.1/32"], || {
            let _quiet = FORKS.read().unwrap();
            let lookup = Lookup::open().unwrap();
            let first = one_of(lookup.nobody, 0);
            let port = first.local_addr().unwrap().port();
            assert_eq!(user(&lookup, STRANGER, port), None);
            drop(first);
            let mut sockets: Vec<UdpSocket> = (0..MOST).map(|_| one_of(ALICE, port)).collect();
            assert_eq!(user(&lookup, STRANGER, port), Some(ALICE));
            sockets.push(one_of(ALICE, port));
            assert_eq!(user(&lookup, STRANGER, port), None, "one that was not kept could be another's");
        });
    }

    #[test]
    fn of_a_port_that_was_not_looked_for_nobody_is_known() {
        let lookup = Lookup::open().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let flow = Flow { transport: Transport::Udp, from: "127.0.0.1:9".parse().unwrap(), to };
        let me = nix::unistd::geteuid().as_raw();
        assert_eq!(lookup.takers([to.port()].into_iter()).unwrap().user(&flow), Some(me));
        assert_eq!(lookup.takers([9].into_iter()).unwrap().user(&flow), None);
        assert_eq!(Takers::default().user(&flow), None);
    }
}
