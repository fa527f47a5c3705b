//! The configuration, checked. Before: the file's text. After: every process that needs a setting.
//! Invariant: a `Config` holds only values in their ranges; every problem of a file is reported at once, and an unknown
//! key is one of them, since a misspelt limit would otherwise silently not be one.
//!
//! `written` reads what stands in the file, out of `section`s; `check` judges it, value by value (`values`); both leave
//! `notes`, which become the problems.

mod check;
mod notes;
mod section;
mod values;
mod written;

pub(crate) use check::check_group;
pub(crate) use notes::Notes;
pub(crate) use section::Section;
pub(crate) use values::{duration, is_group_name, networks, number, path};
pub(crate) use written::WrittenGroup;

use crate::names::ForwardName;
use crate::network::Network;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole configuration. `Config::default()` is what an empty file gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Threads that serve requests, 0 to 64; 0: see [`Config::worker_threads`].
    pub threads: usize,
    /// `[portal]`
    pub portal: PortalConfig,
    /// `[users]`
    pub users: UsersConfig,
    /// `[sign_in]`
    pub sign_in: SignInConfig,
    /// `[session]`
    pub session: SessionConfig,
    /// `[tls]`; `None`: no certificate given.
    pub tls: Option<TlsConfig>,
    /// `[groups]`
    pub groups: GroupsConfig,
    /// `[forwards]`
    pub forwards: ForwardsConfig,
    /// `[workspace]` and each `[[cluster]]`
    pub workspace: WorkspaceConfig,
    /// `[agents]`
    pub agents: AgentsConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
}

/// Where the portal is, and who may say for whom it carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortalConfig {
    /// Its address, `https://HOST[:PORT]`: host in lower case, no port 443, no slash at its end. `None`: not said, as for
    /// `portreeve up`.
    pub url: Option<String>,
    /// More names that it answers to (`Host`), in lower case and without port; an IPv6 address in brackets.
    pub names: Vec<String>,
    /// Where applications in path form are, in the form of `url` and with the same port, at a name of its own. `None`: at `url`.
    pub apps_url: Option<String>,
    /// The domain below which every application has a host name of its own, in lower case. `None`: they share the portal's.
    pub apps_domain: Option<String>,
    /// Somebody else's application that can have no origin of its own is shown to a visitor who was told the risk; else to nobody.
    pub ask_about_foreign: bool,
    /// Whose connections must begin with a PROXY header (version 2), which says who is behind them.
    pub trusted_proxies: Vec<Network>,
    /// One record for each request.
    pub access_log: bool,
}

/// Whom a cluster's portal serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersConfig {
    /// No uid below it is served; 1 to 4294967294.
    pub first_uid: u32,
}

/// Ways in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignInConfig {
    /// Agents whose node has the role `login` are believed about who asks for a sign-in address.
    pub login_nodes: bool,
}

/// How long a sign-in lasts. `idle` is at most `lifetime`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Without a request for so long, the session ends.
    pub idle: Duration,
    /// The session ends after so long in any case.
    pub lifetime: Duration,
    /// A single-use sign-in address is good for so long.
    pub code_lifetime: Duration,
}

/// The portal's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain, PEM; absolute.
    pub certificate: PathBuf,
    /// Private key, PEM; absolute.
    pub key: PathBuf,
}

/// Which groups never grant access, and how fresh the others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsConfig {
    /// To be resolved by the caller; a name that the group database lacks grants nothing and is no error.
    pub never: Vec<GroupRef>,
    /// How often the groups of whoever is signed in are read again.
    pub refresh: Duration,
}

/// A group as the sysadmin wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GroupRef {
    /// By name.
    Name(String),
    /// By gid.
    Gid(u32),
}

/// What people start, and where it runs. Told to each user's worker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceConfig {
    /// The directory of the site's manifests; absolute.
    pub apps: PathBuf,
    /// People may have manifests of their own.
    pub own_apps: bool,
    /// The directory, sticky and open to all, in which people show a group what they ran; absolute.
    pub shared: PathBuf,
    /// Applications whose manifest allows it may run on the portal's own node.
    pub on_portal_node: bool,
    /// The program `portreeve` on all nodes; absolute.
    pub portreeve: PathBuf,
    /// The directories that people reach as files, absolute; none: all that the system lets them.
    pub roots: Vec<PathBuf>,
    /// What has a Slurm of its own.
    pub systems: Vec<SystemConfig>,
}

impl Default for WorkspaceConfig {
    fn default() -> Self {
        Self {
            apps: "/etc/portreeve/apps".into(),
            own_apps: true,
            shared: "/var/lib/portreeve/shared".into(),
            on_portal_node: false,
            portreeve: "/usr/bin/portreeve".into(),
            roots: Vec::new(),
            systems: Vec::new(),
        }
    }
}

/// A system that jobs run on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemConfig {
    /// What people call it: 1 to 32 of a-z 0-9 -, beginning with a letter.
    pub name: String,
    /// Where Slurm's commands are; absolute. `None`: where the search path has them.
    pub commands: Option<PathBuf>,
    /// Slurm's configuration; absolute. `None`: the usual one.
    pub slurm_conf: Option<PathBuf>,
}

/// Where forwards are, and which are the administrators'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardsConfig {
    /// The directory of forward files, absolute; `None`: not said, as for `portreeve up`.
    pub directory: Option<PathBuf>,
    /// Names whose file, if root's and sticky, skips the owner check.
    pub admin: Vec<ForwardName>,
}

/// Who says whose a connection's far end is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentsConfig {
    /// Who is asked.
    pub lookup: LookupConfig,
    /// Where they may connect from, by a privileged port: the weaker way. Empty: from nowhere.
    pub plain_networks: Vec<Network>,
}

/// Who is asked about connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LookupConfig {
    /// The nodes' agents.
    #[default]
    Agents,
    /// The ident2 service that listens here on the portal's node, absolute: it asks those of the other nodes.
    Ident2(PathBuf),
}

impl LookupConfig {
    /// Where the ident2 service listens that is asked, if one is.
    #[must_use]
    pub fn ident2(&self) -> Option<&Path> {
        match self {
            Self::Agents => None,
            Self::Ident2(socket) => Some(socket),
        }
    }
}

impl ForwardsConfig {
    /// Whether the sysadmin lists this name.
    #[must_use]
    pub fn is_admin(&self, name: &ForwardName) -> bool {
        self.admin.contains(name)
    }
}

/// Bounds on what a client or an application may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Client connections at once.
    pub connections: usize,
    /// Requests of one session at once, tunnels included.
    pub requests_per_session: usize,
    /// How long an application may take to its response's head.
    pub response_head: Duration,
    /// How long the body of a request may stand still.
    pub body_stall: Duration,
    /// How long a browser may take nothing of an answer that is ready for it.
    pub write_stall: Duration,
    /// How long an HTTP/2 connection may be without a request.
    pub idle_connection: Duration,
    /// How often an HTTP/2 peer is asked whether it is still there.
    pub http2_ping: Duration,
    /// How long a connection to an application is kept for the next request.
    pub pool_idle: Duration,
    /// From the signal to stop until what still runs is cut off.
    pub drain: Duration,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

impl Default for UsersConfig {
    fn default() -> Self {
        Self { first_uid: 1000 }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(8 * HOUR),
            lifetime: Duration::from_secs(24 * HOUR),
            code_lifetime: Duration::from_secs(5 * MINUTE),
        }
    }
}

impl Default for GroupsConfig {
    fn default() -> Self {
        Self {
            never: vec![GroupRef::Name("users".to_owned()), GroupRef::Gid(100)],
            refresh: Duration::from_secs(5 * MINUTE),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            requests_per_session: 512,
            response_head: Duration::from_secs(5 * MINUTE),
            body_stall: Duration::from_secs(MINUTE),
            write_stall: Duration::from_secs(2 * MINUTE),
            idle_connection: Duration::from_secs(5 * MINUTE),
            http2_ping: Duration::from_secs(30),
            pool_idle: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// How many threads to start on a machine with so many cores: as configured, or one per core and at most 8.
    #[must_use]
    pub fn worker_threads(&self, cores: usize) -> usize {
        match self.threads {
            0 => cores.clamp(1, 8),
            threads => threads,
        }
    }
}

/// One thing wrong with a configuration file: `FILE:LINE: KEY: what; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: String,
    /// Counted from 1; `None` when it is the whole file's problem.
    pub line: Option<usize>,
    /// The dotted key; empty for an error of syntax.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Problem {}

/// Reads and checks a configuration. `file` only names it in the problems.
///
/// # Errors
/// Every problem of the text, in the order of its lines.
pub fn parse(text: &str, file: &str) -> Result<Config, Vec<Problem>> {
    let (config, problems) = read(text, file);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// The configuration of a cluster's portal, which must say what `portreeve up` finds out by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// All of it.
    pub config: Config,
    /// `portal.url`
    pub url: String,
    /// `forwards.directory`
    pub forwards: PathBuf,
}

/// As [`parse`], for a cluster.
///
/// # Errors
/// Every problem of the text, in the order of its lines, and after them what is missing.
pub fn parse_cluster(text: &str, file: &str) -> Result<ClusterConfig, Vec<Problem>> {
    let Review { config, problems, for_cluster: _ } = review(text, file, true);
    match (config.portal.url.clone(), config.forwards.directory.clone()) {
        (Some(url), Some(forwards)) if problems.is_empty() => Ok(ClusterConfig { config, url, forwards }),
        _ => Err(problems),
    }
}

/// All that can be said of a file, good or not: for whoever tells people about it. Nothing may run by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// What was understood; in the place of what was refused stand defaults.
    pub config: Config,
    /// What is wrong, and what is missing.
    pub problems: Vec<Problem>,
    /// Whether it was taken for a cluster's.
    pub for_cluster: bool,
}

/// Reviews a file, as a cluster's if it is said to be one or has the address of a portal.
#[must_use]
pub fn review(text: &str, file: &str, for_cluster: bool) -> Review {
    let (config, mut problems) = read(text, file);
    // A key that was refused is not missing, and one on a broken line may be there.
    let is_noted = |problems: &[Problem], key: &str| problems.iter().any(|problem| problem.key == key);
    let for_cluster = for_cluster || config.portal.url.is_some() || is_noted(&problems, "portal.url");
    if for_cluster && !is_noted(&problems, "") {
        for (key, is_there, remedy) in [
            (
                "portal.url",
                config.portal.url.is_some(),
                "write the address that people type, such as \"https://portal.example.org\"",
            ),
            (
                "forwards.directory",
                config.forwards.directory.is_some(),
                "write the directory of forward files that all nodes share",
            ),
        ] {
            if !is_there && !is_noted(&problems, key) {
                problems.push(Problem {
                    file: file.to_owned(),
                    line: None,
                    key: key.to_owned(),
                    what: "it is missing, and a cluster needs it".to_owned(),
                    remedy: remedy.to_owned(),
                });
            }
        }
    }
    Review { config, problems, for_cluster }
}

fn read(text: &str, file: &str) -> (Config, Vec<Problem>) {
    let (written, mut notes) = written::read(text);
    let config = check::check(written, &mut notes);
    (config, notes.into_problems(text, file))
}

#[cfg(test)]
mod tests;
