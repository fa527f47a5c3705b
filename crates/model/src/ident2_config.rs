//! `ident2.toml`, what a node that answers ident2 questions is told: who may ask on the node, and which other nodes there
//! are.
//! Invariant: as with the portal's configuration, every problem of the file is reported at once.

use std::path::PathBuf;

use toml::Spanned;

use crate::config::{Notes, Problem, Section, is_group_name, networks, number, path};
use crate::network::Network;

/// Where such a service listens if nobody says otherwise.
pub const SOCKET: &str = "/run/ident2d.sock";

/// The checked configuration. `Ident2Config::default()` is what an empty file gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ident2Config {
    /// Where processes of this node ask; absolute.
    pub socket: PathBuf,
    /// The group whose members may; `None`: root alone.
    pub socket_group: Option<String>,
    /// Everybody on the node may.
    pub socket_other: bool,
    /// The UDP port of all nodes, both as source and as destination: 1 to 1023.
    pub port: u16,
    /// The other nodes; none: no port is opened.
    pub peers: Vec<Network>,
}

impl Default for Ident2Config {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(SOCKET),
            socket_group: None,
            socket_other: false,
            port: 99,
            peers: Vec::new(),
        }
    }
}

/// Reads and checks a configuration. `file` only names it in the problems.
///
/// # Errors
/// Every problem of the text, in the order of its lines.
pub fn parse(text: &str, file: &str) -> Result<Ident2Config, Vec<Problem>> {
    let mut notes = Notes::default();
    let mut top = Section::whole(text, &mut notes);
    let socket = top.string("socket", &mut notes);
    let socket_group = top.string("socket_group", &mut notes);
    let socket_other = top.boolean("socket_other", &mut notes);
    let port = top.integer("port", &mut notes);
    let peers = top.array::<String>("peers", "a string", &mut notes);
    top.refuse_rest(&mut notes);

    let default = Ident2Config::default();
    let config = Ident2Config {
        socket: path(socket.as_ref(), "socket", &mut notes).map_or(default.socket, |(_, path)| path),
        socket_group: group(socket_group, &mut notes),
        socket_other: socket_other.map_or(default.socket_other, Spanned::into_inner),
        // A port that users can't have: the nodes believe whoever sends from it.
        port: number(port, "port", 1..=1023, &mut notes).unwrap_or(default.port),
        peers: networks(peers, "peers", &mut notes),
    };
    if notes.is_empty() { Ok(config) } else { Err(notes.into_problems(text, file)) }
}

/// Empty is as good as not written.
fn group(written: Option<Spanned<String>>, notes: &mut Notes) -> Option<String> {
    let written = written.filter(|name| !name.get_ref().is_empty())?;
    if is_group_name(written.get_ref()) {
        return Some(written.into_inner());
    }
    let remedy = "write a name as getent group shows it".to_owned();
    notes.note(written.span(), "socket_group", "this is no group's name".to_owned(), remedy);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../proxy-config/ident2.toml");

    #[test]
    fn the_shipped_file_is_the_defaults() {
        assert_eq!(parse("", "-"), Ok(Ident2Config::default()));
        assert_eq!(parse(SHIPPED, "ident2.toml"), Ok(Ident2Config::default()));
        let key = |line: &str| {
            line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic)).map(str::to_owned)
        };
        let uncommented: String =
            SHIPPED.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect();
        assert_eq!(parse(&uncommented, "ident2.toml"), Ok(Ident2Config::default()));
        let shown: toml::Table = uncommented.parse().unwrap();
        let mut notes = Notes::default();
        let mut nothing = Section::whole("", &mut notes);
        for key in ["peers", "port", "socket", "socket_group", "socket_other"] {
            nothing.take(key, &mut notes);
        }
        assert_eq!(shown.keys().collect::<Vec<_>>(), notes.known.iter().collect::<Vec<_>>());
    }

    #[test]
    fn every_key_is_read() {
        let text = "socket = '/s'\nsocket_group = 'ident2'\nsocket_other = true\nport = 1023\n\
                    peers = ['172.16.0.0/12', 'fd00::/8']";
        let expected = Ident2Config {
            socket: "/s".into(),
            socket_group: Some("ident2".to_owned()),
            socket_other: true,
            port: 1023,
            peers: ["172.16.0.0/12", "fd00::/8"].map(|peers| Network::parse(peers).unwrap()).into(),
        };
        assert_eq!(parse(text, "-"), Ok(expected));
    }

    #[test]
    fn every_problem_at_once() {
        let text = "socket = 's'\nsocket_group = 'a,b'\nsocket_other = 1\nport = 1024\n\
                    peers = ['10.0.0.0/8', '10.0.0.1/8']\npeer = ''\n";
        let told: Vec<String> = parse(text, "i").unwrap_err().iter().map(Problem::to_string).collect();
        for (told, start) in told.iter().zip([
            "i:1: socket: this is no absolute path",
            "i:2: socket_group: this is no group's name",
            "i:3: socket_other: an integer where true or false belongs",
            "i:4: port: 1024 is out of range",
            "i:5: peers: a network is written as",
            "i:6: peer: there is no such key; did you mean peers?",
        ]) {
            assert!(told.starts_with(start), "{told}");
        }
        assert_eq!(told.len(), 6, "{told:#?}");
        for port in ["0", "-1", "65635", "'99'"] {
            assert_eq!(parse(&format!("port = {port}"), "i").unwrap_err().len(), 1, "{port}");
        }
    }
}
