//! Applications as users have them: jobs of Slurm.

use std::time::Duration;

use super::{Site, SiteApp};

/// How long Slurm may take to take a job in.
const SUBMITTED: Duration = Duration::from_secs(20);

/// Submits what is in its directory, says what becomes of it, and hands on what the application says and is told.
const SUBMIT: &str = r#"
set -eu
directory=$(mktemp --directory "$HOME/job.XXXXXX")
cd "$directory"
mkfifo told
touch said
printf '#!/bin/bash\n' >script
cat >>script <<'SCRIPT'
@SCRIPT@
SCRIPT
sbatch --parsable --nodelist=@NODE@ --output=log script
tail --pid=$$ --lines=+1 --follow said &
exec cat >told
"#;

/// A job that runs an application. It is cancelled with this value.
#[derive(Debug)]
pub struct Job {
    site: &'static Site,
    user: String,
    /// Its number.
    pub number: u32,
    /// What the job runs.
    pub app: SiteApp,
}

impl Site {
    /// Submits a job on the login node, and waits until its application listens. The script must start it so that it reads
    /// `told` and writes `said`, which are in its working directory.
    ///
    /// # Panics
    /// When there is no application.
    #[must_use]
    pub fn job(&'static self, user: &str, node: &str, script: &str) -> Job {
        let script = SUBMIT.replace("@NODE@", node).replace("@SCRIPT@", script);
        let running = self.start("login", user, &script);
        let number = running.line(SUBMITTED).and_then(|line| line.parse().ok());
        let number = number.unwrap_or_else(|| panic!("no job: {}", running.stderr()));
        Job { site: self, user: user.to_owned(), number, app: SiteApp::begun(running) }
    }
}

impl Job {
    /// Ends the application's job.
    pub fn cancel(&self) {
        drop(self.site.run("login", &self.user, &["scancel", &self.number.to_string()]));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.cancel();
    }
}
