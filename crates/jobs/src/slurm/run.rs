//! Runs one of Slurm's commands. Invariant: it ends, and what it says is bounded; that it failed is never an empty answer.

use std::path::Path;
use std::process::Stdio;

use portreeve_sys::with_descriptor_limit_as_before;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::limits;

/// Why a command gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there.
    #[error("{0} is not there")]
    Missing(String),
    /// It took too long.
    #[error("{0} does not answer")]
    Late(String),
    /// It said too much.
    #[error("{0} said more than can be taken")]
    TooMuch(String),
    /// It refused, in these words.
    #[error("{words}")]
    Refused {
        /// Which command.
        command: String,
        /// Its complaint, in one line.
        words: String,
    },
    /// What it said can't be understood.
    #[error("{0} said something that is not understood")]
    NotUnderstood(String),
    /// The system refused.
    #[error("{0} can't be run")]
    Io(String, #[source] std::io::Error),
}

impl CommandError {
    /// Slurm itself is away, rather than what was asked refused.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Late(_) | Self::TooMuch(_) | Self::NotUnderstood(_) | Self::Io(..) => {
                true
            }
            Self::Refused { words, .. } => [
                "Unable to contact slurm controller",
                "Connection refused",
                "Socket timed out",
                "slurm_load_",
            ]
            .iter()
            .any(|sign| words.contains(sign)),
        }
    }
}

/// One command.
pub(crate) struct Call<'c> {
    pub(crate) program: &'c Path,
    pub(crate) arguments: &'c [String],
    /// All of its environment.
    pub(crate) environment: &'c [(String, String)],
    pub(crate) input: &'c str,
}

impl Call<'_> {
    /// What it says when it succeeds.
    pub(crate) async fn run(&self) -> Result<String, CommandError> {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let io = |error| CommandError::Io(name.clone(), error);
        let mut command = Command::new(self.program);
        with_descriptor_limit_as_before(command.as_std_mut());
        let mut child = command
            .args(self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => CommandError::Missing(name.clone()),
                _ => io(error),
            })?;
        let (Some(mut input), Some(output), Some(complaint)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io(std::io::Error::other("no pipes")));
        };
        let talk = async {
            let tell = async {
                // One that refuses its arguments does not read.
                let _ = input.write_all(self.input.as_bytes()).await;
                drop(input);
            };
            let ((), said, complaint) = tokio::join!(
                tell,
                take(output, limits::COMMAND_BYTES),
                take(complaint, limits::COMMAND_BYTES)
            );
            (said, complaint, child.wait().await)
        };
        let Ok((said, complaint, status)) = timeout(limits::COMMAND, talk).await else {
            return Err(CommandError::Late(name));
        };
        let status = status.map_err(io)?;
        let said = said.map_err(io)?.ok_or_else(|| CommandError::TooMuch(name.clone()))?;
        let complaint = complaint.map_err(io)?.unwrap_or_default();
        if status.success() {
            return String::from_utf8(said).map_err(|_| CommandError::NotUnderstood(name));
        }
        let words = words(&name, &complaint);
        let words = if words.is_empty() { format!("{name} ended with {status}") } else { words };
        Err(CommandError::Refused { command: name, words })
    }
}

/// All of it; `None` if it is too much, and nothing of it is kept then.
async fn take(pipe: impl AsyncRead + Unpin, most: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    let read = pipe.take(most as u64 + 1).read_to_end(&mut all).await?;
    Ok((read <= most).then_some(all))
}

/// A complaint in one line, without what every line of it begins with.
fn words(name: &str, complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(&complaint[..complaint.len().min(limits::COMPLAINT)]);
    let lines = text.lines().map(|line| {
        let line = line.trim().trim_start_matches(name).trim_start_matches(':').trim_start();
        line.trim_start_matches("error:").trim_start()
    });
    let plain = |line: &str| line.chars().filter(|one| !one.is_control()).collect::<String>();
    let lines: Vec<String> = lines.map(plain).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, input: &str) -> Result<String, CommandError> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        let environment =
            [("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("A".to_owned(), "$(b)".to_owned())];
        let program = Path::new("/bin/sh");
        Call { program, arguments: &arguments, environment: &environment, input }.run().await
    }

    #[tokio::test]
    async fn what_a_command_says() {
        assert_eq!(sh("cat; echo \"$A\"; echo \"${HOME-none}\"", "in\n").await.unwrap(), "in\n$(b)\nnone\n");
        let refused =
            sh("echo 'sh: error: no such thing' >&2; echo 'sh: error: go away' >&2; exit 1", "").await;
        assert_eq!(refused.unwrap_err().to_string(), "no such thing; go away");
        assert_eq!(sh("exit 3", "").await.unwrap_err().to_string(), "sh ended with exit status: 3");
        let big = "x".repeat(1 << 20);
        assert!(sh("exit 0", &big).await.is_ok(), "one that does not read its input");
        assert!(matches!(sh("printf '\\377'", "").await, Err(CommandError::NotUnderstood(_))));
        let missing =
            Call { program: Path::new("/nonexistent/squeue"), arguments: &[], environment: &[], input: "" };
        assert_eq!(missing.run().await.unwrap_err().to_string(), "squeue is not there");
    }

    #[tokio::test]
    async fn one_that_says_too_much_or_nothing_is_ended() {
        assert!(matches!(sh("exec yes", "").await, Err(CommandError::TooMuch(_) | CommandError::Late(_))));
        tokio::time::pause();
        assert!(matches!(sh("exec sleep 1000", "").await, Err(CommandError::Late(_))));
    }

    #[test]
    fn slurm_is_away_or_refuses() {
        for (words, away) in [
            ("Unable to contact slurm controller (connect failure)", true),
            ("slurm_load_jobs error: Unable to contact slurm controller", true),
            ("Batch job submission failed: Invalid partition name specified", false),
        ] {
            let error = CommandError::Refused { command: "squeue".to_owned(), words: words.to_owned() };
            assert_eq!(error.is_away(), away, "{words}");
        }
    }
}
