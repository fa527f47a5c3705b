//! Where applications are looked for: on a cluster, at the addresses of root's map of nodes; in the one-process form, on this
//! machine alone. There it also matters whether somebody who connects is on this machine.
//!
//! Invariant: no resolver is asked. An address of ours is never taken for somebody else's because the kernel could not
//! be asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portreeve_model::NodeName;

use crate::agents::Agents;
use crate::limits;

/// Names and addresses.
pub(crate) enum Nodes {
    /// This machine's.
    Here(Here),
    /// Those of the map of nodes, as it is now.
    Cluster(Arc<Agents>),
}

impl Nodes {
    pub(crate) fn of_this_machine() -> io::Result<Self> {
        Here::of_this_machine().map(Self::Here)
    }

    pub(crate) fn of_a_cluster(agents: Arc<Agents>) -> Self {
        Self::Cluster(agents)
    }

    /// The addresses of a node, in the order to try; `None` if it is none of ours.
    pub(crate) fn addresses(&self, node: &NodeName) -> Option<Vec<IpAddr>> {
        match self {
            Self::Here(here) => here.addresses(node),
            Self::Cluster(agents) => agents.nodes().addresses(node),
        }
    }

    /// Whether something that connects from this address must be looked at, because it is on the machine of the one user
    /// who is served.
    pub(crate) fn is_this_machine(&self, ip: IpAddr) -> bool {
        match self {
            Self::Here(here) => here.is_this_machine(ip),
            Self::Cluster(_) => false,
        }
    }
}

/// The names and addresses of this machine.
pub(crate) struct Here {
    /// Full and short host name, in lower case.
    names: Vec<String>,
    /// Asks the kernel for the addresses.
    ask: fn() -> io::Result<Vec<IpAddr>>,
    interfaces: Mutex<(Instant, Arc<[IpAddr]>)>,
}

impl Here {
    fn of_this_machine() -> io::Result<Self> {
        let full = portreeve_sys::host_name().unwrap_or_default().to_ascii_lowercase();
        let short = full.split('.').next().unwrap_or_default().to_owned();
        let names =
            [full, short].into_iter().filter(|name| !name.is_empty() && name != "localhost").collect();
        Self::new(names, portreeve_sys::local_addresses)
    }

    fn new(names: Vec<String>, ask: fn() -> io::Result<Vec<IpAddr>>) -> io::Result<Self> {
        Ok(Self { names, ask, interfaces: Mutex::new((Instant::now(), ask()?.into())) })
    }

    /// The addresses of a node, in the order to try; `None` if it is not this machine.
    fn addresses(&self, node: &NodeName) -> Option<Vec<IpAddr>> {
        const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if let Some(ip) = node.as_ip() {
            return (self.is_this_machine(ip) && portreeve_sys::leads_somewhere(&ip)).then(|| vec![ip]);
        }
        if node.as_str() == "localhost" {
            return Some(LOOPBACK.to_vec());
        }
        if !self.names.iter().any(|name| name == node.as_str()) {
            return None;
        }
        // A program told to listen on the host's name listens on one of these; Debian gives that name 127.0.1.1.
        let mut all: Vec<IpAddr> = self.interfaces().to_vec();
        all.retain(|ip| !ip.is_loopback() && portreeve_sys::leads_somewhere(ip));
        all.sort_by_key(IpAddr::is_ipv6);
        all.push(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1)));
        all.extend(LOOPBACK);
        Some(all)
    }

    /// Whether something that connects from this address is on this machine.
    fn is_this_machine(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.interfaces().contains(&ip)
    }

    /// Its addresses, as they are or, when the kernel can't be asked (no descriptor is free), as they were: without
    /// them, whoever connects from this machine would pass for somebody from elsewhere.
    fn interfaces(&self) -> Arc<[IpAddr]> {
        let mut known = self.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.elapsed() >= limits::ADDRESSES_FRESH
            && let Ok(addresses) = (self.ask)()
        {
            *known = (Instant::now(), addresses.into());
        }
        Arc::clone(&known.1)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static ADDRESS: Cell<Option<IpAddr>> = const { Cell::new(None) };
    }

    #[test]
    fn whoever_comes_from_a_link_local_address_of_ours_is_on_this_machine() {
        let ours: [IpAddr; 2] = ["fe80::77", "192.0.2.1"].map(|text| text.parse().unwrap());
        let ask = || Ok(["fe80::77", "192.0.2.1"].map(|text| text.parse().unwrap()).to_vec());
        let nodes = Here::new(vec!["here".to_owned()], ask).unwrap();
        assert!(ours.iter().all(|ip| nodes.is_this_machine(*ip)));
        let addresses = |node| nodes.addresses(&NodeName::parse(node).unwrap());
        assert_eq!(addresses("[fe80::77]"), None, "but nothing can be reached there");
        let here = addresses("here").unwrap();
        assert!(here.contains(&ours[1]) && !here.contains(&ours[0]), "{here:?}");
    }

    #[test]
    fn the_addresses_of_this_machine_are_asked_anew_and_never_forgotten() {
        let [first, second] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        ADDRESS.set(Some(first));
        let nodes = Here::new(vec![], || ADDRESS.get().map(|it| vec![it]).ok_or(io::ErrorKind::Other.into()))
            .unwrap();
        let grow_old = |by| {
            let mut known = nodes.interfaces.lock().unwrap();
            known.0 -= by;
        };
        ADDRESS.set(Some(second));
        assert!(nodes.is_this_machine(first) && !nodes.is_this_machine(second), "believed for a while");
        grow_old(limits::ADDRESSES_FRESH);
        assert!(nodes.is_this_machine(second) && !nodes.is_this_machine(first));
        ADDRESS.set(None);
        grow_old(limits::ADDRESSES_FRESH);
        assert!(nodes.is_this_machine(second), "nobody from this machine passes for somebody from elsewhere");
    }
}
