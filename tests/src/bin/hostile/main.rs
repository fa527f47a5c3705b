//! The attacker: takes the place of `portreeve-portal` and does as it is told (`portreeve_tests::hostile`), with what the
//! portal's unit gave it and what it leaves it. Orders come over the metrics socket, one a line, and so do answers; each attack is
//! also one JSON line on standard error.
//!
//!   portreeve-portal ...                                in the portal's place
//!   portreeve-test-hostile attempts PID...              every attempt, each in a process of its own; also on these processes:
//!                                                       that they work for one who may
//!
//! | module | |
//! | --- | --- |
//! | `files` | paths |
//! | `processes` | other processes, and code |
//! | `sockets` | new sockets, and those that it holds |
//! | `line` | the broker |
//! | `channels` | dialers, workers |

mod channels;
mod files;
mod line;
mod processes;
mod sockets;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Result, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use portreeve_sys::Sandbox;
use portreeve_tests::hostile::{Denied, Order, Outcome, Report};

use self::line::Heard;

/// What it holds.
#[derive(Default)]
struct Held {
    by_name: BTreeMap<String, OwnedFd>,
    /// What was heard on each line with the broker.
    heard: BTreeMap<String, Heard>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["attempts", ref pids @ ..] => processes::each_alone(pids),
        ["attempt", name] => {
            report(&processes::attempt(name));
            Ok(())
        }
        _ => in_its_place(),
    }
}

/// As the portal begins: its sockets, and nobody may look into it.
fn in_its_place() -> Result<()> {
    let mut held = Held::default();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    for (place, name) in names.split(':').enumerate() {
        let number = 3 + i32::try_from(place).map_err(std::io::Error::other)?;
        held.by_name.insert(name.to_owned(), portreeve_sys::inherited(number)?);
    }
    nix::sys::prctl::set_dumpable(false)?;
    let orders = held.by_name.remove("metrics").ok_or_else(|| std::io::Error::other("no metrics socket"))?;
    let orders = UnixListener::from(orders);
    loop {
        let (caller, _) = orders.accept()?;
        if let Err(error) = serve(caller, &mut held) {
            eprintln!("a caller went: {error}");
        }
    }
}

fn serve(caller: UnixStream, held: &mut Held) -> Result<()> {
    caller.set_nonblocking(false)?;
    let mut answers = caller.try_clone()?;
    for line in BufReader::new(caller).lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let said = held.obey(order);
        if let Report::Outcomes(outcomes) = &said {
            outcomes
                .iter()
                .for_each(|outcome| eprintln!("{}", serde_json::to_string(outcome).unwrap_or_default()));
        }
        writeln!(answers, "{}", serde_json::to_string(&said)?)?;
    }
    Ok(())
}

fn report(outcome: &Outcome) {
    println!("{}", serde_json::to_string(outcome).unwrap_or_default());
}

/// One attack, by its name.
fn outcome(name: impl Into<String>, result: Result<impl Into<String>>) -> Outcome {
    let denied = |error: std::io::Error| Denied { errno: error.raw_os_error(), why: error.to_string() };
    Outcome { name: name.into(), result: result.map(Into::into).map_err(denied) }
}

fn one(name: impl Into<String>, result: Result<impl Into<String>>) -> Report {
    Report::Outcomes(vec![outcome(name, result)])
}

impl Held {
    fn obey(&mut self, order: Order) -> Report {
        match order {
            Order::LockUp => {
                let locked = Sandbox::portal().and_then(|sandbox| sandbox.enter());
                one("lock-up", locked.map(|()| "").map_err(std::io::Error::other))
            }
            Order::Descriptors => one("descriptors", files::descriptors()),
            Order::Attempt(name) => Report::Outcomes(vec![processes::attempt(&name)]),
            Order::Attempts => Report::Outcomes(processes::attempts()),
            Order::OnProcesses(pids) => Report::Outcomes(processes::on_processes(&pids)),
            Order::OnPeer { socket } => {
                one("peer", self.socket(&socket).and_then(processes::on_peer).map(|()| ""))
            }
            Order::SignalByDescriptor { pid } => {
                one("signal-by-descriptor", portreeve_sys::attempts::signal_on_input(pid).map(|()| ""))
            }
            Order::Path { to, path } => one(format!("{to:?} {path}"), files::use_path(to, &path)),
            Order::Walk { mark } => files::walk(&mark),
            Order::Log(line) => {
                eprintln!("{line}");
                one("log", Ok(""))
            }
            Order::Socket { family, kind, pair } => {
                one(format!("socket {family} {kind} {pair}"), sockets::make(family, kind, pair).map(|()| ""))
            }
            Order::ConnectUnix { kind, path } => {
                one(format!("connect {kind} {path}"), sockets::connect_unix(kind, &path).map(|()| ""))
            }
            Order::SendUnix { path } => {
                one(format!("send to {path}"), sockets::send_unix(&path).map(|()| ""))
            }
            Order::Tcp { to, listen } => {
                one(format!("tcp {to} {listen}"), sockets::tcp(to, listen).map(|()| ""))
            }
            Order::Accept { listener, into } => one("accept", self.accept(&listener, into).map(|()| "")),
            Order::Lead { socket, how, to } => one(
                format!("{how:?}"),
                self.socket(&socket).and_then(|socket| sockets::lead(socket, how, to)).map(|()| ""),
            ),
            Order::NamespaceOf(name) => one(
                "namespace of a socket",
                self.socket(&name).and_then(sockets::enter_namespace).map(|()| ""),
            ),
            Order::Ask { line, question, with } => self.ask(&line, question, &with),
            Order::Flood { line, uid, count } => self.flood(&line, uid, count),
            Order::Pair { kind, names } => one("pair", self.pair(kind, names).map(|()| "")),
            Order::Open { path, into } => one("open", self.open(&path, into).map(|()| "")),
            Order::Send { on, text, with } => one("send", self.send(&on, &text, &with).map(|()| "")),
            Order::Receive(name) => one("receive", self.receive(&name)),
            Order::Dial { channel, to, into } => one(format!("dial {to}"), self.dial(&channel, to, into)),
            Order::Workspace { connection, user, ticket } => {
                one("workspace", self.workspace(&connection, &user, &ticket))
            }
            Order::Close(name) => {
                self.by_name.remove(&name);
                self.heard.remove(&name);
                one("close", Ok(""))
            }
        }
    }

    fn socket(&self, name: &str) -> Result<&OwnedFd> {
        self.by_name.get(name).ok_or_else(|| std::io::Error::other(format!("it holds nothing called {name}")))
    }
}
