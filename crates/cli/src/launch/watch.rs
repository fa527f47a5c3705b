//! From the program's start to its end.

use std::ffi::OsString;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nix::unistd::getuid;
use portreeve_broker::Forwards;
use portreeve_jobs::records::{Endpoint, Progress};
use portreeve_model::ForwardTarget;
use portreeve_portal::now;
use portreeve_sys::SockDiag;
use std::os::unix::process::ExitStatusExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until};

use super::Launch;
use super::address::Address;
use super::answers::{Listener, answers_http, listener, takes_connections};
use super::note::Note;
use super::program::{GRACE, Program, exit_code};
use crate::forward::directory_of_forwards;

/// Between two looks whether it answers.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks whether it is used: shorter than the portal keeps an unused connection.
const USE: Duration = Duration::from_secs(10);
/// How often it is started when somebody else gets its port.
const STARTS: u32 = 3;

pub(crate) fn launch(launch: &Launch) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        for start in 1..=STARTS {
            match Watch::begin(launch, start)?.follow().await? {
                Ended::PortTaken(why) if start < STARTS => {
                    eprintln!("portreeve launch: {why}; it is started again with another port");
                }
                Ended::PortTaken(why) => bail!("{why}"),
                Ended::With(code) => return Ok(code),
            }
        }
        bail!("no port could be had")
    });
    // What the program left behind may hold a pipe.
    runtime.shutdown_background();
    ended
}

enum Ended {
    /// Somebody else has the port.
    PortTaken(String),
    With(ExitCode),
}

struct Watch<'l> {
    launch: &'l Launch,
    address: Address,
    program: Program,
    note: Note,
    forwards: Option<Forwards>,
    idle: Option<Duration>,
    uid: u32,
}

impl<'l> Watch<'l> {
    fn begin(launch: &'l Launch, start: u32) -> anyhow::Result<Self> {
        let mut address = Address::of(launch)?;
        if start == STARTS {
            // Few programs bind without SO_REUSEADDR; for these the port is given free.
            address.held = None;
        }
        let line: Vec<OsString> = launch.program.iter().map(|part| address.fill(part)).collect();
        let mut environment = vec![
            ("PORTREEVE_PORT".to_owned(), address.port.to_string()),
            ("PORTREEVE_HOST".to_owned(), address.host.clone()),
            ("PORTREEVE_NODE".to_owned(), address.node.clone()),
            ("PORTREEVE_PREFIX".to_owned(), address.prefix.clone()),
            ("PORTREEVE_TOKEN".to_owned(), address.token.reveal().to_owned()),
        ];
        for (name, value) in &launch.environment {
            environment.push((name.clone(), address.fill_text(value)));
        }
        let forwards = match &launch.forward {
            Some(_) => Some(Forwards::in_dir(directory_of_forwards(launch.forwards.as_deref())?)),
            None => None,
        };
        let open = address.fill_text(&launch.open);
        let name = launch.program.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let job = std::env::var("SLURM_JOB_ID").ok().and_then(|text| text.parse().ok());
        let minutes = std::env::var("PORTREEVE_IDLE_MINUTES").ok().and_then(|text| text.parse::<u32>().ok());
        let idle = launch.idle.or(minutes
            .filter(|minutes| *minutes > 0)
            .map(|minutes| Duration::from_secs(60 * u64::from(minutes))));
        let mut endpoint = Endpoint {
            progress: Progress::Starting,
            node: address.node.clone(),
            port: address.port,
            tls: launch.tls,
            open,
            forward: launch.forward.as_ref().map(ToString::to_string),
            job,
            program: name,
            pid: 0,
            started: now(),
            ready: None,
            ended: None,
            last_used: None,
            idle_stop: None,
            why: None,
            last_words: String::new(),
        };
        let program = match Program::start(&line, &environment) {
            Ok(program) => program,
            Err(error) => {
                // So that the page says it as well.
                (endpoint.progress, endpoint.ended, endpoint.why) =
                    (Progress::Over, Some(now()), Some(format!("{error:#}")));
                Note::begin(endpoint)?.end();
                return Err(error);
            }
        };
        endpoint.pid = program.pid();
        let note = Note::begin(endpoint)?;
        Ok(Self { launch, address, program, note, forwards, idle, uid: getuid().as_raw() })
    }

    async fn follow(mut self) -> anyhow::Result<Ended> {
        let (mut term, mut int, mut hangup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        let began = Instant::now();
        let (mut look, mut using) = (interval(LOOK), interval(USE));
        let mut diag = SockDiag::open().context("the kernel can't be asked who listens")?;
        let mut kill_at: Option<Instant> = None;
        let mut taken: Option<String> = None;
        loop {
            let progress = self.note.endpoint.progress;
            tokio::select! {
                ended = self.program.ended() => return self.over(ended?, taken).await,
                _ = look.tick(), if progress == Progress::Starting => {
                    match self.look(&mut diag).await? {
                        Listener::Other(why) if self.address.is_ours_to_choose => {
                            taken = Some(why);
                            self.program.tell(Signal::SIGTERM);
                            kill_at.get_or_insert(Instant::now() + GRACE);
                            look = interval(Duration::from_secs(3600));
                            look.reset();
                        }
                        _ if self.note.endpoint.progress == Progress::Starting && began.elapsed() > self.launch.wait => {
                            let waited = self.launch.wait;
                            self.stop(&mut kill_at, Some(format!("it did not answer within {waited:?}")));
                        }
                        _ => {}
                    }
                }
                _ = using.tick(), if progress == Progress::Ready => {
                    if self.note_use(&mut diag) {
                        let idle = self.idle.unwrap_or_default();
                        let idle = jiff::SignedDuration::try_from(idle).unwrap_or_default();
                        self.stop(&mut kill_at, Some(format!("nobody used it for {idle:#}")));
                    }
                }
                _ = term.recv() => self.stop(&mut kill_at, None),
                _ = int.recv() => self.stop(&mut kill_at, None),
                _ = hangup.recv() => self.stop(&mut kill_at, None),
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    self.program.tell(Signal::SIGKILL);
                    kill_at = Some(Instant::now() + GRACE);
                }
            }
        }
    }

    /// Whether it answers by now.
    async fn look(&mut self, diag: &mut SockDiag) -> anyhow::Result<Listener> {
        let found =
            listener(diag, self.address.port, self.uid).context("the kernel can't be asked who listens")?;
        let Listener::Ours(ip) = found else { return Ok(found) };
        // It has the port; what held it would only be in its way.
        self.address.held = None;
        let at = self.address.reached(ip);
        let is_ready = if self.launch.tcp || self.launch.tls {
            takes_connections(at).await
        } else {
            let host = format!("{}:{}", self.address.node, self.address.port);
            answers_http(at, &host, &format!("{}/", self.address.prefix)).await
        };
        if ip.is_loopback() && self.address.node != "localhost" {
            let why = "it listens on the loopback address, which nobody outside its node reaches: have it listen on {host}";
            if self.note.endpoint.why.as_deref() != Some(why) {
                self.note.endpoint.why = Some(why.to_owned());
                self.note.write();
                eprintln!("portreeve launch: {why}");
            }
            return Ok(Listener::Nobody);
        }
        if is_ready {
            self.ready()?;
        }
        Ok(found)
    }

    fn ready(&mut self) -> anyhow::Result<()> {
        if let (Some(forwards), Some(name)) = (&self.forwards, &self.launch.forward) {
            let scheme = if self.launch.tls { "https" } else { "http" };
            let line =
                format!("{scheme}://{}:{}{}/", self.address.node, self.address.port, self.address.prefix);
            let target = ForwardTarget::parse(&line).context("the forward's target is none")?;
            forwards
                .add(name, &target)
                .with_context(|| format!("the forward {name} can't be pointed at it"))?;
        }
        let endpoint = &mut self.note.endpoint;
        (endpoint.progress, endpoint.ready, endpoint.why) = (Progress::Ready, Some(now()), None);
        endpoint.last_used = endpoint.ready;
        endpoint.idle_stop = self.idle.map(|idle| now() + idle.as_secs().cast_signed());
        self.note.write();
        let Address { node, port, prefix, .. } = &self.address;
        eprintln!(
            "portreeve launch: ready at {node}:{port}, opened at {}",
            if prefix.is_empty() { "an address of its own" } else { prefix }
        );
        Ok(())
    }

    /// Notes when data came last; whether that is so long ago that it is to stop.
    fn note_use(&mut self, diag: &mut SockDiag) -> bool {
        let silent_for = match diag.silent_for(self.address.port, self.uid) {
            Ok(silent_for) => silent_for,
            Err(error) => {
                // Not known is not unused.
                eprintln!("portreeve launch: the kernel can't be asked for its connections: {error}");
                Some(Duration::ZERO)
            }
        };
        let now = now();
        let endpoint = &mut self.note.endpoint;
        if let Some(silent_for) = silent_for {
            let used = now - silent_for.as_secs().cast_signed();
            // The clock of the page goes by minutes, and so does the disk.
            if endpoint.last_used.is_none_or(|before| used >= before + 60) {
                endpoint.last_used = Some(used);
                endpoint.idle_stop = self.idle.map(|idle| used + idle.as_secs().cast_signed());
                self.note.write();
            }
        }
        self.note.endpoint.idle_stop.is_some_and(|stop| now >= stop + 60)
    }

    fn stop(&mut self, kill_at: &mut Option<Instant>, why: Option<String>) {
        self.program.tell(Signal::SIGTERM);
        kill_at.get_or_insert(Instant::now() + GRACE);
        let endpoint = &mut self.note.endpoint;
        if endpoint.progress != Progress::Stopping {
            endpoint.progress = Progress::Stopping;
            if why.is_some() {
                endpoint.why = why;
            }
            self.note.write();
        }
    }

    async fn over(mut self, status: ExitStatus, taken: Option<String>) -> anyhow::Result<Ended> {
        self.program.clean_up().await;
        let words = self.program.last_words();
        if let (Some(forwards), Some(name), Some(_)) =
            (&self.forwards, &self.launch.forward, self.note.endpoint.ready)
            && let Err(error) = forwards.disable(name)
        {
            eprintln!("portreeve launch: the forward {name} can't be switched off: {error}");
        }
        let in_use = || {
            let words = words.to_ascii_lowercase();
            !status.success() && (words.contains("in use") || words.contains("eaddrinuse"))
        };
        let was_starting = self.note.endpoint.progress == Progress::Starting;
        let taken = taken.or_else(|| {
            let why = || format!("the program says that port {} is in use", self.address.port);
            (was_starting && self.address.is_ours_to_choose && in_use()).then(why)
        });
        if let Some(why) = taken {
            self.note.endpoint.progress = Progress::Over;
            self.note.endpoint.why = Some(why.clone());
            self.note.end();
            return Ok(Ended::PortTaken(why));
        }
        let clause = match (status.code(), status.signal()) {
            (Some(code), _) => format!("the program ended with exit code {code}"),
            (None, signal) => format!("signal {} ended the program", signal.unwrap_or(0)),
        };
        let endpoint = &mut self.note.endpoint;
        let wanted = endpoint.progress == Progress::Stopping;
        let idle = wanted && endpoint.ready.is_some() && endpoint.why.is_some();
        if !wanted {
            let before = if was_starting { " before it answered" } else { "" };
            endpoint.why = Some(format!("{clause}{before}"));
        }
        (endpoint.progress, endpoint.ended, endpoint.last_words) = (Progress::Over, Some(now()), words);
        // Nothing failed when it was stopped because nobody used it.
        let code = if idle { 0 } else { exit_code(status) };
        let never_answered = wanted && endpoint.ready.is_none() && endpoint.why.is_some();
        if let Some(why) = &endpoint.why {
            eprintln!("portreeve launch: {why}");
        }
        self.note.end();
        Ok(Ended::With(if never_answered && code == 0 { ExitCode::FAILURE } else { ExitCode::from(code) }))
    }
}
