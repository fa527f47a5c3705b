//! For the tests: what a node's firewall is told, and a network namespace where other nodes' addresses are free.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{Builder, current, scope};

use arc_swap::ArcSwap;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use portreeve_model::firewall::Exempt;
use portreeve_model::{AgentKey, FirewallConfig, GroupRules, NodeMap, NodeName, Secret};

use super::Shared;
use super::counts::Counts;
use super::outgoing::Sent;
use super::settings::Settings;
use crate::channel::Identity;
use crate::lookup::tests::FORKS;

/// Users of nobody's: nobody is exempt here.
pub(crate) const ALICE: u32 = 20_900;
/// See [`ALICE`].
pub(crate) const BOB: u32 = 20_901;

/// Says aloud that the test which runs in this thread, or a part of it, does not run here.
pub(crate) fn skip(why: &str) {
    println!("SKIPPED: {}: {why}", current().name().unwrap_or_default());
}

/// Runs the test in a network namespace of its own, in which these are addresses of the loopback interface. Without root
/// it says so, and the test passes.
pub(crate) fn alone(addresses: &[&str], test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let inside = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip(&format!("needs a network namespace: {error}"));
        }
        if !shell("ip link set lo up") {
            return skip("needs ip");
        }
        assert!(addresses.iter().all(|address| shell(&format!("ip addr add {address} dev lo"))));
        test();
    };
    // The thread's alone: no other test sees it.
    let named = Builder::new().name(current().name().unwrap_or_default().to_owned());
    scope(|scope| named.spawn_scoped(scope, inside).unwrap().join().unwrap());
}

/// Whether a command in this thread's network namespace succeeds.
pub(super) fn shell(script: &str) -> bool {
    let alone = FORKS.write().unwrap();
    let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
    drop(alone);
    child.wait().unwrap().success()
}

pub(super) fn identity() -> Identity {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Identity::from_pem(&Secret::new(pair.serialize_pem())).unwrap()
}

/// A node map of these nodes, by their keys and addresses.
pub(super) fn node_map(nodes: &[(&str, AgentKey, &[&str])]) -> String {
    let node = |(name, key, addresses): &(&str, AgentKey, &[&str])| {
        format!("[[node]]\nname = '{name}'\naddresses = {addresses:?}\nkey = '{key}'\n")
    };
    nodes.iter().map(node).collect()
}

/// What c1 is told.
pub(super) fn settings(own: &Identity, nodes: &[(&str, AgentKey, &[&str])]) -> Settings {
    Settings {
        config: FirewallConfig::default(),
        node: NodeName::parse("c1").unwrap(),
        own: own.clone(),
        nodes: NodeMap::parse(&node_map(nodes), "nodes.toml").unwrap(),
        exempt: Exempt::default(),
        groups: GroupRules { never: Vec::new() },
    }
}

pub(super) fn shared(settings: Settings) -> Arc<Shared> {
    let (settings, counts) = (ArcSwap::from_pointee(settings), Counts::new(&[0]));
    Arc::new(Shared { settings, counts, sent: Sent::default() })
}

/// A socket of that user's.
pub(super) fn given<S: AsFd>(socket: S, uid: u32) -> S {
    fchown(&socket, Some(uid), None).unwrap();
    socket
}

pub(super) fn listener_of(uid: u32, at: SocketAddr) -> TcpListener {
    given(TcpListener::bind(at).unwrap(), uid)
}

/// One of several sockets of UDP on a port.
pub(crate) fn one_of(uid: u32, port: u16) -> UdpSocket {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))).unwrap();
    given(UdpSocket::from(socket), uid)
}
