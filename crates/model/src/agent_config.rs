//! `agent.toml`, what a node's agent is told: where portals are, and which file holds its key.
//! Invariant: as with the portal's configuration, every problem of the file is reported at once.

use std::path::PathBuf;

use crate::agent_key::check_portals;
use crate::config::{Notes, Problem, Section};
use crate::names::{NodeName, NodePort};
use toml::Spanned;

/// The checked configuration. `AgentConfig::default()` is what an empty file gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Where portals listen for agents; empty: as the key file says.
    pub portals: Vec<NodePort>,
    /// The key file; absolute.
    pub key: PathBuf,
    /// Where `portreeve login` asks on this node; `None`: nowhere. The node's key must have the role `login`.
    pub login_socket: Option<PathBuf>,
    /// Without a key: the weaker way. `portals` is not empty then.
    pub plain: bool,
    /// The node's name, where there is no key file that says it; `None`: the host name.
    pub node: Option<NodeName>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            portals: Vec::new(),
            key: PathBuf::from("/etc/portreeve/agent-key.toml"),
            login_socket: None,
            plain: false,
            node: None,
        }
    }
}

/// Reads and checks a configuration. `file` only names it in the problems.
///
/// # Errors
/// Every problem of the text, in the order of its lines.
pub fn parse(text: &str, file: &str) -> Result<AgentConfig, Vec<Problem>> {
    let mut notes = Notes::default();
    let mut top = Section::whole(text, &mut notes);
    let portals = top.array::<String>("portals", "a string", &mut notes);
    let key = top.string("key", &mut notes);
    let login_socket = top.string("login_socket", &mut notes);
    let plain = top.boolean("plain", &mut notes);
    let node = top.string("node", &mut notes);
    top.refuse_rest(&mut notes);

    let has_portals = portals.as_ref().is_some_and(|portals| !portals.is_empty());
    let default = AgentConfig::default();
    let config = AgentConfig {
        portals: check_portals(portals.unwrap_or_default(), &mut notes),
        key: path(key, "key", &mut notes).unwrap_or(default.key),
        login_socket: path(login_socket.clone(), "login_socket", &mut notes),
        plain: plain.as_ref().is_some_and(|plain| *plain.get_ref()),
        node: node.filter(|node| !node.get_ref().is_empty()).and_then(|node| {
            NodeName::parse(node.get_ref())
                .map_err(|error| {
                    notes.note(node.span(), "node", error.to_string(), "write the node's name".to_owned());
                })
                .ok()
        }),
    };
    if let Some(plain) = plain.filter(|plain| *plain.get_ref()) {
        let mut refuse = |what: &str, remedy: &str| {
            notes.note(plain.span(), "plain", what.to_owned(), remedy.to_owned());
        };
        if !has_portals {
            refuse("without a key file nothing says where portals are", "write portals = [\"HOST:PORT\"]");
        }
        if login_socket.is_some_and(|path| !path.get_ref().is_empty()) {
            refuse("whoever signs people in must have a key", "remove plain, or login_socket");
        }
    }
    if notes.is_empty() { Ok(config) } else { Err(notes.into_problems(text, file)) }
}

/// Empty is as good as not written.
fn path(written: Option<Spanned<String>>, key: &str, notes: &mut Notes) -> Option<PathBuf> {
    let written = written.filter(|path| !path.get_ref().is_empty())?;
    let path = PathBuf::from(written.get_ref());
    if path.is_absolute() && !written.get_ref().contains(char::is_control) {
        return Some(path);
    }
    let remedy = "write the whole path from '/' on".to_owned();
    notes.note(written.span(), key, "this is no absolute path".to_owned(), remedy);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../proxy-config/agent.toml");

    #[test]
    fn the_shipped_file_is_the_defaults() {
        assert_eq!(parse("", "-"), Ok(AgentConfig::default()));
        assert_eq!(parse(SHIPPED, "agent.toml"), Ok(AgentConfig::default()));
        let key = |line: &str| {
            line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic)).map(str::to_owned)
        };
        let uncommented: String =
            SHIPPED.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect();
        assert_eq!(parse(&uncommented, "agent.toml"), Ok(AgentConfig::default()));
        let shown: toml::Table = uncommented.parse().unwrap();
        let mut notes = Notes::default();
        let mut nothing = Section::whole("", &mut notes);
        for key in ["key", "login_socket", "node", "plain", "portals"] {
            nothing.take(key, &mut notes);
        }
        assert_eq!(shown.keys().collect::<Vec<_>>(), notes.known.iter().collect::<Vec<_>>());
    }

    #[test]
    fn every_key_is_read() {
        let text = "portals = ['p1:8444', '[fd00::1]:8444']\nkey = '/k'\nlogin_socket = '/s'\nnode = 'C1'\n";
        let expected = AgentConfig {
            portals: ["p1:8444", "[fd00::1]:8444"].map(|portal| NodePort::parse(portal).unwrap()).into(),
            key: "/k".into(),
            login_socket: Some("/s".into()),
            plain: false,
            node: Some(NodeName::parse("c1").unwrap()),
        };
        assert_eq!(parse(text, "-"), Ok(expected));
        assert!(parse("plain = true\nportals = ['p1:1']", "-").unwrap().plain);
    }

    #[test]
    fn every_problem_at_once() {
        let text =
            "portals = ['p1', 'p2:1']\nkey = 'k'\nlogin_socket = 1\nplain = true\nnode = '-'\nnodes = 1\n";
        let told: Vec<String> = parse(text, "a").unwrap_err().iter().map(Problem::to_string).collect();
        for (told, start) in told.iter().zip([
            "a:1: portals: ",
            "a:2: key: this is no absolute path",
            "a:3: login_socket: an integer where a string belongs",
            "a:5: node: ",
            "a:6: nodes: there is no such key; did you mean node?",
        ]) {
            assert!(told.starts_with(start), "{told}");
        }
        assert_eq!(told.len(), 5, "{told:#?}");
        for (text, what) in [
            ("plain = true", "a:1: plain: without a key file nothing says where portals are"),
            (
                "login_socket = '/s'\nportals = ['p:1']\nplain = true",
                "a:3: plain: whoever signs people in must have a key",
            ),
        ] {
            let told = parse(text, "a").unwrap_err();
            assert!(told.len() == 1 && told[0].to_string().starts_with(what), "{told:?}");
        }
    }
}
