//! `portreeve-worker`: the workspace of one signed-in person, under their own uid. Started by `portreeve-pam session` with
//! the control channel as descriptor 3.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::unistd::{Uid, User, getresuid, getuid};
use portreeve_jobs::Person;
use portreeve_worker::process::{Settings, run};
use tracing_subscriber::filter::LevelFilter;

const USAGE: &str = "portreeve-worker [--idle SECONDS]";
/// The control channel.
const CHANNEL: i32 = 3;
/// What the broker says can't be understood (sysexits.h, EX_PROTOCOL).
const CHANNEL_BROKEN: u8 = 76;

fn main() -> ExitCode {
    // Not the environment's level: it is the user's, and the log is the broker's.
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Said where nothing can be written, that would be a panic for every record: the disk that holds the log is full.
        .log_internal_errors(false)
        .init();
    let (control, settings) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::error!("the worker can't begin: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match run(control, &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the worker can't go on");
            ExitCode::from(CHANNEL_BROKEN)
        }
    }
}

/// Whose jobs they are, by the user database.
fn person(uid: Uid) -> anyhow::Result<Person> {
    let user = User::from_uid(uid).context("the user database can't be asked")?;
    let user = user.with_context(|| format!("uid {uid} has no account"))?;
    Ok(Person { name: user.name, uid: uid.as_raw(), home: user.dir, shell: user.shell })
}

fn prepare() -> anyhow::Result<(std::os::fd::OwnedFd, Settings)> {
    let control = portreeve_sys::inherited(CHANNEL).context("this program is started by portreeve-pam")?;
    // Tickets pass through here: no core file.
    prctl::set_dumpable(false)?;
    // A directory that is copied or packed holds a descriptor for each level.
    portreeve_sys::raise_descriptor_limit().context("the limit of open files can't be raised")?;
    let ids = getresuid()?;
    let uid = getuid();
    ensure!(!uid.is_root() && ids.effective == uid && ids.saved == uid, "this program is a user's");
    let mut settings = Settings::of(person(uid)?);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{option} lacks a value\n{USAGE}"))?;
        match option.as_str() {
            "--idle" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                settings.idle =
                    Duration::from_secs(seconds.context("--idle is a number of seconds above 0")?);
            }
            _ => bail!("there is no option {option}\n{USAGE}"),
        }
    }
    Ok((control, settings))
}
