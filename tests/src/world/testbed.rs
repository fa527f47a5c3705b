//! The cluster of `tests/cluster`, with real systemd on its nodes. One that runs already, in the directory that
//! `PORTREEVE_CLUSTER` names, is used and left running; else one is started and taken down with this value.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::people::{Person, Skip};
use super::process::{Finished, Running, built};

/// How long anything on a node is waited for: it may be a service that starts on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The nodes.
#[derive(Debug)]
pub struct Testbed {
    dir: PathBuf,
    is_ours: bool,
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Where everything is built.
///
/// # Panics
/// When nothing was.
#[must_use]
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a process has a program");
    program.ancestors().nth(3).expect("target/debug/deps/NAME").to_owned()
}

/// Says how far a long test is, past what collects its output: `tests/run` ends a suite that says nothing for minutes.
pub fn progress(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Between two looks at a node, which take longer than this.
pub fn pause() {
    let _ = nix::poll::poll(&mut [], 50u16);
}

fn cluster(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join("tests/cluster"));
    command.arg("--dir").arg(dir).args(arguments);
    command
}

fn finished(command: &mut Command) -> Finished {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Finished {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Testbed {
    /// `name` tells its directory from others'.
    ///
    /// # Errors
    /// Why there is none here.
    pub fn find(name: &str) -> Result<Self, Skip> {
        match Self::shared()? {
            Some(testbed) => Ok(testbed),
            None => Self::own(name),
        }
    }

    /// The same, but with nothing of Portreeve on its nodes.
    ///
    /// # Errors
    /// Why there is none here.
    pub fn empty(name: &str) -> Result<Self, Skip> {
        let is_empty = |testbed: &Self| {
            let installed = "test -e /usr/bin/portreeve -o -e /usr/sbin/portreeve-agent";
            ["login", "c1", "c2"].iter().all(|node| testbed.shell(node, "root", installed).status != 0)
        };
        match Self::shared()?.filter(is_empty) {
            Some(testbed) => Ok(testbed),
            None => Self::own(name),
        }
    }

    fn shared() -> Result<Option<Self>, Skip> {
        Person::root()?;
        if std::env::var_os("PORTREEVE_TESTS_FAST").is_some() {
            return Err("left out by --fast".into());
        }
        let dir = std::env::var_os("PORTREEVE_CLUSTER").map(PathBuf::from);
        Ok(dir.filter(|dir| dir.join("ready").exists()).map(|dir| Self { dir, is_ours: false }))
    }

    fn own(name: &str) -> Result<Self, Skip> {
        let missing = finished(Command::new(repository().join("tests/cluster")).arg("missing"));
        if !missing.out.trim().is_empty() {
            return Err(format!(
                "not installed: {}",
                missing.out.split_whitespace().collect::<Vec<_>>().join(" ")
            ));
        }
        let testbed = Self { dir: target().join("tests").join(format!("cluster-{name}")), is_ours: true };
        // What a run that was killed has left.
        finished(&mut cluster(&testbed.dir, &["down"]));
        let target = target().display().to_string();
        let up = finished(&mut cluster(&testbed.dir, &["--target", &target, "up"]));
        if up.status == 0 {
            Ok(testbed)
        } else {
            Err(format!("no cluster can be had here: {}{}", up.out, up.err))
        }
    }

    /// Runs a command there as this user.
    #[must_use]
    pub fn run(&self, node: &str, user: &str, command: &[&str]) -> Finished {
        finished(&mut cluster(&self.dir, &[&["exec", node, user], command].concat()))
    }

    /// Where its state is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first process of a node, as this machine counts.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn pid(&self, node: &str) -> u32 {
        let words =
            std::fs::read_to_string(self.dir.join("nodes").join(node)).expect("a node of the cluster");
        words.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("its pid")
    }

    /// Starts a shell there that runs this as this user, to be killed with this value.
    #[must_use]
    pub fn start(&self, node: &str, user: &str, script: &str) -> Running {
        Running::start(cluster(&self.dir, &["exec", node, user, "bash", "-c", script]))
    }

    /// Has a shell run this as this user.
    #[must_use]
    pub fn shell(&self, node: &str, user: &str, script: &str) -> Finished {
        self.run(node, user, &["bash", "-c", script])
    }

    /// The same as root, where it must succeed; returns what it says, without the last line's end.
    ///
    /// # Panics
    /// When it fails.
    pub fn root(&self, node: &str, script: &str) -> String {
        let done = self.shell(node, "root", script);
        assert_eq!(done.status, 0, "{node}: {script}:\n{}{}", done.out, done.err);
        done.out.trim_end().to_owned()
    }

    /// Waits until root's shell there says so.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn until(&self, node: &str, script: &str, says: &str) {
        let started = Instant::now();
        loop {
            let done = self.shell(node, "root", script);
            if done.out.trim() == says {
                return;
            }
            let journal =
                || self.shell(node, "root", "journalctl --no-pager --lines 40 --unit 'portreeve*'").out;
            assert!(
                started.elapsed() < PATIENCE,
                "{node}: {script}: {}{}\n{}",
                done.out,
                done.err,
                journal()
            );
            pause();
        }
    }

    /// Writes a file there, as this user.
    ///
    /// # Panics
    /// When that user can't.
    pub fn write(&self, node: &str, user: &str, path: &str, content: &[u8]) {
        let mut command = cluster(&self.dir, &["exec", node, user, "tee", path]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the cluster's program is there");
        child.stdin.take().expect("it was piped").write_all(content).expect("it is read");
        assert!(child.wait().expect("our child").success(), "{node}: {path} can't be written");
    }

    /// The content of a file there, which root can read.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn read(&self, node: &str, path: &str) -> Vec<u8> {
        let output = cluster(&self.dir, &["exec", node, "root", "cat", path]).output().expect("it is there");
        assert!(output.status.success(), "{node}: {path} can't be read");
        output.stdout
    }

    /// Copies a file of this machine there.
    ///
    /// # Panics
    /// When that fails.
    pub fn copy(&self, file: &Path, node: &str, path: &str) {
        self.write(
            node,
            "root",
            path,
            &std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        );
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if self.is_ours {
            finished(&mut cluster(&self.dir, &["down"]));
        }
    }
}

/// Packages with what is built now, in this directory: `systemd/packages/build` with these arguments.
///
/// # Panics
/// When it fails.
pub fn packages(out: &Path, arguments: &[&str]) -> Finished {
    // It packs what lies beside this program.
    let _ = built("portreeve");
    let mut command = Command::new(repository().join("systemd/packages/build"));
    command
        .args(["--profile", "dev"])
        .arg("--out")
        .arg(out)
        .args(arguments)
        .env("CARGO_TARGET_DIR", target());
    let done = finished(&mut command);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    done
}
