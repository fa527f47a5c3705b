//! What the rules say, whichever packet filter they are written for. Before: the options, and `protected`. After:
//! `iptables` and `nftables` write it down.
//! Invariant: no rule accepts anything. What a rule does not ask about or drop goes on to the site's own rules.

use portreeve_model::Port;

use super::ports::{Ports, Queues};
use super::protected::Protected;

/// All that the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) queues: Queues,
    /// Ports from here on are asked about.
    pub(super) first: Port,
    /// Without those below `first`, each port once, in order.
    protected: Vec<Protected>,
    drop_others: bool,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule<'w> {
    /// TCP to these ports is left to the site's rules.
    Leave(&'w Protected),
    /// A segment that can begin a connection is asked about.
    AskTcp,
    /// A datagram of no known flow is asked about.
    AskUdp,
    /// A datagram that leaves and was not answered yet: is it its sender's own port that it comes from?
    AskSender,
    /// What would begin anything over this protocol is dropped.
    Drop(Other),
}

/// Protocols that any user's program may speak where the kernel has them, and that the firewall can't judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    UdpLite,
    Sctp,
    Dccp,
    /// Without ports.
    L2tp,
}

impl Wanted {
    /// `protected` in the order of whoever found them.
    pub(super) fn new(queues: Queues, first: Port, protected: Vec<Protected>, drop_others: bool) -> Self {
        let mut wanted = Self { queues, first, protected: Vec::new(), drop_others };
        for mut one in protected.into_iter().filter(|one| one.ports.last >= first) {
            one.ports.first = one.ports.first.max(first);
            if !wanted.protected.iter().any(|other| other.ports == one.ports) {
                wanted.protected.push(one);
            }
        }
        wanted.protected.sort_by_key(|one| one.ports);
        wanted
    }

    /// The rules, in their order.
    pub(super) fn rules(&self) -> Vec<Rule<'_>> {
        let mut rules: Vec<Rule<'_>> = self.protected.iter().map(Rule::Leave).collect();
        rules.extend([Rule::AskTcp, Rule::AskUdp]);
        if self.drop_others {
            rules.extend([Other::UdpLite, Other::Sctp, Other::Dccp, Other::L2tp].map(Rule::Drop));
        }
        rules
    }

    /// The rules for what leaves, in their order.
    pub(super) fn senders(&self) -> Vec<Rule<'_>> {
        vec![Rule::AskSender]
    }

    /// The ports that are asked about.
    pub(super) fn asked(&self) -> Ports {
        Ports { first: self.first, last: Port::new(u16::MAX).unwrap_or(self.first) }
    }
}

impl Rule<'_> {
    /// Why it is there, in lines of a comment.
    pub(super) fn why(self) -> Vec<String> {
        let lines: &[&str] = match self {
            Self::Leave(one) => {
                return vec![format!(
                    "{}, by {}: not asked about, so that it is never cut off.",
                    one.what, one.from
                )];
            }
            Self::AskTcp => &[
                "TCP: no connection begins without a SYN, and each SYN is asked about, on the loopback interface as well. The state",
                "that conntrack has for it does not matter: right after a reset, a SYN to the next owner of the port would still",
                "count as ESTABLISHED. Nothing else of TCP is asked about, so that no connection that is open is ever cut.",
            ],
            Self::AskUdp => &[
                "UDP: a datagram is asked about unless conntrack has its flow as ESTABLISHED, which it is once there was an answer.",
                "RELATED, INVALID and UNTRACKED are asked about, too; multicast and broadcast like everything else. This rule also",
                "makes the kernel put fragments together before rules see them.",
            ],
            Self::AskSender => &[
                "UDP that leaves, by the port that it comes from: who gets it asks whose that port is, and a program can write",
                "another user's there. While nobody serves the queue it leaves unasked (bypass), or names could not be looked up;",
                "the firewall ends what began meanwhile.",
            ],
            Self::Drop(Other::UdpLite) => &[
                "Any user may speak these four where the kernel has them, and the firewall does not judge them.",
                "--other-protocols allow leaves them open.",
            ],
            Self::Drop(Other::Sctp | Other::Dccp) => &[],
            Self::Drop(Other::L2tp) => &["L2TP over IP, which has no ports."],
        };
        lines.iter().map(|line| (*line).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_port_is_left_once_and_only_where_it_would_be_asked_about() {
        let one = |ports: &str, what: &str| Protected {
            ports: ports.parse().unwrap(),
            what: what.into(),
            from: "x".into(),
        };
        let found = vec![
            one("6818", "b"),
            one("22", "sshd"),
            one("6817", "a"),
            one("1000-1030", "c"),
            one("6818", "d"),
        ];
        let wanted = Wanted::new("0".parse().unwrap(), Port::new(1024).unwrap(), found, true);
        let left: Vec<(String, &str)> =
            wanted.protected.iter().map(|one| (one.ports.to_string(), one.what.as_str())).collect();
        let expected = [("1024-1030", "c"), ("6817", "a"), ("6818", "b")];
        assert_eq!(left, expected.map(|(ports, what)| (ports.to_owned(), what)));
    }
}
