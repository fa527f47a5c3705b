//! What the person has listening: on this machine in `up`, on the nodes of a cluster as their agents say.
//!
//! Invariant: a link leads through the portal (`/fw2/...`), whatever somebody calls a program or a node.

use std::net::IpAddr;

use portreeve_model::wire::agent::Row;
use portreeve_model::wire::worker::{NodeView, Rows};
use portreeve_model::{NodeName, NodePort, Port};

use super::links::{Link, Links};
use super::shown::shown;
use crate::limits;

/// A row of the page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PortRow {
    pub(super) label: String,
    /// Where it is opened; `None` when it can't be reached.
    pub(super) link: Option<String>,
    pub(super) command: String,
    pub(super) job: Option<u32>,
    /// Where else.
    pub(super) also: Option<String>,
    /// How it gets its paths, if it was opened.
    pub(super) paths: Option<&'static str>,
    pub(super) reach: String,
}

fn command(row: &Row) -> String {
    shown(row.command.as_deref().unwrap_or_default(), limits::COMMAND)
}

impl PortRow {
    pub(super) fn here(row: &Row, links: &Links<'_>) -> Self {
        let port = row.port;
        // A socket on every address is reached by the name that is shortest to type.
        let (label, reach) = match row.address {
            ip if ip.is_unspecified() => (format!("localhost:{port}"), "every address of this machine"),
            ip if ip.to_canonical() == IpAddr::from([127, 0, 0, 1]) => {
                (format!("localhost:{port}"), "this machine only")
            }
            IpAddr::V4(ip) if ip.is_loopback() => (format!("{ip}:{port}"), "this machine only"),
            IpAddr::V6(ip) if ip.is_loopback() => (format!("[{ip}]:{port}"), "this machine only"),
            IpAddr::V4(ip) => (format!("{ip}:{port}"), "this address"),
            IpAddr::V6(ip) => (format!("[{ip}]:{port}"), "this address"),
        };
        let place = NodePort::parse(&label).ok();
        let Link { link, also, paths } = links.port(place.as_ref());
        Self { label, link, command: command(row), job: None, also, paths, reach: reach.to_owned() }
    }
}

/// The rows of all nodes, and a line for each one of which not all is known.
pub(super) fn on_nodes(nodes: &[NodeView], links: &Links<'_>) -> (Vec<PortRow>, Vec<String>) {
    let (mut rows, mut doubts) = (Vec::new(), Vec::new());
    for at in nodes {
        match &at.listening {
            Ok(Rows { rows: found, more }) => {
                rows.extend(found.iter().map(|row| on_node(at, row, links)));
                if *more {
                    doubts.push(format!("{} has more than is shown here.", at.node));
                }
            }
            Err(why) => doubts.push(format!("{} can't be asked: {}.", at.node, shown(why, limits::CLAUSE))),
        }
    }
    (rows, doubts)
}

fn on_node(at: &NodeView, row: &Row, links: &Links<'_>) -> PortRow {
    let node = &at.node;
    let ip = row.address.to_canonical();
    let is_known = at.addresses.contains(&ip);
    let (host, reach) = if ip.is_unspecified() {
        (Some(node.clone()), format!("every address of {node}"))
    } else if is_known && at.addresses.len() == 1 {
        (Some(node.clone()), format!("the address of {node}"))
    } else if is_known {
        // By the node's name the others would be tried as well.
        (NodeName::from_ip(ip).ok(), format!("one address of {node}"))
    } else if ip.is_loopback() {
        let why = "it listens on the loopback address, which nobody outside that node reaches";
        (None, format!("{node} alone: {why}"))
    } else {
        (None, format!("not through the portal, which does not know this address of {node}"))
    };
    let port = Port::new(row.port).filter(|port| !port.is_privileged());
    let place = host.zip(port).map(|(node, port)| NodePort { node, port });
    let Link { link, also, paths } = links.port(place.as_ref());
    PortRow {
        label: place.as_ref().map_or_else(|| literal(node, ip, row.port), NodePort::to_string),
        link,
        command: command(row),
        job: row.job,
        also,
        paths,
        reach,
    }
}

/// What can't be opened is no address to be copied.
fn literal(node: &NodeName, ip: IpAddr, port: u16) -> String {
    format!("port {port} of {ip} on {node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn node(name: &str, addresses: &[&str], listens: &[(&str, u16)]) -> NodeView {
        let row = |(address, port): &(&str, u16)| Row {
            address: ip(address),
            port: *port,
            command: Some("python".to_owned()),
            job: Some(7),
        };
        NodeView {
            node: NodeName::parse(name).unwrap(),
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            listening: Ok(Rows { rows: listens.iter().map(row).collect(), more: false }),
        }
    }

    fn links(name: &str, addresses: &[&str], listens: (&str, u16)) -> Option<String> {
        let (mut rows, doubts) = on_nodes(&[node(name, addresses, &[listens])], &Links::default());
        assert!(doubts.is_empty());
        rows.pop().unwrap().link
    }

    #[test]
    fn the_address_to_open() {
        let one = &["10.0.0.1"][..];
        let two = &["10.0.0.1", "10.1.0.1", "2001:db8::1"][..];
        for (name, addresses, listens, expected) in [
            ("c1", one, ("0.0.0.0", 8888), Some("/fw2/c1:8888/")),
            ("c1", two, ("::", 8888), Some("/fw2/c1:8888/")),
            ("c1", one, ("10.0.0.1", 8888), Some("/fw2/c1:8888/")),
            ("c1", two, ("10.1.0.1", 8888), Some("/fw2/10.1.0.1:8888/")),
            ("c1", two, ("::ffff:10.1.0.1", 8888), Some("/fw2/10.1.0.1:8888/")),
            ("c1", two, ("2001:db8::1", 8888), Some("/fw2/[2001:db8::1]:8888/")),
            // Nobody outside reaches these.
            ("c1", one, ("127.0.0.1", 8888), None),
            ("c1", one, ("127.0.1.1", 8888), None),
            ("c1", one, ("::1", 8888), None),
            // The portal's own node, where root has listed it.
            ("c1", &["127.0.0.1"], ("127.0.0.1", 8888), Some("/fw2/c1:8888/")),
            // Not in the map: the portal would refuse it.
            ("c1", one, ("172.17.0.1", 8888), None),
            ("c1", one, ("fe80::1", 8888), None),
            ("c1", &[], ("10.0.0.1", 8888), None),
            // Nor would it open these.
            ("c1", one, ("0.0.0.0", 80), None),
            ("c1", one, ("0.0.0.0", 0), None),
        ] {
            assert_eq!(links(name, addresses, listens).as_deref(), expected, "{addresses:?} {listens:?}");
        }
    }

    #[test]
    fn what_can_not_be_opened_says_why() {
        let (rows, _) = on_nodes(&[node("c1", &["10.0.0.1"], &[("127.0.0.1", 8888)])], &Links::default());
        assert_eq!(rows[0].label, "port 8888 of 127.0.0.1 on c1");
        assert!(rows[0].reach.contains("nobody outside that node"), "{}", rows[0].reach);
    }

    #[test]
    fn a_node_that_can_not_be_asked_has_a_line() {
        let mut silent = node("c2", &["10.0.0.2"], &[]);
        silent.listening = Err("no agent is connected".to_owned());
        let mut full = node("c3", &["10.0.0.3"], &[("0.0.0.0", 8888)]);
        full.listening = full.listening.map(|rows| Rows { more: true, ..rows });
        let (rows, doubts) = on_nodes(&[silent, full], &Links::default());
        assert_eq!(rows.len(), 1);
        assert_eq!(doubts, ["c2 can't be asked: no agent is connected.", "c3 has more than is shown here."]);
    }
}
