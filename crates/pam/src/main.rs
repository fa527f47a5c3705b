//! `portreeve-pam`: the one program that speaks with PAM, in a process of its own for each occasion, because PAM's modules
//! are other people's code that runs as root, and may hang.
//!
//! | order | what |
//! | --- | --- |
//! | `converse FROM [USER]` | one sign-in from address FROM: asks whatever the modules ask over descriptor 3 (`wire::pam`) |
//! | `account USER` | whether the account may be used, without asking anybody; the answer on descriptor 3 |
//! | `session USER` | opens a PAM session, runs the worker in it as the user with descriptor 3, and closes the session |
//!
//! Before: root's process, which starts it (`broker/src/spawner/program.rs`). Invariants: nothing that comes over descriptor 3
//! reaches anything but the modules that asked for it; what a module says reaches the broker bounded and without control
//! characters; the worker has the user's ids and groups before it is the worker, and no part of root's environment.

mod account;
mod converse;
mod plan;
mod session;
mod talk;
mod verdict;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Uid;
use portreeve_model::UserName;
use tracing_subscriber::EnvFilter;

const USAGE: &str =
    "portreeve-pam [--service NAME] [--worker PROGRAM] converse FROM [USER] | account USER | session USER";
/// The PAM service, `/etc/pam.d/portreeve`, if none is named.
const SERVICE: &str = "portreeve";
/// PAM_TTY: there is no terminal, and modules that tell services apart by it want something (sshd says `ssh`).
const TTY: &str = "portreeve";
/// The descriptor that this program is started with.
const CHANNEL: i32 = 3;
/// Exit status when something failed before anything was said (sysexits.h, EX_OSERR).
const FAILED: u8 = 71;

enum Order {
    Converse {
        from: IpAddr,
        user: Option<UserName>,
    },
    Account {
        user: UserName,
    },
    Session {
        user: UserName,
    },
    /// Only `session` says this, to a copy of itself.
    Become,
}

struct Arguments {
    service: String,
    worker: Option<PathBuf>,
    order: Order,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Said where nothing can be written, that would be a panic for every record: the disk that holds the log is full.
        .log_internal_errors(false)
        .init();
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run() -> anyhow::Result<u8> {
    let arguments = arguments(std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into()))?;
    if matches!(arguments.order, Order::Become) {
        return plan::carry_out();
    }
    let channel = portreeve_sys::inherited(CHANNEL).context("this program is started by portreeve-broker")?;
    ensure!(Uid::effective().is_root(), "this program must be started as root");
    // Passwords pass through here: no core file, no debugger.
    prctl::set_dumpable(false)?;
    match arguments.order {
        // What runs in a session inherits its limits: a user may want a core file of their own program.
        Order::Session { .. } => usual_descriptors()?,
        _ => setrlimit(Resource::RLIMIT_CORE, 0, 0)?,
    }
    let service = arguments.service.as_str();
    match arguments.order {
        Order::Converse { from, user } => converse::converse(channel, service, from, user.as_ref()),
        Order::Account { user } => account::account(channel, service, &user),
        Order::Session { user } => session::session(channel, service, &user, arguments.worker),
        Order::Become => bail!("handled above"),
    }
}

/// The soft limit of open files that systemd and logins give: the broker has raised its own, and programs that use select(2)
/// take it for a promise. pam_limits may say something else afterwards.
fn usual_descriptors() -> anyhow::Result<()> {
    const USUAL: u64 = 1024;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard.min(USUAL), hard)?)
}

fn arguments(words: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut words = words.peekable();
    let (mut service, mut worker) = (SERVICE.to_owned(), None);
    while let Some(option) = words.next_if(|word| word.starts_with("--")) {
        let value = words.next().with_context(|| format!("{option} lacks a value\n{USAGE}"))?;
        match option.as_str() {
            "--service" => service = value,
            "--worker" => worker = Some(PathBuf::from(value)),
            _ => bail!("there is no option {option}\n{USAGE}"),
        }
    }
    // It names a file of /etc/pam.d.
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    ensure!(!service.is_empty() && service.bytes().all(is_plain), "{service:?} is no name of a PAM service");
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let order = match words[..] {
        ["converse", from] => Order::Converse { from: from.parse()?, user: None },
        ["converse", from, user] => {
            Order::Converse { from: from.parse()?, user: Some(UserName::parse(user)?) }
        }
        ["account", user] => Order::Account { user: UserName::parse(user)? },
        ["session", user] => Order::Session { user: UserName::parse(user)? },
        [plan::BECOME] => Order::Become,
        _ => bail!("{USAGE}"),
    };
    Ok(Arguments { service, worker, order })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> anyhow::Result<Arguments> {
        arguments(line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned))
    }

    #[test]
    fn command_lines() {
        let Arguments { service, worker, order } = parsed("converse 192.0.2.1 alice").unwrap();
        assert_eq!((service.as_str(), worker), ("portreeve", None));
        assert!(matches!(order, Order::Converse { user: Some(user), .. } if user.as_str() == "alice"));
        assert!(matches!(parsed("converse ::1").unwrap().order, Order::Converse { user: None, .. }));
        let other = parsed("--service portreeve-2 --worker /opt/w session bob").unwrap();
        assert_eq!((other.service.as_str(), other.worker), ("portreeve-2", Some(PathBuf::from("/opt/w"))));
        assert!(matches!(other.order, Order::Session { .. }));
        for wrong in [
            "",
            "converse",
            "converse alice",
            "converse 192.0.2.1 -alice",
            "converse 192.0.2.1 alice bob",
            "account",
            "account ../root",
            "session --worker /bin/sh",
            "--service ../passwd account alice",
            "--service  account alice",
            "--shell /bin/sh account alice",
            "--service",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
