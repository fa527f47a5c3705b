//! `portreeve launch`: starts a web program where it is called, in a job or by hand, gives it a port and a secret, says when it
//! answers, and follows it to its end.
//!
//! | file | what it does |
//! | --- | --- |
//! | `address` | host, port, prefix and token; what stands in braces |
//! | `program` | starts the program, keeps its last words, ends it |
//! | `answers` | whether it answers, and is the program that was started |
//! | `note` | the endpoint's record, in the person's home |
//! | `watch` | from its start to its end |
//!
//! Invariant: *ready* is said only of a program that was started here, listens on the port itself, and has answered.

mod address;
mod answers;
mod note;
mod program;
mod watch;

use std::ffi::OsString;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use portreeve_model::{ForwardName, NodeName};

pub(crate) use program::exit_code;
pub(crate) use watch::launch;

/// `portreeve launch`
#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// Name of this node as the portal knows it [default: Slurm's, or this machine's; localhost without a cluster]
    #[arg(long, value_name = "NAME", value_parser = |text: &str| NodeName::parse(text).map(|name| name.to_string()))]
    node: Option<String>,
    /// Port [default: the first that Slurm reserved for the step, or a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..))]
    port: Option<u16>,
    /// What follows the address when it is opened, such as lab?token={token}
    #[arg(long, value_name = "PATH", default_value = "")]
    open: String,
    /// Set a variable for the program; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// It is ready once it listens: it speaks no HTTP
    #[arg(long)]
    tcp: bool,
    /// It speaks HTTPS: it is ready once it listens, and is opened with https
    #[arg(long)]
    tls: bool,
    /// Point this forward at it, and switch it off at the end
    #[arg(long, value_name = "NAME", value_parser = |text: &str| ForwardName::parse(text))]
    forward: Option<ForwardName>,
    /// Directory of forward files [default: the cluster's, or your own portal's]
    #[arg(long, value_name = "DIR")]
    forwards: Option<std::path::PathBuf>,
    /// It may take so long until it answers
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    wait: Duration,
    /// Stop it when nobody has used it for so long [default: never, or as the workspace was told]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle: Option<Duration>,
    /// The program and its arguments. In them, and in --open and --env, {port}, {host}, {node}, {prefix} and {token} are put in;
    /// {{ and }} are braces
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

fn variable(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("write NAME=VALUE"),
    }
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let signed: Option<jiff::SignedDuration> = text.parse().ok();
    match signed.and_then(|signed| Duration::try_from(signed).ok()) {
        Some(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        _ => bail!("write a time from a second up, such as 90s, 10m or 2h"),
    }
}
