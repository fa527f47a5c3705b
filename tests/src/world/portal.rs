//! The real program, `portreeve up`, with a state directory of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::{TcpSocket, TcpStream};

use super::client::{Client, enter};
use super::people::Person;
use super::process::{Finished, Running, portreeve};
use super::tls::{Secure, client_config};
use super::{PATIENCE, until};

/// How a portal is started.
#[derive(Debug, Default, Clone)]
pub struct PortalOptions {
    /// The text of a configuration file.
    pub config: Option<String>,
    /// The state directory; a new temporary one by default.
    pub state: Option<PathBuf>,
    /// `--forwards`.
    pub forwards: Option<PathBuf>,
    /// `--listen`; `127.0.0.1:0` by default.
    pub listen: Option<String>,
    /// `--metrics`; a bare name is that of a socket beside the configuration.
    pub metrics: Option<String>,
    /// Who runs it; by default whoever runs the tests, with another home directory.
    pub person: Option<Person>,
    /// That directory; a new temporary one by default.
    pub home: Option<PathBuf>,
    /// A command that executes the rest of its line, and puts the portal under constraints before (`prlimit`,
    /// `unshare`).
    pub under: Vec<String>,
}

impl PortalOptions {
    /// With this configuration, started by way of this command, which executes the rest of its line.
    #[must_use]
    pub fn under(command: &[&str], config: &str) -> Self {
        let under = command.iter().map(ToString::to_string).collect();
        Self { config: Some(config.to_owned()), under, ..Self::default() }
    }
}

/// A portal that runs. Killed when dropped.
#[derive(Debug)]
pub struct Portal {
    running: Running,
    url: String,
    sign_in: String,
    port: u16,
    state: PathBuf,
    options: PortalOptions,
    home: tempfile::TempDir,
    /// Of the portals that were started again in this one's place.
    later_homes: Vec<tempfile::TempDir>,
}

impl Portal {
    /// Starts one and waits until it is ready to answer.
    ///
    /// # Panics
    /// When it does not get there; with what it said on standard error.
    pub fn start(options: PortalOptions) -> Self {
        Self::try_start(options).unwrap_or_else(|finished| panic!("the portal did not start: {finished:?}"))
    }

    /// One with the defaults.
    pub fn plain() -> Self {
        Self::start(PortalOptions::default())
    }

    /// One with this configuration.
    pub fn with_config(config: &str) -> Self {
        Self::start(PortalOptions { config: Some(config.into()), ..PortalOptions::default() })
    }

    /// One with this configuration, whose metrics can be asked for.
    pub fn watched(config: &str) -> Self {
        let (config, metrics) = (Some(config.to_owned()), Some("metrics.sock".to_owned()));
        Self::start(PortalOptions { config, metrics, ..PortalOptions::default() })
    }

    /// Starts one, or says how it ended.
    ///
    /// # Errors
    /// What it left when it ended before it was ready.
    ///
    /// # Panics
    /// When it neither gets ready nor ends.
    pub fn try_start(options: PortalOptions) -> Result<Self, Finished> {
        let home = tempfile::Builder::new().prefix("portreeve-").tempdir().expect("a temporary directory");
        let state = options.state.clone().unwrap_or_else(|| home.path().join("state"));
        let mut arguments: Vec<String> =
            ["up", "--listen", options.listen.as_deref().unwrap_or("127.0.0.1:0"), "--state"]
                .map(str::to_owned)
                .into();
        arguments.push(state.display().to_string());
        if let Some(config) = &options.config {
            let file = home.path().join("portreeve.toml");
            std::fs::write(&file, config).expect("the configuration is written");
            arguments.extend(["--config".into(), file.display().to_string()]);
        }
        if let Some(forwards) = &options.forwards {
            arguments.extend(["--forwards".into(), forwards.display().to_string()]);
        }
        if let Some(metrics) = &options.metrics {
            let place = if metrics.contains([':', '/']) {
                metrics.clone()
            } else {
                home.path().join(metrics).display().to_string()
            };
            arguments.extend(["--metrics".into(), place]);
        }
        if let Some(person) = &options.person {
            person.own(home.path());
        }
        let mut under = Vec::new();
        if options.person.is_none() {
            // Its jobs run login shells, whose profiles are no part of the test.
            let home = options.home.as_deref().unwrap_or(home.path());
            under.extend(["env".to_owned(), format!("HOME={}", home.display())]);
        }
        under.extend_from_slice(&options.under);
        let mut running = Running::under(&under, "portreeve", &arguments, options.person.as_ref());
        let lines = [running.line(PATIENCE), running.line(PATIENCE)];
        let [Some(first), Some(second)] = lines else {
            let status = running.wait(Duration::from_secs(1));
            let status = status.unwrap_or_else(|| panic!("it hangs: {}", running.stderr()));
            return Err(Finished { status, out: running.rest_of_stdout(), err: running.stderr() });
        };
        let url = first.strip_prefix("portal: ").unwrap_or_else(|| panic!("first line: {first}")).to_owned();
        let sign_in =
            second.strip_prefix("sign in: ").unwrap_or_else(|| panic!("second line: {second}")).to_owned();
        let authority = url.strip_prefix("https://").and_then(|rest| rest.strip_suffix('/'));
        let authority = authority.unwrap_or_else(|| panic!("no address of a portal: {url}"));
        let port = authority.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(443);
        Ok(Self { running, url, sign_in, port, state, options, home, later_homes: Vec::new() })
    }

    /// `https://localhost:PORT/`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The sign-in address that was printed at the start.
    pub fn sign_in_address(&self) -> &str {
        &self.sign_in
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory that holds its forwards.
    pub fn forwards(&self) -> PathBuf {
        self.options.forwards.clone().unwrap_or_else(|| self.state.join("forwards"))
    }

    /// Its configuration file, if it was started with one.
    pub fn config_file(&self) -> PathBuf {
        self.later_homes.last().unwrap_or(&self.home).path().join("portreeve.toml")
    }

    /// The socket of one that is [`watched`](Self::watched).
    pub fn metrics_socket(&self) -> PathBuf {
        self.later_homes.last().unwrap_or(&self.home).path().join("metrics.sock")
    }

    /// What its metrics socket says to `GET path`.
    pub async fn watch(&self, path: &str) -> super::Answer {
        super::metrics::ask(&self.metrics_socket(), "GET", path).await
    }

    /// Its metrics.
    ///
    /// # Panics
    /// When they are not in Prometheus's text format.
    pub async fn scrape(&self) -> super::Scrape {
        let answer = self.watch("/metrics").await;
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        super::Scrape::parse(&answer.text()).unwrap_or_else(|error| panic!("{error}:\n{}", answer.text()))
    }

    /// Its log and audit records so far.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// Waits until the log has a line with all of these texts, and gives that line.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn logged(&self, texts: &[&str]) -> String {
        until(&format!("a line of the log with {texts:?}"), Duration::from_secs(5), || async {
            let log = self.stderr();
            log.lines().find(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned)
        })
        .await
    }

    /// The process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Resident memory in KiB, as the kernel counts it.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS is there");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Stops it and starts it again on the same state and port.
    ///
    /// # Panics
    /// When it does not end or start.
    pub fn restart(&mut self) {
        self.signal(Signal::SIGTERM);
        let ended = self.running.wait(Duration::from_secs(15));
        assert!(ended.is_some(), "it does not stop:\n{}", self.stderr());
        let options = PortalOptions {
            state: Some(self.state.clone()),
            listen: Some(format!("127.0.0.1:{}", self.port)),
            home: Some(self.options.home.clone().unwrap_or_else(|| self.home.path().to_owned())),
            ..self.options.clone()
        };
        let again = Self::start(options);
        let (running, home) = (again.running, again.home);
        self.running = running;
        self.sign_in = again.sign_in;
        // The first home holds the state.
        self.later_homes.push(home);
    }

    /// Runs `portreeve SUBCOMMAND` on this portal's state directory, as its user.
    pub fn command(&self, arguments: &[&str]) -> Finished {
        let state = self.state.display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--state", &state]);
        portreeve(&all, self.options.person.as_ref())
    }

    /// Runs one of the system's programs as this portal sees the file systems; `None` when it can't be.
    pub fn beside(&self, arguments: &[&str], stdin: Stdio) -> Option<Output> {
        let pid = self.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &pid, "--"]).args(arguments).stdin(stdin).output().ok()
    }

    /// A fresh sign-in address from `portreeve login`.
    ///
    /// # Panics
    /// When it gives none.
    pub fn login(&self) -> String {
        let finished = self.command(&["login"]);
        assert_eq!(finished.status, 0, "{finished:?}");
        finished.out.trim().to_owned()
    }

    /// A fresh code.
    pub fn code(&self) -> String {
        self.login().rsplit_once("code=").expect("a sign-in address has a code").1.to_owned()
    }

    /// A client that has not signed in.
    pub fn stranger(&self) -> Client {
        Client::new(self.port)
    }

    /// A client that signed in with a fresh code.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn sign_in(&self) -> Client {
        let mut client = self.stranger();
        let answer = client.get(&enter(&self.code())).await;
        assert_eq!(answer.status, 303, "sign-in: {answer:?}\n{}", self.stderr());
        client.take_cookies(&answer);
        client
    }

    /// A TCP connection to it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn tcp(&self) -> TcpStream {
        self.tcp_from(Ipv4Addr::LOCALHOST).await
    }

    /// The same from this address of the loopback network.
    ///
    /// # Panics
    /// When there is none.
    pub async fn tcp_from(&self, source: Ipv4Addr) -> TcpStream {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).unwrap_or_else(|error| panic!("{source}: {error}"));
        let stream = socket.connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("TCP has no delay");
        stream
    }

    /// TLS over a connection to it.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When it takes too long.
    pub async fn tls_over(&self, stream: TcpStream, alpn: &[&[u8]]) -> std::io::Result<Secure> {
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let handshake = tokio_rustls::TlsConnector::from(client_config(alpn)).connect(name, stream);
        tokio::time::timeout(PATIENCE, handshake).await.expect("the handshake ends in one way or the other")
    }

    /// A raw TLS stream to it that offers these protocols (`h2`, `http/1.1`).
    ///
    /// # Panics
    /// When the handshake fails.
    pub async fn tls(&self, alpn: &[&[u8]]) -> Secure {
        self.tls_over(self.tcp().await, alpn).await.expect("the TLS handshake succeeds")
    }
}
