//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use portreeve_model::{CertificatePin, ForwardName, PathMode};

/// Reach your web applications on this machine from a browser, and let nobody else in.
#[derive(Debug, Parser)]
#[command(name = "portreeve", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the portal for yourself on this machine
    Up(Up),
    /// Print a fresh address that signs you in: at your running portal, or at the cluster's
    Login(Login),
    /// On a cluster: end all your sessions and access tokens
    SignOut(crate::sessions::SignOut),
    /// Show what of yours listens where, and by which address it is opened
    Listening(crate::listening::Listening),
    /// On a cluster: make, list and revoke access tokens for programs
    Token(crate::token::Token),
    /// Make, list, change and share lasting names for applications
    Forward(Forward),
    /// Show your jobs that wait or run
    Jobs(crate::workspace::Jobs),
    /// Start an application, as its form in the workspace does
    LaunchApp(crate::workspace::LaunchApp),
    /// End jobs
    Cancel(crate::workspace::Cancel),
    /// Show what you ever started, or one of it with its script and output
    History(crate::workspace::History),
    /// Copy a file to the portal's file system, or from there
    Cp(crate::workspace::Cp),
    /// Show which applications can be started, and check their manifests
    Apps(crate::apps::Apps),
    /// Start a web program with a port and a secret of its own, say when it answers, and follow it to its end
    Launch(crate::launch::Launch),
    /// Show a shell or another interactive program in the browser
    Terminal(crate::terminal::Terminal),
    /// Run a job's script and note how that went; the workspace has its jobs call this
    #[command(hide = true)]
    Batch,
    /// Report every problem of a configuration, and with --live of a cluster's portal node
    Check(crate::check::Check),
    /// On a node with the firewall: say what becomes of a connection, and why
    Why(crate::why::Why),
    /// On a cluster: make, show and revoke the keys of nodes' agents
    Keys(crate::keys::Keys),
    /// On a cluster: show the nodes and their agents, and keep the map of nodes
    Nodes(crate::nodes::Nodes),
    /// On a cluster: show who is signed in (root)
    Sessions(crate::sessions::Sessions),
    /// On a cluster: end all sessions and access tokens of a user (root)
    Revoke(crate::sessions::Revoke),
    /// Print the completions of a shell
    Completions(crate::documents::Completions),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(crate::documents::Man),
}

/// `portreeve up`
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) state: StateDir,
    /// Directory of forward files [default: the configured one, or forwards in the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) forwards: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Answer /metrics, /health and /ready at this address, or at a unix socket of this path
    #[arg(long, value_name = "ADDR|PATH")]
    pub(crate) metrics: Option<MetricsAt>,
}

/// Where metrics are.
#[derive(Debug, Clone)]
pub(crate) enum MetricsAt {
    Address(SocketAddr),
    Path(PathBuf),
}

impl std::str::FromStr for MetricsAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if text.contains('/') => Ok(Self::Path(text.into())),
            Err(_) => Err("neither an address such as 127.0.0.1:9464 nor a path with a slash"),
        }
    }
}

/// Where a portal keeps its keys, certificate and forwards.
#[derive(Debug, Args)]
pub(crate) struct StateDir {
    /// State directory [default: $XDG_STATE_HOME/portreeve, or ~/.local/state/portreeve]
    #[arg(long = "state", value_name = "DIR", global = true)]
    pub(crate) dir: Option<PathBuf>,
}

/// `portreeve login`
#[derive(Debug, Args)]
pub(crate) struct Login {
    #[command(flatten)]
    pub(crate) state: StateDir,
    #[command(flatten)]
    pub(crate) socket: crate::cluster::LoginSocket,
}

/// `portreeve forward`
#[derive(Debug, Args)]
pub(crate) struct Forward {
    #[command(subcommand)]
    pub(crate) action: ForwardAction,
    #[command(flatten)]
    pub(crate) state: StateDir,
    /// Directory of forward files [default: your running portal's, the cluster's, or forwards in the state directory]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) forwards: Option<PathBuf>,
}

/// `portreeve forward ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ForwardAction {
    /// Point NAME at an application; an existing forward of yours is changed
    Add {
        /// Letters, digits and . _ -
        name: ForwardNameArgument,
        /// Address such as http://localhost:8888/, or just localhost:8888 or 8888; on a cluster http://NODE:8888/, NODE:8888 or
        /// 8888
        target: String,
        /// With https: SHA-256 of the certificate that the application must show, in hex
        #[arg(long, value_name = "SHA256", value_parser = parse_pin)]
        pin: Option<CertificatePin>,
        /// How the application wants its paths below /fw/NAME/: with that prefix (keep) or without (strip) [default: found out
        /// from its answers]
        #[arg(long, value_name = "keep|strip", value_parser = PathMode::parse)]
        mode: Option<PathMode>,
        /// Tell the application its own HOST:PORT as the Host of requests, and not the portal's
        #[arg(long)]
        target_host: bool,
    },
    /// Show your forwards
    List,
    /// Switch a forward off; its name stays yours
    Disable {
        /// The forward
        name: ForwardNameArgument,
    },
    /// Remove a forward; its name is free again
    Remove {
        /// The forward
        name: ForwardNameArgument,
    },
    /// Let the members of a group use a forward
    Share {
        /// The forward
        name: ForwardNameArgument,
        /// Name of the group; you must be a member
        #[arg(long)]
        group: String,
    },
}

/// The fingerprint with `sha256:` before it, as in a forward file, or alone, as `openssl` prints it.
fn parse_pin(text: &str) -> Result<CertificatePin, portreeve_model::ForwardFileError> {
    if text.starts_with("sha256:") {
        CertificatePin::parse(text)
    } else {
        CertificatePin::parse(&format!("sha256:{text}"))
    }
}

/// A forward's name as an argument.
#[derive(Debug, Clone)]
pub(crate) struct ForwardNameArgument(pub(crate) ForwardName);

impl std::str::FromStr for ForwardNameArgument {
    type Err = portreeve_model::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ForwardName::parse(text).map(Self)
    }
}
