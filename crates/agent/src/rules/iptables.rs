//! The rules for iptables: chains of our own in the table `mangle`, and one jump to each, the first rule of INPUT and of
//! OUTPUT.
//! `mangle` and not `filter`: what a queue accepts skips the rest of its table, and the site's own rules in `filter`,
//! which comes later, are to decide as well.
//! Invariant: no command names any other chain's rule but these jumps, and each is one transaction.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::program::{self, ProgramError, printable};
use super::wanted::{Other, Rule, Wanted};

const TABLE: &str = "mangle";
/// Longer than iptables waits for its lock.
const PATIENCE: Duration = Duration::from_secs(20);

/// IPv4 and IPv6 have tables of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn save(self) -> &'static str {
        match self {
            Self::V4 => "iptables-save",
            Self::V6 => "ip6tables-save",
        }
    }

    pub(super) fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }
}

/// Where a chain of ours hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    Input,
    Output,
}

const HOOKS: [Hook; 2] = [Hook::Input, Hook::Output];

impl Hook {
    /// The kernel's chain.
    fn builtin(self) -> &'static str {
        match self {
            Self::Input => "INPUT",
            Self::Output => "OUTPUT",
        }
    }

    /// Ours.
    fn chain(self) -> &'static str {
        match self {
            Self::Input => "PORTREEVE-FIREWALL",
            Self::Output => "PORTREEVE-SENDERS",
        }
    }

    fn jump(self) -> String {
        format!("-A {} -j {}", self.builtin(), self.chain())
    }

    fn rules(self, wanted: &Wanted) -> Vec<Rule<'_>> {
        match self {
            Self::Input => wanted.rules(),
            Self::Output => wanted.senders(),
        }
    }
}

/// What of the table matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    /// For each of `HOOKS`.
    hooked: [Hooked; HOOKS.len()],
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Hooked {
    /// The builtin chain's rules, our jump among them, as iptables writes them.
    builtin: Vec<String>,
    /// Our chain's; `None`: there is no such chain.
    chain: Option<Vec<String>>,
}

impl Table {
    /// As it is now. `None`: this family's programs are not installed.
    ///
    /// # Errors
    /// When it can't be read, or something else than our jumps leads to our chains.
    pub(super) fn read(family: Family) -> anyhow::Result<Option<Self>> {
        match program::run(family.save(), &["-t", TABLE], "", PATIENCE) {
            Ok(text) => Self::parse(&text).with_context(|| format!("{}'s rules", family.name())).map(Some),
            Err(ProgramError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn parse(saved: &str) -> anyhow::Result<Self> {
        let mut table = Self::default();
        for line in saved.lines().map(|line| printable(line.trim())) {
            let mut words = line.split_ascii_whitespace();
            let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            for (hook, hooked) in HOOKS.iter().zip(&mut table.hooked) {
                let ours = hook.chain();
                if first.strip_prefix(':') == Some(ours) {
                    hooked.chain.get_or_insert_default();
                } else if second == ours {
                    hooked.chain.get_or_insert_default().push(canonical(&line));
                } else {
                    let is_named = line.split_ascii_whitespace().any(|word| word == ours);
                    ensure!(
                        !is_named || line == hook.jump() || !line.starts_with('-'),
                        "a rule that is not ours leads to {ours}: {line}; remove it first"
                    );
                    if first == "-A" && second == hook.builtin() {
                        hooked.builtin.push(line.clone());
                    }
                }
            }
        }
        Ok(table)
    }

    /// As it should be.
    pub(super) fn with(&self, wanted: Option<&Wanted>) -> Self {
        let mut table = self.clone();
        for (hook, hooked) in HOOKS.into_iter().zip(&mut table.hooked) {
            let jump = hook.jump();
            hooked.builtin.retain(|rule| *rule != jump);
            if wanted.is_some() {
                hooked.builtin.insert(0, jump);
            }
            hooked.chain = wanted.map(|wanted| {
                let rules = hook.rules(wanted).into_iter();
                rules.map(|rule| canonical(&write(hook, rule, wanted))).collect()
            });
        }
        table
    }

    /// Its lines, to be compared by a person.
    pub(super) fn lines(&self) -> String {
        let builtin = self.hooked.iter().flat_map(|hooked| hooked.builtin.iter().cloned());
        let ours = HOOKS.iter().zip(&self.hooked).flat_map(|(hook, hooked)| {
            let new = hooked.chain.as_ref().map(|_| format!("-N {}", hook.chain()));
            new.into_iter().chain(hooked.chain.iter().flatten().cloned())
        });
        builtin.chain(ours).map(|line| format!("{line}\n")).collect()
    }

    /// The lines that decide about what comes in; none where nothing leads to them.
    pub(super) fn comes_in(&self) -> String {
        let [input, _] = &self.hooked;
        let lines = input.chain.iter().flatten().filter(|_| !input.jumps(Hook::Input).is_empty());
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// What makes this table the other one, for iptables-restore --noflush.
    pub(super) fn change(&self, to: &Self) -> String {
        let mut text = format!("*{TABLE}\n");
        let all = || HOOKS.into_iter().zip(self.hooked.iter().zip(&to.hooked));
        for (hook, (_, then)) in all() {
            if then.chain.is_some() {
                // Makes the chain, or empties it.
                text.push_str(&format!(":{} - [0:0]\n", hook.chain()));
            }
        }
        for (hook, (now, then)) in all() {
            let (builtin, chain) = (hook.builtin(), hook.chain());
            if now.jumps(hook) != then.jumps(hook) {
                for _ in now.jumps(hook) {
                    text.push_str(&format!("-D {builtin} -j {chain}\n"));
                }
                for at in then.jumps(hook) {
                    text.push_str(&format!("-I {builtin} {at} -j {chain}\n"));
                }
            }
            match &then.chain {
                Some(rules) => text.extend(rules.iter().map(|rule| format!("{rule}\n"))),
                None if now.chain.is_some() => text.push_str(&format!("-F {chain}\n-X {chain}\n")),
                None => {}
            }
        }
        text.push_str("COMMIT\n");
        text
    }
}

impl Hooked {
    /// Where in the builtin chain our jump is, from 1 on.
    fn jumps(&self, hook: Hook) -> Vec<usize> {
        let jump = hook.jump();
        (1..).zip(&self.builtin).filter(|(_, rule)| **rule == jump).map(|(at, _)| at).collect()
    }
}

/// Has the change carried out, or only looked at.
///
/// # Errors
/// When iptables refuses; nothing is changed then.
pub(super) fn restore(family: Family, change: &str, only_test: bool) -> Result<(), ProgramError> {
    let mut arguments = vec!["--noflush", "-w", "5"];
    if only_test {
        arguments.push("--test");
    }
    program::run(family.restore(), &arguments, change, PATIENCE).map(drop)
}

/// For a person, and for iptables-restore --noflush on a node without them.
pub(super) fn text(family: Family, wanted: &Wanted) -> String {
    let mut text =
        format!("# {}: {} --noflush, on a node without them.\n*{TABLE}\n", family.name(), family.restore());
    for hook in HOOKS {
        let (builtin, chain) = (hook.builtin(), hook.chain());
        text.push_str(&format!(
            ":{chain} - [0:0]\n\
             # What the firewall accepts skips the rest of {builtin} in this table, and goes on to the site's rules in filter.\n\
             -I {builtin} 1 -j {chain}\n"
        ));
        for rule in hook.rules(wanted) {
            text.extend(rule.why().iter().map(|line| format!("# {line}\n")));
            text.push_str(&write(hook, rule, wanted));
            text.push('\n');
        }
    }
    text.push_str("# Whatever gets here goes on with the site's own rules.\nCOMMIT\n");
    text
}

/// A rule, word by word as iptables-save has it: so is known whether it is there already.
fn write(hook: Hook, rule: Rule<'_>, wanted: &Wanted) -> String {
    let bypass = if rule == Rule::AskSender { " --queue-bypass" } else { "" };
    let queue = if wanted.queues.first == wanted.queues.last {
        format!("NFQUEUE --queue-num {}{bypass}", wanted.queues.first)
    } else {
        let (first, last) = (wanted.queues.first, wanted.queues.last);
        format!("NFQUEUE --queue-balance {first}:{last}{bypass} --queue-cpu-fanout")
    };
    let asked = wanted.asked().written(':');
    let rule = match rule {
        Rule::Leave(one) => format!("-p tcp -m tcp --dport {} -j RETURN", one.ports.written(':')),
        Rule::AskTcp => format!("-p tcp -m tcp --dport {asked} --tcp-flags SYN,RST,ACK SYN -j {queue}"),
        Rule::AskUdp => {
            format!(
                "-p udp -m udp --dport {asked} -m conntrack --ctstate INVALID,NEW,RELATED,UNTRACKED -j {queue}"
            )
        }
        Rule::AskSender => {
            format!(
                "-p udp -m udp --sport {asked} -m conntrack --ctstate INVALID,NEW,RELATED,UNTRACKED -j {queue}"
            )
        }
        Rule::Drop(other) => {
            let protocol = match other {
                Other::UdpLite => "udplite",
                Other::Sctp => "sctp",
                Other::Dccp => "dccp",
                Other::L2tp => "115",
            };
            let ports = match other {
                Other::UdpLite | Other::Sctp | Other::Dccp => format!(" -m multiport --dports {asked}"),
                Other::L2tp => String::new(),
            };
            format!("-p {protocol}{ports} -m conntrack --ctstate NEW,RELATED,UNTRACKED -j DROP")
        }
    };
    format!("-A {} {rule}", hook.chain())
}

/// With one name for each protocol: iptables-save takes it from a table of its own, or from /etc/protocols.
fn canonical(rule: &str) -> String {
    let mut before = "";
    let words = rule.split(' ').map(|word| {
        let is_protocol = before == "-p";
        before = word;
        match word {
            "6" if is_protocol => "tcp",
            "17" if is_protocol => "udp",
            "33" if is_protocol => "dccp",
            "132" if is_protocol => "sctp",
            "136" if is_protocol => "udplite",
            "l2tp" if is_protocol => "115",
            _ => word,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
