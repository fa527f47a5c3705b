//! What of our rules is in force on this node: whether there are any, and which ports they ask about. For
//! `portreeve check --live` and `portreeve why`. Before: `iptables` and `nftables` read them.
//! Invariant: nothing is changed, and where nothing can be said nothing is.

use std::path::Path;

use nix::unistd::Uid;
use portreeve_model::wire::firewall::{Flow, Transport};

use super::iptables::{self, Family};
use super::{listeners, nftables};

const BOTH: &[Family] = &[Family::V4, Family::V6];

/// Our rules for what comes in, as the packet filters have them.
#[derive(Debug)]
pub struct InForce(Vec<Rules>);

/// What one packet filter has, for these families.
#[derive(Debug)]
struct Rules {
    families: &'static [Family],
    lines: Vec<String>,
}

impl InForce {
    /// `None`: only root can look, the kernel has no queues, or a packet filter can't be read. To ask iptables would load its
    /// tables, on a node that never had a firewall.
    #[must_use]
    pub fn read() -> Option<Self> {
        if !Uid::effective().is_root() || !Path::new(listeners::OPEN).exists() {
            return None;
        }
        let mut texts = Vec::new();
        for family in BOTH {
            let table = iptables::Table::read(*family).ok()?;
            texts.extend(table.map(|table| (std::slice::from_ref(family), table.comes_in())));
        }
        texts.extend(nftables::Table::read().ok()?.map(|table| (BOTH, table.lines())));
        (!texts.is_empty()).then(|| Self::of(texts))
    }

    fn of(texts: impl IntoIterator<Item = (&'static [Family], String)>) -> Self {
        let rules = |(families, text): (_, String)| Rules {
            families,
            lines: text.lines().map(str::to_owned).collect(),
        };
        Self(texts.into_iter().map(rules).collect())
    }

    /// Whether there is any rule by which something waits for the firewall.
    #[must_use]
    pub fn ask_at_all(&self) -> bool {
        self.0.iter().flat_map(|rules| &rules.lines).any(|line| read(line).is_some_and(|(.., asks)| asks))
    }

    /// Why no packet of such a flow to this node is ever handed over, where that is so.
    #[must_use]
    pub fn leave_alone(&self, flow: &Flow) -> Option<String> {
        let port = flow.to.port();
        if !self.ask_at_all() {
            return Some(
                "But no rules are in force on this node: nobody is asked, and it goes on.".to_owned(),
            );
        }
        (!self.ask_about(flow)).then(|| {
            format!(
                "But the rules leave port {port} alone: nobody is asked, and the site's own rules decide."
            )
        })
    }

    fn ask_about(&self, flow: &Flow) -> bool {
        let (port, family) = (flow.to.port(), if flow.to.is_ipv4() { Family::V4 } else { Family::V6 });
        let protocol = match flow.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let is_met = |(of, ports, _): &(&str, (u16, u16), bool)| {
            *of == protocol && (ports.0..=ports.1).contains(&port)
        };
        // The first rule that is met decides.
        self.0.iter().filter(|rules| rules.families.contains(&family)).any(|rules| {
            let mut rules = rules.lines.iter().filter_map(|line| read(line));
            rules.find(is_met).is_some_and(|(.., asks)| asks)
        })
    }
}

/// A rule about ports to which something comes: its protocol, the first port and the last, and whether it asks; else it
/// leaves them alone.
fn read(line: &str) -> Option<(&str, (u16, u16), bool)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let at = words.iter().position(|word| ["dport", "--dport"].contains(word))?;
    let protocol = words[..at].iter().find(|word| ["tcp", "udp"].contains(word))?;
    let ports = words.get(at + 1)?;
    let (first, last) = ports.split_once(['-', ':']).unwrap_or((ports, ports));
    let asks = words.iter().any(|word| ["queue", "NFQUEUE"].contains(word));
    Some((protocol, (first.parse().ok()?, last.parse().ok()?), asks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::protected::Protected;
    use crate::rules::wanted::Wanted;
    use Transport::{Tcp, Udp};
    use portreeve_model::Port;
    use std::net::SocketAddr;

    #[test]
    fn the_rules_of_either_packet_filter_say_what_they_ask_about() {
        let slurm =
            Protected { ports: "6817-6820".parse().unwrap(), what: "x".to_owned(), from: "x".to_owned() };
        for queues in ["0", "0-3"] {
            let queues = queues.parse().unwrap();
            let wanted = Wanted::new(queues, Port::new(2000).unwrap(), vec![slurm.clone()], true);
            let iptables = iptables::Table::default().with(Some(&wanted)).comes_in();
            let nftables = nftables::Table::with(Some(&wanted)).lines();
            for text in [&iptables, &nftables] {
                let rules = InForce::of([(BOTH, String::new()), (&BOTH[..1], text.clone())]);
                assert!(rules.ask_at_all(), "{text}");
                let at = SocketAddr::from(([0xFD77, 0, 0, 0, 0, 0, 0, 0x11], 5000));
                let left = rules.leave_alone(&Flow { transport: Tcp, from: at, to: at });
                assert!(left.is_some(), "IPv6 has no rules: {text}");
                for (transport, port, asks) in [
                    (Tcp, 1999, false),
                    (Tcp, 2000, true),
                    (Tcp, 6816, true),
                    (Tcp, 6817, false),
                    (Tcp, 6820, false),
                    (Tcp, 6821, true),
                    (Tcp, 65_535, true),
                    (Udp, 1999, false),
                    (Udp, 6817, true),
                ] {
                    let at = |port| SocketAddr::from(([10, 9, 0, 1], port));
                    let left = rules.leave_alone(&Flow { transport, from: at(2000), to: at(port) });
                    assert_eq!(left.is_none(), asks, "{transport:?} {port}: {text}");
                    let said = left.is_none_or(|left| left.contains(&format!("leave port {port} alone")));
                    assert!(said, "{port}");
                }
            }
        }
    }

    #[test]
    fn where_none_of_our_rules_is_nothing_is_asked_about() {
        let none = [iptables::Table::default().comes_in(), nftables::Table::with(None).lines()];
        let rules = InForce::of(none.map(|text| (BOTH, text)));
        assert!(!rules.ask_at_all());
        let at = SocketAddr::from(([10, 9, 0, 1], 5000));
        let left = rules.leave_alone(&Flow { transport: Tcp, from: at, to: at });
        assert!(left.unwrap().contains("no rules are in force"));
    }
}
