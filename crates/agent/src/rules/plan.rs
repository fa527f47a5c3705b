//! What has to change on this node, shown and then carried out. Before: `wanted`, `backend`.
//! Invariant: either all of it is in force in the end, or what was there before. At no moment is a port open in between:
//! what is to take another's place comes first.

use anyhow::{Context, anyhow};
use similar::TextDiff;

use super::backend::Backend;
use super::iptables::{self, Family};
use super::nftables;
use super::program::ProgramError;
use super::wanted::Wanted;

/// Changes in their order; none: all is as it should be.
#[derive(Debug, Default)]
pub(super) struct Plan {
    steps: Vec<Step>,
    /// What is to be known beside it.
    pub(super) notes: Vec<String>,
}

/// One transaction of one program.
#[derive(Debug)]
struct Step {
    tool: Tool,
    change: String,
    /// What takes it back.
    back: String,
    diff: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Iptables(Family),
    Nft,
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Iptables(family) => write!(f, "iptables, {}", family.name()),
            Self::Nft => f.write_str("nftables"),
        }
    }
}

impl Tool {
    fn run(self, change: &str, only_check: bool) -> Result<(), ProgramError> {
        match self {
            Self::Iptables(family) => iptables::restore(family, change, only_check),
            Self::Nft => nftables::apply(change, only_check),
        }
    }
}

impl Plan {
    /// What leads from the rules of this node to these: `None` to have none of ours.
    ///
    /// # Errors
    /// When the rules that are there can't be read.
    pub(super) fn look(wanted: Option<(Backend, &Wanted)>) -> anyhow::Result<Self> {
        let mut plan = Self::default();
        let (mut first, mut then) = (Vec::new(), Vec::new());
        for tool in [Tool::Iptables(Family::V4), Tool::Iptables(Family::V6), Tool::Nft] {
            let backend = match tool {
                Tool::Iptables(_) => Backend::Iptables,
                Tool::Nft => Backend::Nftables,
            };
            let rules = wanted.filter(|(asked, _)| *asked == backend).map(|(_, rules)| rules);
            if tool == Tool::Iptables(Family::V6) && !has_ipv6() {
                if rules.is_some() {
                    plan.notes.push("this kernel has no IPv6: there are no rules for it".to_owned());
                }
                continue;
            }
            match step(tool, rules) {
                Ok(step) if rules.is_some() => first.extend(step),
                Ok(step) => {
                    if step.is_some() && wanted.is_some() {
                        plan.notes.push(format!(
                            "rules for {tool} are there as well: they are taken out in the same go"
                        ));
                    }
                    then.extend(step);
                }
                Err(error) if rules.is_some() => return Err(error),
                // Of a packet filter that does not work here there are no rules.
                Err(error) => plan.notes.push(format!("{tool} was not looked at: {error:#}")),
            }
        }
        plan.steps.extend(first.into_iter().chain(then));
        Ok(plan)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Every difference, as `diff -u` writes it.
    pub(super) fn diff(&self) -> String {
        self.steps.iter().map(|step| step.diff.as_str()).collect()
    }

    /// Carries it out.
    ///
    /// # Errors
    /// What was refused. What had been changed before it is put back, or the error says that it could not be.
    pub(super) fn carry_out(&self) -> anyhow::Result<()> {
        for Step { tool, change, .. } in &self.steps {
            tool.run(change, true).with_context(|| format!("{tool}: refused, and nothing was changed"))?;
        }
        for (at, Step { tool, change, .. }) in self.steps.iter().enumerate() {
            let Err(error) = tool.run(change, false) else { continue };
            let back =
                self.steps[..at].iter().rev().map(|Step { tool, back, .. }| match tool.run(back, false) {
                    Ok(()) => format!("what had been changed before it ({tool}) was put back"),
                    Err(error) => {
                        format!("what had been changed before it ({tool}) could NOT be put back: {error}")
                    }
                });
            let back: Vec<String> = back.collect();
            let back = if at == 0 { "nothing was changed".to_owned() } else { back.join("; ") };
            let report = format!("{tool}: refused; {back}");
            return Err(anyhow!(error).context(report));
        }
        Ok(())
    }
}

/// `None`: there is nothing to change.
fn step(tool: Tool, wanted: Option<&Wanted>) -> anyhow::Result<Option<Step>> {
    let missing = |name: &str| match wanted {
        Some(_) => Err(anyhow!("there is no {name}")),
        None => Ok(None),
    };
    let made = match tool {
        Tool::Iptables(family) => {
            let Some(now) = iptables::Table::read(family)? else { return missing(family.restore()) };
            let then = now.with(wanted);
            (now != then).then(|| (now.change(&then), then.change(&now), now.lines(), then.lines()))
        }
        Tool::Nft => {
            let Some(now) = nftables::Table::read()? else { return missing("nft") };
            let then = nftables::Table::with(wanted);
            (now != then).then(|| (then.change(), now.change(), now.lines(), then.lines()))
        }
    };
    Ok(made.map(|(change, back, now, then)| {
        let (old, new) = (format!("{tool}: as it is"), format!("{tool}: as it is to be"));
        let diff = TextDiff::from_lines(&now, &then).unified_diff().header(&old, &new).to_string();
        Step { tool, change, back, diff }
    }))
}

/// Without, no socket of that family can be made, and ip6tables may have no tables.
fn has_ipv6() -> bool {
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let made = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    !matches!(made, Err(Errno::EAFNOSUPPORT))
}
