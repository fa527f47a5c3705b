//! Starts programs, as whoever a test says, so that none outlives the test.
//!
//! Invariant: a child is killed when its value is dropped, and by the kernel (PR_SET_PDEATHSIG) when this process ends
//! in any other way. That signal is sent when the *thread* that forked ends, so one thread that lives forever forks.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::people::{Person, Skip};

type Order = (Command, Sender<std::io::Result<Child>>);

/// Forks in the thread that lives as long as this process.
fn spawn(command: Command) -> std::io::Result<Child> {
    static NURSERY: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (orders, waiting) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in waiting {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    let sent = nursery.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer));
    sent.expect("the nursery lives as long as the process");
    child.recv().expect("the nursery answers every order")
}

/// The command line that runs `program` as `person`, to be killed with this process.
pub(super) fn as_person(program: &Path, person: Option<&Person>) -> Command {
    // util-linux. Elsewhere the child is killed on drop only.
    if !Path::new("/usr/bin/setpriv").exists() {
        assert!(person.is_none(), "setpriv is missing");
        return Command::new(program);
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(person) = person {
        let groups: Vec<String> = person.groups.iter().map(ToString::to_string).collect();
        command.args(["--reuid", &person.uid.to_string(), "--regid", &person.gid.to_string()]);
        command.args(["--groups", &groups.join(",")]);
        command.env("HOME", "/nonexistent").env("USER", &person.name).env("LOGNAME", &person.name);
    }
    command.arg("--").arg(program);
    command
}

/// A built program. The environment goes first (`PORTREEVE_BIN` for `portreeve`, and so on); else it stands two folders
/// above this test.
///
/// # Panics
/// When it was not built.
pub(super) fn built(name: &str) -> PathBuf {
    let path = place_of(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace", path.display());
    path
}

/// A program that is built only where the libraries it links are installed.
///
/// # Errors
/// When it was not.
pub fn built_if_possible(name: &str) -> Result<PathBuf, Skip> {
    let path = place_of(name);
    if path.exists() { Ok(path) } else { Err(format!("{name} is not built")) }
}

fn place_of(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    std::env::var_os(variable).map_or_else(
        || {
            let mut path = std::env::current_exe().expect("a process has a program");
            path.pop();
            if path.ends_with("deps") {
                path.pop();
            }
            path.join(name)
        },
        PathBuf::from,
    )
}

/// What a program that ran to its end left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; -1 when a signal ended it.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs `portreeve` with these arguments to its end, as `person`.
///
/// # Panics
/// When it does not end within ten seconds.
pub fn portreeve(arguments: &[&str], person: Option<&Person>) -> Finished {
    let mut command = as_person(&built("portreeve"), person);
    command.args(arguments).env_remove("XDG_STATE_HOME");
    to_its_end(command)
}

/// The same as whoever runs the tests, with these as the only directories that the environment names.
///
/// # Panics
/// When it does not end within ten seconds.
pub fn portreeve_at(directories: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let mut command = as_person(&built("portreeve"), None);
    command.args(arguments).env_remove("HOME").env_remove("XDG_STATE_HOME");
    command.envs(directories.iter().copied());
    to_its_end(command)
}

fn to_its_end(command: Command) -> Finished {
    let shown = format!("{command:?}");
    let mut running = Running::start(command);
    let status = running.wait(Duration::from_secs(10));
    let Some(status) = status else { panic!("{shown} does not end:\n{}", running.stderr()) };
    Finished { status, out: running.rest_of_stdout(), err: running.stderr() }
}

/// Runs one of the system's programs to its end; `None` when it is missing.
pub fn system(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).output().ok()
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
    stderr_ended: Receiver<()>,
}

impl Running {
    /// Starts a built program as `person`.
    pub(super) fn program(name: &str, arguments: &[String], person: Option<&Person>) -> Self {
        Self::under(&[], name, arguments, person)
    }

    /// The same by way of a command that executes the rest of its line.
    pub(super) fn under(
        constraints: &[String],
        name: &str,
        arguments: &[String],
        person: Option<&Person>,
    ) -> Self {
        let program = built(name);
        let mut command = match constraints {
            [] => as_person(&program, person),
            [first, rest @ ..] => {
                let mut command = as_person(Path::new(first), person);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(arguments);
        Self::start(command)
    }

    /// Starts it.
    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = spawn(command).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let out = child.stdout.take().expect("it was piped");
        let mut err = child.stderr.take().expect("it was piped");
        let (line, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for text in BufReader::new(out).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&stderr);
        let (ended, stderr_ended) = mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = err.read(&mut chunk) {
                collected.lock().unwrap_or_else(PoisonError::into_inner).extend(&chunk[..length]);
            }
            let _ = ended.send(());
        });
        Self { child, lines, stderr, stderr_ended }
    }

    /// The next line of standard output; `None` at its end or when none comes in time.
    pub fn line(&self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok()
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// What is left of standard output, once it ended.
    pub fn rest_of_stdout(&self) -> String {
        let mut text = String::new();
        while let Some(line) = self.line(Duration::from_secs(1)) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Its standard input, to write to.
    pub(super) fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// When it does not read.
    pub fn say(&mut self, line: &str) {
        use std::io::Write;
        let stdin = self.stdin().expect("its input is piped");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("it reads");
    }

    /// Ends its standard input.
    pub fn hang_up(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// Waits for its end: the exit status, -1 for a signal; `None` when it is not in time.
    pub fn wait(&mut self, patience: Duration) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let _ = self.stderr_ended.recv_timeout(Duration::from_secs(1));
                return Some(status.code().unwrap_or(-1));
            }
            if start.elapsed() > patience {
                return None;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let all = self.stderr();
            let lines: Vec<&str> = all.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- standard error of process {}, its end ---\n{tail}\n---", self.child.id());
        }
    }
}
