//! Jobs as processes of this machine: for `portreeve up`, and for what a sysadmin lets run on the portal's node.
//!
//! Invariant: a process is ours only while its number and its beginning are those that were noted: numbers are used again. It
//! outlives whoever started it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portreeve_sys::with_descriptor_limit_as_before;
use tokio::process::Command;

use crate::history::{ERRORS, OUTPUT};
use crate::records::JobRef;

/// Starts `portreeve batch` for the job whose records are in `entry`. To be called inside a tokio runtime, which reaps it.
///
/// # Errors
/// When the system refuses.
pub fn start(
    portreeve: &Path,
    environment: &[(String, String)],
    directory: &Path,
    entry: &Path,
) -> io::Result<JobRef> {
    let file = |name: &str| OpenOptions::new().append(true).create(true).mode(0o600).open(entry.join(name));
    let mut command = Command::new(portreeve);
    with_descriptor_limit_as_before(command.as_std_mut());
    let child = command
        .arg("batch")
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(file(OUTPUT)?)
        .stderr(file(ERRORS)?)
        .process_group(0)
        .spawn()?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .ok_or_else(|| io::Error::other("it ended at once"))?;
    let began = began(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
    Ok(JobRef::Process { pid, began })
}

/// Whether it runs still.
#[must_use]
pub fn is_alive(pid: i32, began: u64) -> bool {
    self::began(pid) == Some(began)
}

/// Tells it to stop: `portreeve batch` passes that on, and kills what does not heed it.
///
/// # Errors
/// When the system refuses. That it is gone is none.
pub fn stop(pid: i32, began: u64) -> io::Result<()> {
    if !is_alive(pid, began) {
        return Ok(());
    }
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// When a process began, in clock ticks since the boot; `None`: it is not there, or has ended and was not reaped.
fn began(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.began)
}

/// The process that started this one, or has it now; `None`: it is not there, or has ended.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|stat| stat.parent)
}

/// What the kernel says of a process that has not ended (proc_pid_stat(5)).
struct Stat {
    parent: u32,
    began: u64,
}

fn stat(pid: impl std::fmt::Display) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets, and may have any character. Behind it: field 3 and those that follow.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let [state, parent] = *fields.first_chunk()?;
    let began = fields.get(19)?;
    (!matches!(state, "Z" | "X")).then_some(Stat { parent: parent.parse().ok()?, began: began.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_known_by_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "#!/bin/sh\necho \"$1 $A\"\necho oops >&2\nexec sleep 600\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let environment =
            [("A".to_owned(), "a b".to_owned()), ("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let JobRef::Process { pid, began } = start(&program, &environment, dir.path(), dir.path()).unwrap()
        else {
            panic!("no process")
        };
        assert!(is_alive(pid, began) && !is_alive(pid, began + 1));
        stop(pid, began + 1).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        while read(ERRORS).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((read(OUTPUT).as_str(), read(ERRORS).as_str()), ("batch a b\n", "oops\n"));
        assert!(is_alive(pid, began), "another process was meant");
        stop(pid, began).unwrap();
        while is_alive(pid, began) {
            tokio::task::yield_now().await;
        }
        stop(pid, began).unwrap();
        assert!(start(Path::new("/nonexistent"), &[], dir.path(), dir.path()).is_err());
    }
}
