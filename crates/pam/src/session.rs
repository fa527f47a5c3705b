//! A PAM session with a user's worker in it. This process stays root's, because closing a session needs root; the worker is
//! its child, which becomes the user in `plan.rs`.
//!
//! Invariant: the session is closed and the credentials are deleted however the worker ends, unless this process is killed.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, User, alarm, initgroups};
use pam_client2::{Context, Flag};
use portreeve_model::UserName;

use crate::TTY;
use crate::account::may_be_used;
use crate::plan::{self, Plan};
use crate::talk::NobodyThere;

/// Exit status when the account may not be used (sysexits.h, EX_NOPERM).
const NOT_PERMITTED: u8 = 77;
/// For a worker that was told to end, in seconds: less than the spawner gives this process.
const ENDS: u32 = 5;
/// The worker's program, beside this one.
const WORKER: &str = "portreeve-worker";

pub(crate) fn session(
    channel: OwnedFd,
    service: &str,
    user: &UserName,
    worker: Option<PathBuf>,
) -> anyhow::Result<u8> {
    let signals = hold_signals()?;
    let worker = match worker {
        Some(worker) => worker,
        None => std::env::current_exe().context("this program has no path")?.with_file_name(WORKER),
    };
    let account = User::from_name(user.as_str())
        .context("the user database can't be asked")?
        .with_context(|| format!("there is no account {user}"))?;
    ensure!(!account.uid.is_root() && account.gid.as_raw() != 0, "no worker is run for root");

    let mut pam =
        Context::new(service, Some(user.as_str()), NobodyThere::default()).context("PAM can't be begun")?;
    pam.set_tty(Some(TTY)).context("PAM_TTY can't be set")?;
    if let Err(why) = may_be_used(&mut pam, user) {
        tracing::warn!(user = user.as_str(), %why, "no worker is run");
        return Ok(NOT_PERMITTED);
    }
    // What the service's unit set is for this program; pam_umask(8) may say something else for the user.
    umask(Mode::from_bits_truncate(0o022));
    // Before pam_setcred(3), which may add groups; the worker inherits what is then there.
    let name = CString::new(user.as_str())?;
    initgroups(&name, account.gid).context("the user's groups can't be set")?;
    // pam_setcred(3), pam_open_session(3), and pam_setcred(3) again for modules that want it the other way round.
    let session = pam.open_session(Flag::NONE).context("the session can't be opened")?;
    let modules =
        session.envlist().iter_tuples().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let plan = Plan::of(&account, modules, worker);
    let status = start(&plan, channel).and_then(|child| wait(child, &signals));
    if let Err(error) = session.close(Flag::NONE) {
        tracing::error!(%error, "the session could not be closed");
    }
    let status = status?;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => Ok(128u8.saturating_add(u8::try_from(signal).unwrap_or(127))),
        (None, None) => bail!("the worker ended in no known way"),
    }
}

/// From now on these wait until somebody asks for them.
fn hold_signals() -> anyhow::Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGALRM] {
        signals.add(signal);
    }
    signals.thread_block().context("signals can't be held back")?;
    Ok(signals)
}

/// Runs this program anew, which has nothing of ours but the channel, and tells it over a pipe what to become: the user's
/// environment is none that a process of root's should have.
fn start(plan: &Plan, channel: OwnedFd) -> anyhow::Result<Child> {
    fcntl(channel.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("portreeve-pam")
        .arg(plan::BECOME)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("the worker's process can't be made")?;
    // Ours would keep it open after the worker's end.
    drop(channel);
    let told = child.stdin.take().context("there is no pipe").and_then(|pipe| plan.tell(pipe));
    if let Err(error) = told {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
}

/// Waits for the worker, and passes signals on to it. One that hangs is killed: else this process would wait for it for ever.
fn wait(mut child: Child, signals: &SigSet) -> anyhow::Result<ExitStatus> {
    let pid = Pid::from_raw(child.id().cast_signed());
    loop {
        match signals.wait().context("signals can't be waited for")? {
            // A module may have left children, too.
            Signal::SIGCHLD => {
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
            }
            // It is not reaped, so the number is its own.
            Signal::SIGALRM => drop(kill(pid, Signal::SIGKILL)),
            signal => {
                let _ = kill(pid, signal);
                alarm::set(ENDS);
            }
        }
    }
}
