//! The rules for iptables: a chain of our own in the table `mangle`, and one jump to it, the first rule of INPUT.
//! `mangle` and not `filter`: what a queue accepts skips the rest of its table, and the site's own rules in `filter`,
//! which comes later, are to decide as well.
//! Invariant: no command names any other chain's rule but that jump, and each is one transaction.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::program::{self, ProgramError, printable};
use super::wanted::{Other, Rule, Wanted};

/// Our chain.
pub(super) const CHAIN: &str = "PORTREEVE-FIREWALL";
const TABLE: &str = "mangle";
const JUMP: &str = "-A INPUT -j PORTREEVE-FIREWALL";
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

/// What of the table matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    /// INPUT's rules, our jump among them, as iptables writes them.
    input: Vec<String>,
    /// Our chain's; `None`: there is no such chain.
    chain: Option<Vec<String>>,
}

impl Table {
    /// As it is now. `None`: this family's programs are not installed.
    ///
    /// # Errors
    /// When it can't be read, or something else than our jump leads to our chain.
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
            if line.split_ascii_whitespace().next().and_then(|word| word.strip_prefix(':')) == Some(CHAIN) {
                table.chain.get_or_insert_default();
            } else if line.split_ascii_whitespace().nth(1) == Some(CHAIN) {
                table.chain.get_or_insert_default().push(canonical(&line));
            } else {
                let is_ours = line.split_ascii_whitespace().any(|word| word == CHAIN);
                ensure!(
                    !is_ours || line == JUMP || !line.starts_with('-'),
                    "a rule that is not ours leads to {CHAIN}: {line}; remove it first"
                );
                if line.starts_with("-A INPUT ") {
                    table.input.push(line);
                }
            }
        }
        Ok(table)
    }

    /// As it should be.
    pub(super) fn with(&self, wanted: Option<&Wanted>) -> Self {
        let mut input: Vec<String> = self.input.iter().filter(|rule| *rule != JUMP).cloned().collect();
        if wanted.is_some() {
            input.insert(0, JUMP.to_owned());
        }
        let rules = |wanted: &Wanted| {
            wanted.rules().into_iter().map(|rule| canonical(&write(rule, wanted))).collect()
        };
        Self { input, chain: wanted.map(rules) }
    }

    /// Its lines, to be compared by a person.
    pub(super) fn lines(&self) -> String {
        let mut lines: Vec<&str> = self.input.iter().map(String::as_str).collect();
        let new = format!("-N {CHAIN}");
        if let Some(chain) = &self.chain {
            lines.push(&new);
            lines.extend(chain.iter().map(String::as_str));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Where in INPUT our jump is, from 1 on.
    fn jumps(&self) -> Vec<usize> {
        (1..).zip(&self.input).filter(|(_, rule)| *rule == JUMP).map(|(at, _)| at).collect()
    }

    /// What makes this table the other one, for iptables-restore --noflush.
    pub(super) fn change(&self, to: &Self) -> String {
        let mut text = format!("*{TABLE}\n");
        if to.chain.is_some() {
            // Makes the chain, or empties it.
            text.push_str(&format!(":{CHAIN} - [0:0]\n"));
        }
        if self.jumps() != to.jumps() {
            for _ in self.jumps() {
                text.push_str(&format!("-D INPUT -j {CHAIN}\n"));
            }
            for at in to.jumps() {
                text.push_str(&format!("-I INPUT {at} -j {CHAIN}\n"));
            }
        }
        match &to.chain {
            Some(rules) => text.extend(rules.iter().map(|rule| format!("{rule}\n"))),
            None if self.chain.is_some() => text.push_str(&format!("-F {CHAIN}\n-X {CHAIN}\n")),
            None => {}
        }
        text.push_str("COMMIT\n");
        text
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
    let mut text = format!(
        "# {}: {} --noflush, on a node without them.\n\
         *{TABLE}\n\
         :{CHAIN} - [0:0]\n\
         # What the firewall accepts skips the rest of INPUT in this table, and goes on to the site's rules in filter.\n\
         -I INPUT 1 -j {CHAIN}\n",
        family.name(),
        family.restore()
    );
    for rule in wanted.rules() {
        text.extend(rule.why().iter().map(|line| format!("# {line}\n")));
        text.push_str(&write(rule, wanted));
        text.push('\n');
    }
    text.push_str("# Whatever gets here goes on with the site's own rules.\nCOMMIT\n");
    text
}

/// A rule, word by word as iptables-save has it: so is known whether it is there already.
fn write(rule: Rule<'_>, wanted: &Wanted) -> String {
    let queue = if wanted.queues.first == wanted.queues.last {
        format!("NFQUEUE --queue-num {}", wanted.queues.first)
    } else {
        format!("NFQUEUE --queue-balance {}:{} --queue-cpu-fanout", wanted.queues.first, wanted.queues.last)
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
    format!("-A {CHAIN} {rule}")
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
