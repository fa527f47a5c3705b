//! A cluster in network namespaces: the portal's end on a thread with a namespace of its own, nodes in others, cables
//! between them. None of it has a name on this machine: a namespace goes with its last process, and a cable with its
//! namespace, so nothing can be left behind.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, gettid};
use portreeve_agent::channel::Identity;
use portreeve_model::wire::agent::Owned;
use portreeve_model::{Network, NodeMap, NodeName, Secret, Tuple};
use portreeve_portal::agents::{Agents, Connection, Heard, LoginAsked, NoOwner, Rules};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::people::{Person, skip};
use super::process::{Running, built, portreeve};
use super::{PATIENCE, until};

/// The system user that agents run as here. Nobody knows it by name.
const SYSTEM_USER: u32 = 20_990;

/// The network of one test.
#[derive(Debug)]
pub struct Lan {
    namespace: PathBuf,
    cables: AtomicU32,
}

/// Runs a test on a thread that has a network of its own.
///
/// # Panics
/// When the test does.
pub fn in_a_network<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Lan) -> F + Send + 'static) {
    if !Uid::effective().is_root() {
        return skip(name, "needs root");
    }
    if std::env::var_os("PORTREEVE_TESTS_FAST").is_some() {
        return skip(name, "left out by --fast");
    }
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return Err(format!("no network namespace can be had here: {error}"));
        }
        let namespace = PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid()));
        let lan = Lan { namespace, cables: AtomicU32::new(0) };
        lan.ip(&["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test(lan));
        runtime.shutdown_background();
        Ok(())
    });
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(why)) => skip(name, &why),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn ip_in(namespace: &Path, arguments: &[&str]) {
    let inside = format!("--net={}", namespace.display());
    let done = Command::new("nsenter").arg(inside).args(["--", "ip"]).args(arguments).output();
    let done = done.expect("nsenter and ip are there");
    assert!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Lan {
    fn ip(&self, arguments: &[&str]) {
        ip_in(&self.namespace, arguments);
    }

    /// A machine without any cable.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn node(&self, name: &str) -> Node {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--", "cat"]);
        let holder = Running::start(command);
        let namespace = PathBuf::from(format!("/proc/{}/ns/net", holder.pid()));
        let ours = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        until("the node's network", PATIENCE, async || {
            let its = std::fs::read_link(&namespace).ok()?;
            let program = std::fs::read_to_string(format!("/proc/{}/comm", holder.pid())).ok()?;
            (its != ours && program.trim() == "cat").then_some(())
        })
        .await;
        ip_in(&namespace, &["link", "set", "lo", "up"]);
        Node { name: name.to_owned(), namespace, holder }
    }

    /// A cable between the portal and a node, with an address and prefix length at each end.
    pub fn cable(&self, node: &Node, portal: &[&str], there: &[&str]) {
        let number = self.cables.fetch_add(1, Relaxed);
        let (near, far) = (format!("p{number}"), format!("e{number}"));
        let pid = node.holder.pid().to_string();
        self.ip(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &pid]);
        for (namespace, end, addresses) in [(&self.namespace, &near, portal), (&node.namespace, &far, there)]
        {
            ip_in(namespace, &["link", "set", end, "up"]);
            for address in addresses {
                let mut arguments = vec!["addr", "add", address, "dev", end];
                // It is in use at once: nobody else could have it.
                arguments.extend(address.contains(':').then_some("nodad"));
                ip_in(namespace, &arguments);
            }
        }
    }
}

/// A machine.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: PathBuf,
    holder: Running,
}

/// What an agent may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// All that root may.
    Root,
    /// A system user with the two capabilities for the group rule.
    Least,
    /// A system user with none.
    None,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network namespace, as a path.
    pub fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// Starts a program here, to be killed with this process.
    pub fn start(&self, program: &Path, options: &[String], arguments: &[String]) -> Running {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL"]).args(options).arg("--").arg(program);
        command.args(arguments);
        Running::start(command)
    }

    /// An application of somebody's; see `portreeve-test-app`.
    ///
    /// # Panics
    /// When it can't listen there.
    pub fn app(&self, person: &Person, address: &str, more: &[&str]) -> NodeApp {
        let program = built("portreeve-test-app").display().to_string();
        let words = [&[program.as_str(), "--listen", address], more].concat();
        self.listening(self.start_as(person, &words))
    }

    /// The same, in this control group.
    ///
    /// # Panics
    /// When it can't listen there.
    pub fn app_in(&self, group: &Path, person: &Person, address: &str) -> NodeApp {
        // Only root may move a process there, and it must be there before it makes its socket.
        let script = "echo $$ > \"$1/cgroup.procs\" && shift && exec setpriv --pdeathsig KILL --reuid $1 --regid $2 \
                      --clear-groups -- $3 --listen $4";
        let (uid, gid) = (person.uid.to_string(), person.gid.to_string());
        let (group, program) =
            (group.display().to_string(), built("portreeve-test-app").display().to_string());
        let words = ["-c", script, "sh", &group, &uid, &gid, &program, address].map(str::to_owned);
        self.listening(self.start(Path::new("/bin/sh"), &[], &words))
    }

    fn start_as(&self, person: &Person, words: &[&str]) -> Running {
        let groups: Vec<String> = person.groups.iter().map(ToString::to_string).collect();
        let (uid, gid) = (person.uid.to_string(), person.gid.to_string());
        let options = ["--reuid", &uid, "--regid", &gid, "--groups", &groups.join(",")].map(str::to_owned);
        let arguments: Vec<String> = words[1..].iter().map(ToString::to_string).collect();
        self.start(Path::new(words[0]), &options, &arguments)
    }

    fn listening(&self, running: Running) -> NodeApp {
        let line = running.line(PATIENCE).unwrap_or_default();
        let port = line.strip_prefix("listening on ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{}: {line} {}", self.name, running.stderr()));
        NodeApp { _running: running, port }
    }

    /// Starts the agent with this configuration file.
    pub fn agent(&self, config: &Path, rights: Rights) -> Agent {
        let user = SYSTEM_USER.to_string();
        let mut options: Vec<String> = Vec::new();
        if rights != Rights::Root {
            options.extend(["--reuid", &user, "--regid", &user, "--clear-groups"].map(str::to_owned));
        }
        if rights == Rights::Least {
            let capabilities = "+sys_ptrace,+dac_read_search";
            options.extend(["--inh-caps", capabilities, "--ambient-caps", capabilities].map(str::to_owned));
        }
        let arguments = ["--config".to_owned(), config.display().to_string()];
        Agent(self.start(&built("portreeve-agent"), &options, &arguments))
    }
}

/// An application on a node.
#[derive(Debug)]
pub struct NodeApp {
    _running: Running,
    port: u16,
}

impl NodeApp {
    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent(pub Running);

impl Agent {
    /// Waits until its log has a line with all of these.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn logged(&self, parts: &[&str]) -> String {
        until(&format!("{parts:?} in the agent's log"), 2 * PATIENCE, async || {
            let log = self.0.stderr();
            log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        })
        .await
    }

    /// A line of `/proc/PID/status`.
    pub fn status(&self, field: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.pid())).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }
}

/// The portal's end: what takes agents in, with keys and node map as `portreeve keys` makes them.
pub struct Portal {
    /// The directory of the configuration.
    pub dir: tempfile::TempDir,
    /// What is under test.
    pub agents: Arc<Agents>,
    /// What login nodes ask.
    pub logins: mpsc::Receiver<LoginAsked>,
    at: SocketAddr,
    accepting: JoinHandle<()>,
}

/// `portreeve keys` or `portreeve nodes`.
fn run(arguments: &[&str]) {
    let done = portreeve(arguments, None);
    assert_eq!(done.status, 0, "{arguments:?}: {done:?}");
}

fn rules(dir: &Path, plain: &[&str]) -> Rules {
    let key = std::fs::read_to_string(dir.join("agents-key.pem")).expect("the portal's key");
    let nodes = std::fs::read_to_string(dir.join("nodes.toml")).expect("the node map");
    Rules {
        key: Some(Identity::from_pem(&Secret::new(key)).expect("a key")),
        nodes: NodeMap::parse(&nodes, "nodes.toml").unwrap_or_else(|problems| panic!("{problems:?}")),
        plain_networks: plain.iter().map(|text| Network::parse(text).expect("a network")).collect(),
    }
}

impl Portal {
    /// Makes the portal's key and begins to listen for agents at this address.
    ///
    /// # Panics
    /// When it can't.
    pub async fn new(at: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().display().to_string();
        // The key is root's, and the way there everybody's.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("our directory");
        run(&["keys", "--dir", &path, "init", "--portal", at]);
        let (asked, logins) = mpsc::channel(16);
        let agents = Arc::new(Agents::new(rules(dir.path(), &[]), asked).expect("a key"));
        let at = at.parse().expect("an address");
        let accepting = accept(at, Arc::clone(&agents)).await;
        Self { dir, agents, logins, at, accepting }
    }

    /// Makes a node's key, and an agent's configuration with it; returns the configuration's path.
    ///
    /// # Panics
    /// When it can't.
    pub fn add(&self, node: &str, addresses: &[&str], more: &[&str]) -> PathBuf {
        let dir = self.dir.path().display().to_string();
        let addresses = addresses.join(",");
        let mut arguments = vec!["keys", "--dir", &dir, "add", node];
        if !addresses.is_empty() {
            arguments.extend(["--addresses", &addresses]);
        }
        arguments.extend(more);
        run(&arguments);
        let config = self.dir.path().join(format!("{node}.agent.toml"));
        std::fs::write(&config, format!("key = \"{}\"\n", self.key_file(node).display())).expect("a file");
        self.reload(&[]);
        config
    }

    /// The node's key file.
    pub fn key_file(&self, node: &str) -> PathBuf {
        self.dir.path().join("agent-keys").join(format!("{node}.toml"))
    }

    /// Runs `portreeve` on the directory: `keys revoke c1`.
    pub fn portreeve(&self, arguments: &[&str]) {
        let (dir, mut all) = (self.dir.path().display().to_string(), arguments.to_vec());
        all.extend(["--dir", &dir]);
        run(&all);
    }

    /// Takes the files as they are now into use.
    ///
    /// # Panics
    /// When they are wrong.
    pub fn reload(&self, plain_networks: &[&str]) {
        self.agents.reload(rules(self.dir.path(), plain_networks)).expect("a key");
    }

    /// Waits until the node's agent is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn connected(&self, node: &str) {
        until(&format!("the agent of {node}"), 2 * PATIENCE, async || {
            matches!(self.connection(node), Connection::Up { latency: Some(_), .. }).then_some(())
        })
        .await;
    }

    /// How it stands with a node's agent.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn connection(&self, node: &str) -> Connection {
        let node = NodeName::parse(node).expect("a name");
        let states = self.agents.states();
        states.into_iter().find(|state| state.node == node).expect("it is in the map").connection
    }

    /// Stops to listen, and ends every connection without a word, as when the machine crashes.
    pub async fn vanish(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    /// Listens again.
    pub async fn come_back(&mut self) {
        self.accepting = accept(self.at, Arc::clone(&self.agents)).await;
    }

    /// Connects to an application, and asks who owns it.
    ///
    /// # Panics
    /// When nothing listens there.
    pub async fn owner(&self, server: SocketAddr, group: bool) -> Result<Heard<Owned>, NoOwner> {
        let (_stream, tuple) = connect(server).await;
        self.agents.owner(&tuple, group).await
    }
}

/// A connection from this thread's network, and what to ask about it.
///
/// # Panics
/// When nothing listens there.
pub async fn connect(server: SocketAddr) -> (TcpStream, Tuple) {
    let stream = TcpStream::connect(server).await.unwrap_or_else(|error| panic!("{server}: {error}"));
    let tuple = Tuple {
        client: stream.local_addr().expect("an address"),
        server: stream.peer_addr().expect("an address"),
    };
    (stream, tuple)
}

async fn accept(at: SocketAddr, agents: Arc<Agents>) -> JoinHandle<()> {
    let started = Instant::now();
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{at}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    tokio::spawn(async move {
        // Dropped with this task, and with it every connection.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let agents = Arc::clone(&agents);
            connections.spawn(async move { agents.accept(stream).await });
        }
    })
}

/// An address with this port.
///
/// # Panics
/// When it is none.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}
