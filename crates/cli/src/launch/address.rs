//! Where the program listens, and how it is told. Before: what was typed, and Slurm's environment.
//!
//! Invariants: a port that is not Slurm's is held until the program listens on it, so that no other `portreeve launch` takes it;
//! a token has 192 random bits and stands in no record but its owner's.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, bail};
use data_encoding::BASE64URL_NOPAD;
use portreeve_model::Secret;
use tokio::net::TcpSocket;

use super::Launch;
use crate::config;

/// Ports are taken from here: above those of services, below those that Linux gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// So many are tried.
const TRIES: usize = 200;

/// Where it listens.
pub(super) struct Address {
    /// The node, as the portal knows it.
    pub(super) node: String,
    /// What the program is to listen on: the node's name where that leads outside, else every address.
    pub(super) host: String,
    pub(super) port: u16,
    /// `/fw/NAME` or `/fw2/NODE:PORT`; empty where it has an origin of its own.
    pub(super) prefix: String,
    pub(super) token: Secret,
    /// The port, held until the program has it.
    pub(super) held: Option<TcpSocket>,
    /// Whether another port could be tried.
    pub(super) is_ours_to_choose: bool,
}

impl Address {
    /// Of this launch.
    ///
    /// # Errors
    /// When no port is to be had.
    pub(super) fn of(launch: &Launch) -> anyhow::Result<Self> {
        let (node, host) = this_node(launch);
        let reserved = std::env::var("SLURM_STEP_RESV_PORTS").ok().filter(|text| !text.is_empty());
        let (port, held) = match (launch.port, &reserved) {
            (Some(port), _) => (port, None),
            (None, Some(text)) => (first_port(text)?, None),
            (None, None) => free_port()?,
        };
        let own_origin = std::env::var("PORTREEVE_ORIGINS").is_ok_and(|form| form == "own");
        let prefix = match &launch.forward {
            _ if own_origin => String::new(),
            Some(name) => format!("/fw/{name}"),
            None => format!("/fw2/{node}:{port}"),
        };
        let mut random = [0; 24];
        getrandom::fill(&mut random).context("no random numbers can be had")?;
        let token = Secret::new(BASE64URL_NOPAD.encode(&random));
        let is_ours_to_choose = launch.port.is_none() && reserved.is_none();
        Ok(Self { node, host, port, prefix, token, held, is_ours_to_choose })
    }

    /// Puts host, port and the like into a text. Other braces stay: they mean something to shells and to programs as well.
    pub(super) fn fill(&self, text: &OsStr) -> OsString {
        let mut filled = Vec::new();
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'{' | b'}')) {
            filled.extend_from_slice(&rest[..at]);
            let brace = rest[at];
            rest = &rest[at + 1..];
            if rest.first() == Some(&brace) {
                filled.push(brace);
                rest = &rest[1..];
                continue;
            }
            let word = rest.iter().position(|byte| *byte == b'}').map(|end| &rest[..end]);
            let value = match word.filter(|_| brace == b'{') {
                Some(b"port") => self.port.to_string(),
                Some(b"host") => self.host.clone(),
                Some(b"node") => self.node.clone(),
                Some(b"prefix") => self.prefix.clone(),
                Some(b"token") => self.token.reveal().to_owned(),
                _ => {
                    filled.push(brace);
                    continue;
                }
            };
            filled.extend_from_slice(value.as_bytes());
            rest = &rest[word.map_or(0, <[u8]>::len) + 1..];
        }
        filled.extend_from_slice(rest);
        OsString::from_vec(filled)
    }

    /// The same, of a text.
    pub(super) fn fill_text(&self, text: &str) -> String {
        // What is put in is text as well.
        self.fill(text.as_ref()).to_string_lossy().into_owned()
    }

    /// Where a program that listens as it was told is reached from here.
    pub(super) fn reached(&self, listens_on: IpAddr) -> SocketAddr {
        let ip = match listens_on {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.port)
    }
}

/// What the portal calls this node, and what a program listens on here.
fn this_node(launch: &Launch) -> (String, String) {
    let of_variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let is_here = of_variable("PORTREEVE_HERE").is_some();
    let slurm = of_variable("SLURMD_NODENAME");
    if launch.node.is_none() && (is_here || (slurm.is_none() && config::cluster_url().is_none())) {
        return ("localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string());
    }
    let machine =
        || portreeve_sys::host_name().unwrap_or_default().split('.').next().unwrap_or_default().to_owned();
    let node = launch.node.clone().or(slurm).unwrap_or_else(machine);
    // Debian gives a machine's own name an address of the loopback, where nobody outside reaches it.
    let found = (node.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    let leads_outside = !found.is_empty() && found.iter().all(|address| !address.ip().is_loopback());
    let host = if leads_outside { node.clone() } else { Ipv4Addr::UNSPECIFIED.to_string() };
    (node, host)
}

/// The first port of a list such as `12000,12002-12003`, as Slurm writes it.
fn first_port(text: &str) -> anyhow::Result<u16> {
    let lowest = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?);
        (low <= high).then_some(low)
    };
    let ports: Option<Vec<u16>> = text.split(',').map(lowest).collect();
    match ports.as_deref() {
        Some([first, ..]) if *first >= 1024 => Ok(*first),
        _ => bail!("SLURM_STEP_RESV_PORTS is {text:?}, which is no list of ports"),
    }
}

/// A port that nobody has, and what holds it: it is bound strictly, so that of two who choose the same one gets it, and only then
/// opened to programs that bind with SO_REUSEADDR, as nearly all do that listen.
pub(super) fn free_port() -> anyhow::Result<(u16, Option<TcpSocket>)> {
    for _ in 0..TRIES {
        let mut random = [0; 2];
        getrandom::fill(&mut random).context("no random numbers can be had")?;
        let port = PORTS.start + u16::from_ne_bytes(random) % (PORTS.end - PORTS.start);
        let held = TcpSocket::new_v4().context("no socket can be had")?;
        if held.bind((Ipv4Addr::UNSPECIFIED, port).into()).is_ok() && is_free_for_v6(port) {
            held.set_reuseaddr(true)?;
            return Ok((port, Some(held)));
        }
    }
    bail!("no free port was found between {} and {}", PORTS.start, PORTS.end)
}

/// A program that listens on `[::]` alone would not be met by a bind for IPv4.
fn is_free_for_v6(port: u16) -> bool {
    // Without IPv6 nobody has it there.
    portreeve_sys::SockDiag::open()
        .and_then(|mut diag| diag.listening_on(port))
        .is_ok_and(|found| found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        Address {
            node: "c1".to_owned(),
            host: "0.0.0.0".to_owned(),
            port: 12001,
            prefix: "/fw2/c1:12001".to_owned(),
            token: Secret::new("T".to_owned()),
            held: None,
            is_ours_to_choose: false,
        }
    }

    #[test]
    fn what_stands_in_braces() {
        for (text, expected) in [
            ("--port={port}", "--port=12001"),
            ("{host}:{port}{prefix}/", "0.0.0.0:12001/fw2/c1:12001/"),
            ("lab?token={token}", "lab?token=T"),
            ("{{port}}", "{port}"),
            ("a {b} ${c} {", "a {b} ${c} {"),
            ("}{port}", "}12001"),
            ("{node", "{node"),
            ("äöü{port}", "äöü12001"),
            ("{'a': {port}}", "{'a': 12001}"),
        ] {
            assert_eq!(address().fill_text(text), expected, "{text}");
        }
        let bytes = OsStr::from_bytes(b"\xff{port}");
        assert_eq!(address().fill(bytes).as_bytes(), b"\xff12001");
    }

    #[test]
    fn ports_that_slurm_reserved() {
        for (text, port) in [
            ("12001", Some(12001)),
            ("12000,12002-12003", Some(12000)),
            ("12002-12003", Some(12002)),
            ("", None),
            ("x", None),
            ("12000,x", None),
            ("12003-12002", None),
            ("80", None),
            ("99999", None),
        ] {
            assert_eq!(first_port(text).ok(), port, "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_held_is_for_its_program_alone() {
        let (port, held) = free_port().unwrap();
        let other = TcpSocket::new_v4().unwrap();
        assert!(other.bind((Ipv4Addr::UNSPECIFIED, port).into()).is_err(), "another launch");
        // As the program does.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(held);
        drop(listener);
    }
}
