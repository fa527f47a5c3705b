//! Which packet filter the rules are written for.

use clap::ValueEnum;

use super::nftables;
use super::program;

/// The two that Linux has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    /// iptables and ip6tables, whichever of their two kinds the system has
    Iptables,
    /// nft, where the kernel has its queue statement
    Nftables,
}

/// One of them, and why.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) backend: Backend,
    pub(super) why: String,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What was asked for, or nftables where it can do it, or iptables. Only root can ask the kernel what it can do.
///
/// # Errors
/// When nothing was asked for, and neither is there.
pub(super) fn choose(asked: Option<Backend>, is_root: bool) -> anyhow::Result<Choice> {
    let choice = |backend, why: String| Ok(Choice { backend, why });
    if let Some(backend) = asked {
        return choice(backend, "asked for by --backend".to_owned());
    }
    let has_iptables =
        program::find("iptables-restore").is_some() && program::find("ip6tables-restore").is_some();
    let why_not = match (program::find("nft"), is_root) {
        (None, _) => "there is no nft".to_owned(),
        (Some(_), false) => {
            let why = "nft is there; whether the kernel has its queue statement only root can find out";
            return choice(Backend::Nftables, why.to_owned());
        }
        (Some(_), true) => match nftables::can_queue() {
            Ok(()) => {
                return choice(
                    Backend::Nftables,
                    "nft is there, and the kernel has its queue statement".to_owned(),
                );
            }
            Err(error) => format!("nft can't queue here: {error}"),
        },
    };
    anyhow::ensure!(has_iptables, "{why_not}, and neither are iptables-restore and ip6tables-restore there");
    choice(Backend::Iptables, why_not)
}
