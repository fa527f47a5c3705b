//! The rules for nftables: one table of our own with two chains, behind the site's filter. A chain that accepts a packet
//! ends only itself, so that both must let a connection through.
//! Invariant: no command names any other table.

use std::time::Duration;

use super::program::{self, ProgramError, printable};
use super::wanted::{Other, Rule, Wanted};

const TABLE: &str = "inet portreeve";
/// Behind `filter` (0), and before `security` (50).
const PRIORITY: i32 = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Our table, as nft has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// `None`: it is not there.
    text: Option<String>,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        let lines = |table: &Self| table.text.as_deref().map(canonical);
        lines(self) == lines(other)
    }
}

/// Whether nft is there, and this kernel has its queue statement.
///
/// # Errors
/// What nft says.
pub(super) fn can_queue() -> Result<(), ProgramError> {
    let table = "table inet portreeve-check {\n chain input {\n  type filter hook input priority 20; policy accept;\n  \
                 tcp dport 1024-65535 queue num 0\n }\n}\n";
    apply(table, true)
}

impl Table {
    /// As it is now. `None`: there is no nft.
    ///
    /// # Errors
    /// When nft can't be asked.
    pub(super) fn read() -> Result<Option<Self>, ProgramError> {
        let tables = match program::run("nft", &["list", "tables", "inet"], "", PATIENCE) {
            Ok(tables) => tables,
            Err(ProgramError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !tables.lines().any(|line| line.trim() == "table inet portreeve") {
            return Ok(Some(Self::default()));
        }
        let text = program::run("nft", &["--stateless", "list", "table", "inet", "portreeve"], "", PATIENCE)?;
        Ok(Some(Self { text: Some(printable(&text)) }))
    }

    /// As it should be.
    pub(super) fn with(wanted: Option<&Wanted>) -> Self {
        Self { text: wanted.map(|wanted| table(wanted, false)) }
    }

    /// Its lines, to be compared by a person.
    pub(super) fn lines(&self) -> String {
        let lines = self.text.as_deref().map(canonical).unwrap_or_default();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// What makes this table of any other one, for nft -f.
    pub(super) fn change(&self) -> String {
        // Naming it makes it, so that there is always one to be deleted.
        format!("table {TABLE}\ndelete table {TABLE}\n{}", self.text.as_deref().unwrap_or_default())
    }
}

/// Has the change carried out, or only looked at.
///
/// # Errors
/// When nft refuses; nothing is changed then.
pub(super) fn apply(change: &str, only_check: bool) -> Result<(), ProgramError> {
    let arguments: &[&str] = if only_check { &["--check", "-f", "-"] } else { &["-f", "-"] };
    program::run("nft", arguments, change, PATIENCE).map(drop)
}

/// For a person, and for nft -f.
pub(super) fn text(wanted: &Wanted) -> String {
    format!(
        "# IPv4 and IPv6: nft -f. The first two lines take out a table that is there already, in the same transaction.\n\
         table {TABLE}\n\
         delete table {TABLE}\n{}",
        table(wanted, true)
    )
}

fn table(wanted: &Wanted, explained: bool) -> String {
    let mut text = format!("table {TABLE} {{\n\tchain input {{\n");
    if explained {
        text.push_str(
            "\t\t# Behind the site's filter (priority 0). What either of the two drops is dropped: the firewall sees what the\n\
             \t\t# site's rules let through, and accepts it for this chain alone.\n",
        );
    }
    text.push_str(&format!("\t\ttype filter hook input priority {PRIORITY}; policy accept;\n"));
    add(&mut text, &wanted.rules(), wanted, explained);
    text.push_str(&format!(
        "\t}}\n\tchain output {{\n\t\ttype filter hook output priority {PRIORITY}; policy accept;\n"
    ));
    add(&mut text, &wanted.senders(), wanted, explained);
    text.push_str("\t}\n}\n");
    text
}

fn add(text: &mut String, rules: &[Rule<'_>], wanted: &Wanted, explained: bool) {
    for rule in rules {
        if explained {
            text.extend(rule.why().iter().map(|line| format!("\t\t# {line}\n")));
        }
        text.push_str(&format!("\t\t{}\n", write(*rule, wanted)));
    }
}

/// In a form that every nft since 0.9 reads.
fn write(rule: Rule<'_>, wanted: &Wanted) -> String {
    let asked = wanted.asked();
    let fanout = if wanted.queues.first == wanted.queues.last { "" } else { " fanout" };
    let queue = format!("queue num {}{fanout}", wanted.queues);
    match rule {
        Rule::Leave(one) => format!("tcp dport {} counter return", one.ports),
        Rule::AskTcp => format!("tcp dport {asked} tcp flags & (syn | rst | ack) == syn counter {queue}"),
        Rule::AskUdp => format!("udp dport {asked} ct state invalid,new,related,untracked counter {queue}"),
        Rule::AskSender => {
            let flags = if fanout.is_empty() { " bypass" } else { " bypass,fanout" };
            let queue = format!("queue num {}{flags}", wanted.queues);
            format!("udp sport {asked} ct state invalid,new,related,untracked counter {queue}")
        }
        Rule::Drop(other) => {
            let what = match other {
                Other::UdpLite => format!("udplite dport {asked}"),
                Other::Sctp => format!("sctp dport {asked}"),
                Other::Dccp => format!("dccp dport {asked}"),
                Other::L2tp => "meta l4proto 115".to_owned(),
            };
            format!("{what} ct state new,related,untracked counter drop")
        }
    }
}

/// The lines of a table in one of the forms that nft has written them in over the years.
fn canonical(table: &str) -> Vec<String> {
    table.lines().map(str::trim).filter(|line| !line.is_empty()).map(canonical_line).collect()
}

fn canonical_line(line: &str) -> String {
    let line = line
        .replace("tcp flags syn / syn,rst,ack", "tcp flags & (syn | rst | ack) == syn")
        .replace("tcp flags & (syn|rst|ack) == syn", "tcp flags & (syn | rst | ack) == syn")
        .replace("meta l4proto l2tp", "meta l4proto 115");
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    // `queue flags fanout to 0-3`, `queue to 0`.
    if let Some(at) = words.iter().position(|word| word == "queue") {
        let rest: Vec<&str> = words[at + 1..].iter().map(String::as_str).collect();
        let queue = match rest[..] {
            ["flags", flags, "to", queues] => {
                let mut flags: Vec<&str> = flags.split(',').collect();
                flags.sort_unstable();
                Some(format!("num {queues} {}", flags.join(",")))
            }
            ["to", queues] => Some(format!("num {queues}")),
            _ => None,
        };
        if let Some(queue) = queue {
            words.truncate(at + 1);
            words.push(queue);
        }
    }
    for at in 2..words.len() {
        if words[at - 2] == "ct" && words[at - 1] == "state" {
            let mut states: Vec<&str> = words[at].split(',').collect();
            states.sort_unstable();
            words[at] = states.join(",");
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests;
