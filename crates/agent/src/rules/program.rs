//! Runs the system's own programs: iptables, nft, scontrol, sshd.
//! Invariant: a program is one of a few fixed directories, whatever the caller's PATH says; it gets no environment of
//! ours, has an end in time, and what it says is bounded.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Where programs are looked for, in this order.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The same for the programs that these start.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// What a program may say, in bytes: the rules of a large site.
const MOST: u64 = 16 * 1024 * 1024;
/// How much of a complaint is passed on, in characters.
const COMPLAINT: usize = 600;

/// Why there is no answer from a program.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("there is no program {0} in {PATH}")]
    Missing(&'static str),
    #[error("{0} can't be run")]
    Io(&'static str, #[source] io::Error),
    #[error("{0} did not end within {1:?}")]
    Late(&'static str, Duration),
    #[error("{0} says too much")]
    TooMuch(&'static str),
    #[error("{0} failed ({1}){2}")]
    Failed(&'static str, ExitStatus, Complaint),
}

/// What a program had to say when it failed, in one line.
#[derive(Debug)]
pub(super) struct Complaint(String);

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

impl Complaint {
    fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self(printable(&lines.join("; ")).chars().take(COMPLAINT).collect())
    }
}

/// The text without what would move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|one| !one.is_control() || *one == '\n' || *one == '\t').collect()
}

/// Where the program is, if it is there and can be executed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| PathBuf::from(directory).join(name)).find(|path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// What the program says when it is given `input` and succeeds.
pub(super) fn run(
    name: &'static str,
    arguments: &[&str],
    input: &str,
    patience: Duration,
) -> Result<String, ProgramError> {
    let path = find(name).ok_or(ProgramError::Missing(name))?;
    #[cfg(test)]
    let alone = crate::lookup::tests::FORKS.write();
    let child = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        // With whatever it starts: what ends it ends them, too.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| ProgramError::Io(name, error))?;
    #[cfg(test)]
    drop(alone);
    let group = Pid::from_raw(child.id().cast_signed());
    let (tell, told) = mpsc::channel();
    let input = input.to_owned();
    thread::spawn(move || tell.send(converse(child, &input)));
    match told.recv_timeout(patience) {
        Ok(Ok(said)) => said.judge(name),
        Ok(Err(error)) => Err(ProgramError::Io(name, error)),
        Err(_) => {
            // It has not been waited for, so that the number is still its own.
            let _ = killpg(group, Signal::SIGKILL);
            Err(ProgramError::Late(name, patience))
        }
    }
}

struct Said {
    status: ExitStatus,
    /// `None`: too much.
    output: Option<Vec<u8>>,
    complaint: Vec<u8>,
}

impl Said {
    fn judge(self, name: &'static str) -> Result<String, ProgramError> {
        if !self.status.success() {
            return Err(ProgramError::Failed(name, self.status, Complaint::new(&self.complaint)));
        }
        let output = self.output.ok_or(ProgramError::TooMuch(name))?;
        // Comments of a site's rules are any bytes.
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
}

fn converse(mut child: Child, input: &str) -> io::Result<Said> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("no pipes"));
    };
    let (output, complaint) = thread::scope(|scope| {
        let complaint = scope.spawn(|| take(stderr));
        scope.spawn(move || {
            // One that refuses its arguments does not read.
            let _ = stdin.write_all(input.as_bytes());
        });
        (take(stdout), complaint.join())
    });
    let complaint = complaint.map_err(|_| io::Error::other("its complaint was not read"))??;
    Ok(Said { status: child.wait()?, output: output?, complaint: complaint.unwrap_or_default() })
}

/// All of it, to the end; `None` if it is too much.
fn take(mut pipe: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    let read = pipe.by_ref().take(MOST + 1).read_to_end(&mut all)?;
    if read as u64 <= MOST {
        return Ok(Some(all));
    }
    io::copy(&mut pipe, &mut io::sink())?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_program_is_given_its_input_and_no_environment() {
        assert_eq!(run("cat", &[], "a\nb", PATIENCE).unwrap(), "a\nb");
        let environment = run("env", &[], "", PATIENCE).unwrap();
        assert_eq!(environment, format!("LC_ALL=C\nPATH={PATH}\n"));
        assert_eq!(run("pwd", &[], "", PATIENCE).unwrap(), "/\n");
        // More than a pipe holds, both ways.
        let long = "x".repeat(1 << 20);
        assert!(run("cat", &[], &long, PATIENCE).unwrap() == long);
        assert_eq!(run("true", &[], &long, PATIENCE).unwrap(), "");
    }

    #[test]
    fn what_goes_wrong_is_said() {
        let missing = run("portreeve-no-such-program", &[], "", PATIENCE).unwrap_err();
        assert!(matches!(missing, ProgramError::Missing(_)), "{missing}");
        let script = "echo said; printf 'a \\033[2Jproblem\\n\\nand another\\n' >&2; exit 3";
        let failed = run("sh", &["-c", script], "", PATIENCE).unwrap_err();
        assert_eq!(failed.to_string(), "sh failed (exit status: 3): a [2Jproblem; and another");
        assert_eq!(run("false", &[], "", PATIENCE).unwrap_err().to_string(), "false failed (exit status: 1)");
        let much = run("head", &["-c", "17000000", "/dev/zero"], "", PATIENCE).unwrap_err();
        assert!(matches!(much, ProgramError::TooMuch(_)), "{much}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let began = Instant::now();
        let late = run("sh", &["-c", "sleep 100 & sleep 100"], "", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(late, ProgramError::Late(..)), "{late}");
        assert!(began.elapsed() < PATIENCE);
    }
}
