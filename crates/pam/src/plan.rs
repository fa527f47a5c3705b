//! How a fresh process of root's becomes a user's worker.
//!
//! It is told over standard input, and not by its environment or its command line: what PAM's modules put into the user's
//! environment (LD_PRELOAD, if the user may say so) must not reach a program that runs as root.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Pid, Uid, User, getpid, getresgid, getresuid, setresgid, setresuid};
use portreeve_sys::close_on_exec_from;
use portreeve_sys::process::die_with;
use serde::{Deserialize, Serialize};

/// The order that a process is run with to read a plan.
pub(crate) const BECOME: &str = "become";
/// Of a shell that nobody configured (environ(7), login.defs(5)).
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";
/// Where systemd's journal takes the standard error of programs (sd_journal_stream_fd(3)).
const JOURNAL: &str = "/run/systemd/journal/stdout";
/// What it is told first: the identifier; a unit, which only root may name; the priority, 6 for "info"; no priorities at the
/// beginning of lines; forwarded to nobody.
const JOURNAL_HEAD: &[u8] = b"portreeve-worker\n\n6\n0\n0\n0\n0\n";
/// Standard input, output and error, and the worker's channel. What else is open was forgotten by a module of PAM's.
const AFTER_THE_CHANNEL: u32 = 4;
/// A plan is no longer, in bytes.
const MAX_PLAN: u64 = 1024 * 1024;

/// What to become. Bytes, because neither paths nor the environment need be text.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    parent: i32,
    uid: u32,
    gid: u32,
    home: Vec<u8>,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
    program: Vec<u8>,
}

impl Plan {
    /// For this account, with what PAM's modules put into its environment.
    pub(crate) fn of(account: &User, modules: Vec<(OsString, OsString)>, program: PathBuf) -> Self {
        let shell = match account.shell.as_os_str().is_empty() {
            true => OsStr::new("/bin/sh"),
            false => account.shell.as_os_str(),
        };
        Self {
            parent: getpid().as_raw(),
            uid: account.uid.as_raw(),
            gid: account.gid.as_raw(),
            home: account.dir.as_os_str().as_bytes().to_vec(),
            environment: environment(&account.name, &account.dir, shell, modules),
            program: program.into_os_string().into_vec(),
        }
    }

    /// Tells it.
    pub(crate) fn tell(&self, mut pipe: impl Write) -> anyhow::Result<()> {
        let text = serde_json::to_vec(self)?;
        pipe.write_all(&text).context("the worker's process can't be told what to become")
    }
}

/// What PAM says, and over it what the account says.
fn environment(
    name: &str,
    home: &Path,
    shell: &OsStr,
    modules: Vec<(OsString, OsString)>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let ours = [
        ("HOME", home.as_os_str()),
        ("USER", OsStr::new(name)),
        ("LOGNAME", OsStr::new(name)),
        ("SHELL", shell),
    ];
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = modules
        .into_iter()
        // What has no name can't be passed on.
        .filter(|(key, _)| !key.is_empty() && ours.iter().all(|(name, _)| key != name))
        .map(|(key, value)| (key.into_vec(), value.into_vec()))
        .collect();
    all.extend(ours.map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())));
    // A site may set a path of its own (pam_env(8)).
    if !all.iter().any(|(key, _)| key == b"PATH") {
        all.push((b"PATH".to_vec(), PATH.as_bytes().to_vec()));
    }
    all
}

/// Reads a plan, becomes the user, and then the program. Returns only if that failed.
pub(crate) fn carry_out() -> anyhow::Result<u8> {
    // Whoever told us holds signals back, which is inherited.
    SigSet::empty().thread_set_mask().context("signals can't be let through")?;
    let mut text = Vec::new();
    std::io::stdin().lock().take(MAX_PLAN).read_to_end(&mut text).context("there is no plan")?;
    let plan: Plan = serde_json::from_slice(&text).context("the plan can't be read")?;
    become_user(plan.uid, plan.gid)?;
    // After the change of user, which would undo it.
    die_with(Pid::from_raw(plan.parent), Signal::SIGTERM).context("the session has ended")?;
    let home = PathBuf::from(OsString::from_vec(plan.home));
    if let Err(error) = std::env::set_current_dir(&home) {
        tracing::warn!(uid = plan.uid, %error, "the home directory can't be entered; the worker begins in /");
        std::env::set_current_dir("/").context("there is no root directory")?;
    }
    let program = OsString::from_vec(plan.program);
    let environment = plan.environment.into_iter();
    close_on_exec_from(AFTER_THE_CHANNEL).context("what else is open can't be kept from the worker")?;
    let error = Command::new(&program)
        .env_clear()
        .envs(environment.map(|(key, value)| (OsString::from_vec(key), OsString::from_vec(value))))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(own_journal(Path::new(JOURNAL)))
        .exec();
    Err(error).with_context(|| format!("{} can't be run", program.display()))
}

/// The journal, in the user's own name: what is written to the broker's stream passes for the broker's word. Without a journal
/// it goes nowhere. To be asked for as the user.
fn own_journal(path: &Path) -> Stdio {
    let opened = UnixStream::connect(path).and_then(|mut stream| {
        stream.shutdown(Shutdown::Read)?;
        stream.write_all(JOURNAL_HEAD)?;
        Ok(stream)
    });
    match opened {
        Ok(stream) => Stdio::from(OwnedFd::from(stream)),
        Err(error) => {
            tracing::warn!(%error, "there is no journal: what the worker says is not kept");
            Stdio::null()
        }
    }
}

/// Takes the user's ids, for good. The groups are there already. Other than with a dialer, the way to other privileges stays
/// open (sudo(8), newgrp(1)): it is the user's own session.
fn become_user(uid: u32, gid: u32) -> anyhow::Result<()> {
    ensure!(uid != 0 && uid != u32::MAX && gid != 0 && gid != u32::MAX, "no worker is run for root");
    let (uid, gid, root) = (Uid::from_raw(uid), Gid::from_raw(gid), Uid::from_raw(0));
    setresgid(gid, gid, gid).context("the group can't be set")?;
    setresuid(uid, uid, uid).context("the user can't be set")?;
    let (users, groups) = (getresuid()?, getresgid()?);
    ensure!([users.real, users.effective, users.saved] == [uid; 3], "the kernel shows another user");
    ensure!([groups.real, groups.effective, groups.saved] == [gid; 3], "the kernel shows another group");
    ensure!(setresuid(uid, root, uid).is_err(), "there is a way back to root");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_says_who_one_is_and_pam_the_rest() {
        let modules = [
            ("HOME", "/elsewhere"),
            ("LD_PRELOAD", "/tmp/x.so"),
            ("PATH", "/site/bin"),
            ("", "nameless"),
            ("USER", "root"),
            ("KRB5CCNAME", "FILE:/tmp/cc"),
        ];
        let modules: Vec<(OsString, OsString)> =
            modules.iter().map(|(key, value)| (OsString::from(key), OsString::from(value))).collect();
        let shown = |modules| {
            let all = environment("alice", Path::new("/home/alice"), OsStr::new("/bin/zsh"), modules);
            let mut lines: Vec<String> = all
                .into_iter()
                .map(|(key, value)| String::from_utf8([key, value].join(&b'=')).unwrap())
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(
            shown(modules),
            [
                "HOME=/home/alice",
                "KRB5CCNAME=FILE:/tmp/cc",
                "LD_PRELOAD=/tmp/x.so",
                "LOGNAME=alice",
                "PATH=/site/bin",
                "SHELL=/bin/zsh",
                "USER=alice"
            ]
        );
        assert!(shown(vec![]).contains(&format!("PATH={PATH}")));
    }

    #[test]
    fn a_worker_speaks_to_the_journal_in_its_own_name_or_to_nobody() {
        let path = std::env::temp_dir().join(format!("portreeve-journal-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let said = |path: &Path| {
            let done = Command::new("sh").args(["-c", "echo '<0>x' >&2"]).stderr(own_journal(path)).status();
            assert!(done.unwrap().success());
        };
        said(&path);
        let journal = std::os::unix::net::UnixListener::bind(&path).unwrap();
        said(&path);
        let mut heard = String::new();
        journal.accept().unwrap().0.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "portreeve-worker\n\n6\n0\n0\n0\n0\n<0>x\n");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn nobody_becomes_root() {
        for (uid, gid) in [(0, 1000), (1000, 0), (u32::MAX, 1000), (1000, u32::MAX)] {
            assert!(become_user(uid, gid).is_err());
        }
    }
}
