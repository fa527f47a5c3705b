//! Slurm, asked by its own commands as the person whose process this is.
//!
//! Invariant: an error is never an empty answer. `squeue` and its like are asked for text (see `queue`), and times as unix seconds.

mod queue;
mod run;
mod site;

use std::path::{Path, PathBuf};

pub use queue::{JobState, Past, Row};
pub use run::CommandError;
pub use site::{Association, Partition};

use run::Call;

/// One installation of Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slurm {
    /// Where its commands are.
    bin: PathBuf,
    /// Its configuration, if not the usual one.
    conf: Option<PathBuf>,
    uid: u32,
}

/// What is handed over to Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<'b> {
    /// `sbatch`'s arguments, checked.
    pub arguments: &'b [String],
    /// All of the job's environment.
    pub environment: &'b [(String, String)],
    /// The job's script.
    pub script: &'b str,
}

impl Slurm {
    /// With its commands in `bin`, as `uid`.
    #[must_use]
    pub fn new(bin: PathBuf, conf: Option<PathBuf>, uid: u32) -> Self {
        Self { bin, conf, uid }
    }

    /// The directory of `sbatch` in a search path; `None`: it is not there.
    #[must_use]
    pub fn find(path: &str) -> Option<PathBuf> {
        let dirs = path.split(':').map(Path::new).filter(|dir| dir.is_absolute());
        dirs.map(Path::to_owned).find(|dir| dir.join("sbatch").is_file())
    }

    async fn ask(&self, command: &str, arguments: &[&str]) -> Result<String, CommandError> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut environment = vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("SLURM_TIME_FORMAT".to_owned(), "%s".to_owned()),
        ];
        environment.extend(self.conf_variable());
        let program = self.bin.join(command);
        Call { program: &program, arguments: &arguments, environment: &environment, input: "" }.run().await
    }

    fn conf_variable(&self) -> Option<(String, String)> {
        let conf = self.conf.as_ref()?;
        Some(("SLURM_CONF".to_owned(), conf.to_str()?.to_owned()))
    }

    /// One's jobs: those that wait or run, and those that ended a few minutes ago.
    ///
    /// # Errors
    /// When Slurm can't be asked, or is not understood.
    pub async fn queue(&self) -> Result<Vec<Row>, CommandError> {
        let (user, format) = (self.uid.to_string(), queue::format());
        let said = self
            .ask(
                "squeue",
                &["--noheader", "--noconvert", "--states=all", "--user", &user, "--Format", &format],
            )
            .await?;
        queue::rows(&said)
    }

    /// What accounting knows of a job that is over; `None`: nothing.
    ///
    /// # Errors
    /// When there is no accounting, or it can't be asked.
    pub async fn past(&self, id: u32) -> Result<Option<Past>, CommandError> {
        let id = id.to_string();
        let said =
            self.ask("sacct", &["--noheader", "--parsable2", "--jobs", &id, "--format", queue::PAST]).await?;
        Ok(queue::past(&said))
    }

    /// Hands a job over: its number.
    ///
    /// # Errors
    /// When Slurm refuses it, or can't be asked: then nobody knows whether it has it.
    pub async fn submit(&self, batch: &Batch<'_>) -> Result<u32, CommandError> {
        let mut arguments = vec!["--parsable".to_owned()];
        arguments.extend_from_slice(batch.arguments);
        let mut environment = batch.environment.to_vec();
        environment.extend(self.conf_variable());
        let program = self.bin.join("sbatch");
        let call =
            Call { program: &program, arguments: &arguments, environment: &environment, input: batch.script };
        let said = call.run().await?;
        // "4711", or "4711;cluster"; before it may stand what a site's plugins say.
        let last = said.lines().last().unwrap_or_default();
        let number = last.split(';').next().unwrap_or_default().trim();
        number.parse().map_err(|_| CommandError::NotUnderstood("sbatch".to_owned()))
    }

    /// Ends a job, or takes it from the queue.
    ///
    /// # Errors
    /// When Slurm refuses, or can't be asked.
    pub async fn cancel(&self, id: u32) -> Result<(), CommandError> {
        self.ask("scancel", &[&id.to_string()]).await.map(drop)
    }

    /// Asks for more time.
    ///
    /// # Errors
    /// When Slurm does not allow it, or can't be asked.
    pub async fn extend(&self, id: u32, minutes: u32) -> Result<(), CommandError> {
        let (job, limit) = (format!("JobId={id}"), format!("TimeLimit=+{minutes}"));
        self.ask("scontrol", &["update", &job, &limit]).await.map(drop)
    }

    /// The partitions that one may use.
    ///
    /// # Errors
    /// When Slurm can't be asked, or is not understood.
    pub async fn partitions(&self) -> Result<Vec<Partition>, CommandError> {
        site::partitions(&self.ask("sinfo", &["--noheader", "--format", site::FORMAT]).await?)
    }

    /// One's accounts and qualities of service.
    ///
    /// # Errors
    /// When there is no accounting, or it can't be asked.
    pub async fn associations(&self) -> Result<Vec<Association>, CommandError> {
        let user = format!("user={}", self.uid);
        let said = self
            .ask(
                "sacctmgr",
                &["--noheader", "--parsable2", "show", "associations", &user, "format=account,qos"],
            )
            .await?;
        Ok(site::associations(&said))
    }
}
