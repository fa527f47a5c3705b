//! The program: how it is started, what it wrote last, how it is ended.
//!
//! Invariant: with `portreeve launch` everything that it started ends. What the program writes goes on to where it would have gone.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use portreeve_jobs::limits::LAST_WORDS;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// What it wrote may take so long to arrive once it has ended: what it left in the background may hold the pipe for ever.
const REST: Duration = Duration::from_secs(2);
/// Read at once.
const CHUNK: usize = 16 * 1024;

/// It runs.
pub(super) struct Program {
    child: Child,
    group: Pid,
    words: Words,
    pipes: JoinSet<()>,
}

/// What it wrote last, of both outputs.
#[derive(Clone, Default)]
struct Words(Arc<Mutex<VecDeque<u8>>>);

impl Words {
    fn take(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..excess);
    }

    /// Whole lines, without what would control a terminal.
    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let text = if bytes.len() == LAST_WORDS {
            text.split_once('\n').map_or("", |(_, rest)| rest)
        } else {
            &text
        };
        let plain = |one: &char| !one.is_control() || matches!(one, '\n' | '\t');
        text.replace("\r\n", "\n").chars().filter(plain).collect::<String>().trim_end().to_owned()
    }
}

impl Program {
    /// Starts it with this environment beside its own.
    pub(super) fn start(line: &[OsString], environment: &[(String, String)]) -> anyhow::Result<Self> {
        // What it leaves behind becomes ours, and can be ended.
        prctl::set_child_subreaper(true).context("processes can't be followed")?;
        let (name, arguments) = line.split_first().context("there is no program")?;
        let mut command = Command::new(name);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (variable, _) in std::env::vars_os() {
            // So that srun and mpirun, when it starts them, are steps of their own and not parts of this one.
            if variable.to_str().is_some_and(is_of_the_step) {
                command.env_remove(variable);
            }
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().with_context(|| format!("{} can't be started", name.display()))?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).context("it ended at once")?;
        let words = Words::default();
        let mut pipes = JoinSet::new();
        if let Some(pipe) = child.stdout.take() {
            pipes.spawn(pass_on(pipe, tokio::io::stdout(), words.clone()));
        }
        if let Some(pipe) = child.stderr.take() {
            pipes.spawn(pass_on(pipe, tokio::io::stderr(), words.clone()));
        }
        Ok(Self { child, group: Pid::from_raw(group), words, pipes })
    }

    pub(super) fn pid(&self) -> u32 {
        self.group.as_raw().unsigned_abs()
    }

    pub(super) fn last_words(&self) -> String {
        self.words.text()
    }

    /// Waits for its end. Nothing is lost when nobody waits any more.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Tells it, and what it started, to stop.
    pub(super) fn tell(&self, signal: Signal) {
        // It may have ended.
        let _ = killpg(self.group, signal);
    }

    /// Once it has ended: ends what it left behind, and waits for what it wrote.
    pub(super) async fn clean_up(&mut self) {
        self.tell(Signal::SIGKILL);
        let pipes = &mut self.pipes;
        let _ = tokio::time::timeout(REST, async { while pipes.join_next().await.is_some() {} }).await;
    }
}

/// What a shell would exit with in its place.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// Set by `srun` for one step.
fn is_of_the_step(variable: &str) -> bool {
    variable.starts_with("SLURM_STEP")
        || matches!(
            variable,
            "SLURM_SRUN_COMM_HOST" | "SLURM_SRUN_COMM_PORT" | "SLURM_LAUNCH_NODE_IPADDR" | "PORTREEVE_ENTRY"
        )
}

async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, words: Words) {
    let mut buffer = vec![0; CHUNK];
    let mut takes = true;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        words.take(&buffer[..read]);
        // Whoever read it may be gone, or the disk is full: the program goes on.
        takes = takes && to.write_all(&buffer[..read]).await.is_ok() && to.flush().await.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_few_and_plain() {
        let words = Words::default();
        words.take(b"one\r\n\x1b[31mtwo\x07\n");
        assert_eq!(words.text(), "one\n[31mtwo");
        for number in 0..2000 {
            words.take(format!("line {number}\n").as_bytes());
        }
        let text = words.text();
        assert!(
            text.len() <= LAST_WORDS && text.starts_with("line ") && text.ends_with("line 1999"),
            "{text}"
        );
    }

    #[test]
    fn variables_of_a_step() {
        for (name, of_the_step) in [
            ("SLURM_STEP_ID", true),
            ("SLURM_STEP_RESV_PORTS", true),
            ("SLURM_STEPID", true),
            ("SLURM_JOB_ID", false),
            ("SLURM_JOB_NODELIST", false),
            ("PATH", false),
        ] {
            assert_eq!(is_of_the_step(name), of_the_step, "{name}");
        }
    }
}
