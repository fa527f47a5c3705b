//! The packet filter's rules that bring new connections to the firewall: printed, installed, removed. Begin reading at
//! `install`.
//! Invariant: nothing is changed before it is shown; no rule but our own is touched, and no connection that is open is
//! cut.
//!
//! | file | |
//! | --- | --- |
//! | `protected.rs` | which ports stay reachable without the firewall: sshd's, Slurm's |
//! | `wanted.rs` | what the rules say |
//! | `backend.rs` | which packet filter they are written for |
//! | `iptables.rs`, `nftables.rs` | how they are written for it, and what of them is there now |
//! | `plan.rs` | the difference, shown and carried out |
//! | `listeners.rs` | whether the firewall runs |
//! | `in_force.rs` | what of them is in force, for whoever asks |

mod backend;
mod in_force;
mod iptables;
mod listeners;
mod nftables;
mod plan;
mod ports;
mod program;
mod protected;
mod wanted;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use nix::unistd::Uid;
use portreeve_model::Port;

use backend::{Backend, Choice};
pub use in_force::InForce;
use iptables::Family;
use plan::Plan;
use ports::{Ports, Queues};
use wanted::Wanted;

use crate::firewall::read_config;

/// The port from which on any user may listen, by the kernel's word.
const UNPRIVILEGED: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// What is said where the firewall only answers other nodes.
const UNGUARDED: &str =
    "no rules: the firewall's configuration has no queue, so this node is not guarded (queues = \"\")";

/// What `print` says of all rules.
const TO_BE_KNOWN: [&str; 4] = [
    "a protected port is open to everybody: where its daemon does not run, a user can listen there",
    "Slurm's SrunPortRange is not protected: slurmstepd, which connects to it, is root and exempt; a user who does is asked about",
    "rules last until the next start: portreeve-firewall.service runs portreeve-agent rules install whenever it starts",
    "packets that this node forwards, to containers or virtual machines with a network of their own, are not asked about",
];

/// `portreeve-agent rules`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the rules with the reason for each; nothing is changed
    Print(Options),
    /// Show what differs from the rules that are there, then put ours in place in one go; with no difference, do nothing
    Install {
        #[command(flatten)]
        options: Options,
        /// Show the difference, and end
        #[arg(long)]
        dry_run: bool,
        /// Install them even if nobody serves the queues: every new connection is dropped then
        #[arg(long)]
        without_daemon: bool,
    },
    /// Show our rules, then take them out; nothing else is touched
    Remove {
        /// Show the difference, and end
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// The packet filter [default: nftables where nft and the kernel can queue, else iptables]
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Queues that the firewall serves, 0 or 0-3 [default: as in its configuration]
    #[arg(long, value_name = "A-B")]
    queues: Option<Queues>,
    /// The firewall's configuration; need not be there if it is not named
    #[arg(long, value_name = "FILE", default_value = crate::firewall::CONFIG)]
    config: PathBuf,
    /// TCP ports that stay reachable without the firewall, beside those of sshd and Slurm's daemons
    #[arg(long, value_name = "PORT,...", value_delimiter = ',')]
    protect: Vec<Ports>,
    /// What becomes of UDP-Lite, SCTP, DCCP and L2TP, which the firewall can't judge
    #[arg(long, value_enum, default_value = "drop")]
    other_protocols: OtherProtocols,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OtherProtocols {
    /// Nothing new begins over them
    Drop,
    /// They are left to the site's rules
    Allow,
}

/// Prints, installs or removes the rules.
///
/// # Errors
/// When it can't; nothing is changed then, or the error says what is.
pub fn rules(arguments: &Arguments) -> anyhow::Result<()> {
    let out = &mut io::stdout().lock();
    match &arguments.command {
        Command::Print(options) => print(options, out),
        Command::Install { options, dry_run, without_daemon } => {
            install(options, *dry_run, *without_daemon, out)
        }
        Command::Remove { dry_run } => remove(*dry_run, out),
    }
}

fn print(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    let Some((wanted, choice, mut notes)) = decide(options)? else { return say(out, UNGUARDED) };
    notes.extend(TO_BE_KNOWN.map(str::to_owned));
    let mut text = comment(&notes);
    match choice.backend {
        Backend::Iptables => {
            for family in [Family::V4, Family::V6] {
                text.push('\n');
                text.push_str(&iptables::text(family, &wanted));
            }
        }
        Backend::Nftables => {
            text.push('\n');
            text.push_str(&nftables::text(&wanted));
        }
    }
    out.write_all(text.as_bytes()).context("the rules can't be written")
}

fn install(
    options: &Options,
    dry_run: bool,
    without_daemon: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    need_root("install")?;
    let Some((wanted, choice, mut notes)) = decide(options)? else {
        say(out, UNGUARDED)?;
        return remove(dry_run, out);
    };
    let plan = Plan::look(Some((choice.backend, &wanted)))?;
    notes.extend_from_slice(&plan.notes);
    show(out, &notes, &plan)?;
    if plan.is_empty() {
        return say(out, "nothing to do: the rules are there, as they should be");
    }
    let unserved = listeners::unserved(wanted.queues).context("the kernel's list of queues can't be read")?;
    let unserved: Vec<String> = unserved.iter().map(u16::to_string).collect();
    let nobody =
        format!("nobody serves queue {}: every new connection would be dropped", unserved.join(", "));
    if dry_run {
        if !unserved.is_empty() {
            say(out, &nobody)?;
        }
        return say(out, "nothing was changed (--dry-run)");
    }
    ensure!(
        unserved.is_empty() || without_daemon,
        "{nobody}; nothing was changed. Start the firewall first (systemctl start portreeve-firewall), or say --without-daemon"
    );
    plan.carry_out()?;
    say(
        out,
        "installed. They last until the next start: portreeve-firewall.service installs them whenever it starts",
    )
}

fn remove(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    need_root("remove")?;
    let plan = Plan::look(None)?;
    show(out, &plan.notes, &plan)?;
    if plan.is_empty() {
        return say(out, "nothing to do: there are no rules of ours");
    }
    if dry_run {
        return say(out, "nothing was changed (--dry-run)");
    }
    plan.carry_out()?;
    say(out, "removed: every user can connect to every port that the site's own rules leave open")
}

fn need_root(what: &str) -> anyhow::Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    bail!("rules {what} needs root: the packet filter is root's. rules print does not")
}

/// What the rules are to be, for which packet filter, and what is to be known about both. `None`: the firewall serves no
/// queue on this node.
fn decide(options: &Options) -> anyhow::Result<Option<(Wanted, Choice, Vec<String>)>> {
    let config = read_config(&options.config)?;
    let Some(queues) = options.queues.or_else(|| config.queues.map(Queues::from)) else { return Ok(None) };
    let first = config.first_port;
    let choice = backend::choose(options.backend, Uid::effective().is_root())?;
    let found = protected::find(&options.protect);
    let mut notes = vec![
        format!("backend: {} ({})", choice.backend, choice.why),
        format!(
            "queues: {}; ports from {} on. What is in a queue waits for portreeve-agent firewall; when nobody serves it, it is \
             dropped",
            queues, first
        ),
    ];
    for one in &found.protected {
        let below = if one.ports.last < first { ", below the first port" } else { "" };
        notes.push(format!("protected: {}, {} ({}){below}", one.ports, one.what, one.from));
    }
    notes.extend(found.notes);
    notes.extend(fs::read_to_string(UNPRIVILEGED).ok().and_then(|text| too_low(&text, first)));
    let drop_others = options.other_protocols == OtherProtocols::Drop;
    let wanted = Wanted::new(queues, first, found.protected, drop_others);
    Ok(Some((wanted, choice, notes)))
}

/// A warning, where users may listen on ports that are not asked about.
fn too_low(unprivileged: &str, first: Port) -> Option<String> {
    let start: u16 = unprivileged.trim().parse().ok()?;
    (start < first.get()).then(|| {
        format!(
            "WARNING: users may listen on ports from {start} on (net.ipv4.ip_unprivileged_port_start), and those below {first} \
             are not asked about"
        )
    })
}

fn show(out: &mut impl Write, notes: &[String], plan: &Plan) -> anyhow::Result<()> {
    let text = format!("{}{}", comment(notes), plan.diff());
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("what would change can't be shown")
}

fn comment(notes: &[String]) -> String {
    notes.iter().map(|note| format!("# {note}\n")).collect()
}

fn say(out: &mut impl Write, what: &str) -> anyhow::Result<()> {
    writeln!(out, "{what}").context("the outcome can't be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_users_may_take_are_asked_about() {
        let first = Port::new(1024).unwrap();
        assert_eq!(too_low("1024\n", first), None);
        assert_eq!(too_low("2000\n", first), None);
        assert_eq!(too_low("x", first), None);
        assert!(too_low("80\n", first).unwrap().contains("from 80 on"));
        assert!(too_low("0\n", first).is_some());
    }
}
