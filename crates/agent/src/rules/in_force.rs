//! What of our rules is in force on this node: whether there are any, and which ports they ask about. For
//! `portreeve check --live` and `portreeve why`. Before: `iptables` and `nftables` read them.
//! Invariant: nothing is changed, and where nothing can be said nothing is.

use std::fs;
use std::io;
use std::path::Path;

use nix::unistd::Uid;
use portreeve_model::wire::firewall::{Flow, Transport};

use super::iptables::{self, Family};
use super::ports::Queues;
use super::{listeners, nftables};

const BOTH: &[Family] = &[Family::V4, Family::V6];

/// The kernel's modules, and what rules of iptables can do with a packet.
const MODULES: &str = "/proc/modules";
const TARGETS: [&str; 2] = ["/proc/net/ip_tables_targets", "/proc/net/ip6_tables_targets"];

/// Our rules for what comes in, as the packet filters have them.
#[derive(Debug)]
pub struct InForce {
    rules: Vec<Rules>,
    /// Each packet filter that is there could be read.
    is_whole: bool,
}

/// What one packet filter has, for these families.
#[derive(Debug)]
struct Rules {
    families: &'static [Family],
    lines: Vec<String>,
}

impl InForce {
    /// `None`: only root can look, or no rule can put anything into a queue. To ask iptables would load its tables, on a
    /// node that never had a firewall.
    #[must_use]
    pub fn read() -> Option<Self> {
        if !Uid::effective().is_root() || !can_queue() {
            return None;
        }
        let iptables = |family: &'static Family| {
            let table = iptables::Table::read(*family).ok()?;
            Some(table.map(|table| (std::slice::from_ref(family), table.comes_in())))
        };
        let nftables = || Some(nftables::Table::read().ok()?.map(|table| (BOTH, table.lines())));
        Self::of(BOTH.iter().map(iptables).chain([nftables()]))
    }

    /// `None` among them: a packet filter can't be read.
    fn of(texts: impl IntoIterator<Item = Option<Option<(&'static [Family], String)>>>) -> Option<Self> {
        let (mut rules, mut is_whole) = (Vec::new(), true);
        for text in texts {
            is_whole &= text.is_some();
            let Some((families, text)) = text.flatten() else { continue };
            rules.push(Rules { families, lines: text.lines().map(str::to_owned).collect() });
        }
        (!rules.is_empty()).then_some(Self { rules, is_whole })
    }

    /// Whether there is any rule by which something waits for the firewall; `None`: it is not known.
    #[must_use]
    pub fn ask_at_all(&self) -> Option<bool> {
        match self.asking().next() {
            Some(_) => Some(true),
            None => self.is_whole.then_some(false),
        }
    }

    /// The queues into which rules put what nobody takes out.
    ///
    /// # Errors
    /// When the kernel's list of queues can't be read.
    pub fn unserved(&self) -> io::Result<Vec<u16>> {
        let mut unserved = Vec::new();
        for queues in self.asking().filter_map(queues) {
            unserved.extend(listeners::unserved(queues)?);
        }
        unserved.sort_unstable();
        unserved.dedup();
        Ok(unserved)
    }

    /// The rules by which something waits for the firewall.
    fn asking(&self) -> impl Iterator<Item = &str> {
        let lines = self.rules.iter().flat_map(|rules| &rules.lines).map(String::as_str);
        lines.filter(|line| read(line).is_some_and(|(.., asks)| asks))
    }

    /// Why no packet of such a flow to this node is ever handed over, where that is so.
    #[must_use]
    pub fn leave_alone(&self, flow: &Flow) -> Option<String> {
        let port = flow.to.port();
        if !self.is_whole {
            return None;
        }
        if self.ask_at_all() == Some(false) {
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
        self.rules.iter().filter(|rules| rules.families.contains(&family)).any(|rules| {
            let mut rules = rules.lines.iter().filter_map(|line| read(line));
            rules.find(is_met).is_some_and(|(.., asks)| asks)
        })
    }
}

/// Whether any rule can put packets into a queue: the kernel has a queue open or could have at once, or the modules that such
/// rules are of are there. A rule that was restored at boot is in force before there ever was a queue.
fn can_queue() -> bool {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Path::new(listeners::OPEN).exists() || rules_can_queue(&text(MODULES), &TARGETS.map(text))
}

fn rules_can_queue(modules: &str, targets: &[String]) -> bool {
    let is_module = |line: &str| {
        let name = line.split_ascii_whitespace().next().unwrap_or_default();
        ["xt_NFQUEUE", "nft_queue"].contains(&name)
    };
    modules.lines().any(is_module)
        || targets.iter().flat_map(|text| text.lines()).any(|line| line == "NFQUEUE")
}

/// The queues of a rule.
fn queues(line: &str) -> Option<Queues> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let at = words.iter().position(|word| ["num", "--queue-num", "--queue-balance"].contains(word))?;
    let text = words.get(at + 1)?;
    let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
    Some(Queues { first: first.parse().ok()?, last: last.parse().ok()? })
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
                let read = [(BOTH, String::new()), (&BOTH[..1], text.clone())];
                let rules = InForce::of(read.clone().map(|one| Some(Some(one)))).unwrap();
                assert_eq!(rules.ask_at_all(), Some(true), "{text}");
                assert!(rules.asking().all(|line| super::queues(line) == Some(queues)), "{text}");
                // Of what could not be read more may be left alone, but nothing less.
                let part = InForce::of(read.into_iter().map(Some).map(Some).chain([None])).unwrap();
                assert_eq!(part.ask_at_all(), Some(true), "{text}");
                let at = SocketAddr::from(([0xFD77, 0, 0, 0, 0, 0, 0, 0x11], 5000));
                let left = rules.leave_alone(&Flow { transport: Tcp, from: at, to: at });
                assert!(left.is_some(), "IPv6 has no rules: {text}");
                assert_eq!(part.leave_alone(&Flow { transport: Tcp, from: at, to: at }), None);
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
        let none = none.map(|text| Some(Some((BOTH, text))));
        let part = InForce::of(none.clone().into_iter().chain([None])).unwrap();
        assert_eq!(part.ask_at_all(), None, "there may be some where it could not be seen");
        let rules = InForce::of(none).unwrap();
        assert_eq!(rules.ask_at_all(), Some(false));
        assert!(InForce::of([None, Some(None)]).is_none());
        let at = SocketAddr::from(([10, 9, 0, 1], 5000));
        let left = rules.leave_alone(&Flow { transport: Tcp, from: at, to: at });
        assert!(left.unwrap().contains("no rules are in force"));
    }

    #[test]
    fn rules_that_are_there_before_any_queue_are_looked_for() {
        let targets = |text: &str| [text.to_owned(), String::new()];
        for (modules, in_iptables, can) in [
            ("", "", false),
            ("nf_tables 311296 1 nft_queue, Live 0x0\n", "REJECT\n", false),
            ("xt_NFQUEUE 16384 6 - Live 0x0\nx_tables 53248 1 xt_NFQUEUE, Live 0x0\n", "", true),
            ("nf_tables 311296 1 - Live 0x0\nnft_queue 16384 2 - Live 0x0\n", "", true),
            ("", "REJECT\nNFQUEUE\n", true),
        ] {
            assert_eq!(rules_can_queue(modules, &targets(in_iptables)), can, "{modules} {in_iptables}");
        }
    }
}
