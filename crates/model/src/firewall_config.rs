//! `firewall.toml`, what a node's firewall is told: which queues it serves, who is exempt, how other nodes are asked.
//! Invariant: as with the portal's configuration, every problem of the file is reported at once.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use crate::Port;
use crate::config::{GroupRef, Notes, Problem, Section, WrittenGroup, check_group, duration, number, path};

/// Ports that only root may take.
pub const PRIVILEGED: RangeInclusive<u16> = 1..=1023;
/// The port from which on any user may listen, where the kernel was not told otherwise.
const FIRST_PORT: Port = Port::new(*PRIVILEGED.end() + 1).expect("not 0");
/// Queues that one firewall serves at most.
pub const MAX_QUEUES: u16 = 64;

/// The checked configuration. `FirewallConfig::default()` is what an empty file gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallConfig {
    /// The agent's key file, with the node's name and private key; absolute.
    pub key: PathBuf,
    /// The node map, the same file on every node: whose addresses and keys are whose; absolute.
    pub nodes: PathBuf,
    /// Where the firewalls of the nodes ask one another: a TCP port of [`PRIVILEGED`], the same on every node.
    pub port: u16,
    /// The packet filter's queues that are served; `None`: only other nodes' questions are answered.
    pub queues: Option<RangeInclusive<u16>>,
    /// The first of the ports that are asked about: the packet filter's rules and the daemon go by it.
    pub first_port: Port,
    /// Nothing is refused, and what would be is logged.
    pub dry_run: bool,
    /// Whoever may connect to everybody.
    pub exempt_connectors: Vec<UserRef>,
    /// Whoever everybody may connect to.
    pub exempt_listeners: Vec<UserRef>,
    /// Groups that open nothing; gid 0 never does, nor the login group of the listener's owner.
    pub never: Vec<GroupRef>,
    /// How long a connection waits for the other node's answer before its packet is dropped.
    pub patience: Duration,
    /// How long a flow of UDP goes on until both ends are asked about again.
    pub udp_again: Duration,
    /// Where `portreeve why` and `portreeve check --live` ask; absolute.
    pub control_socket: PathBuf,
    /// The socket of an ident2 service, for nodes that are plain in the node map; absolute. `None`: such nodes are not asked.
    pub ident2_socket: Option<PathBuf>,
}

/// Users as the sysadmin wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserRef {
    /// By name.
    Name(String),
    /// By uid, from the first to the last.
    Uids(RangeInclusive<u32>),
}

impl Default for FirewallConfig {
    fn default() -> Self {
        let root = || vec![UserRef::Name("root".to_owned())];
        Self {
            key: PathBuf::from("/etc/portreeve/agent-key.toml"),
            nodes: PathBuf::from("/etc/portreeve/nodes.toml"),
            port: 849,
            queues: Some(0..=0),
            first_port: FIRST_PORT,
            dry_run: false,
            exempt_connectors: root(),
            exempt_listeners: root(),
            never: vec![GroupRef::Name("users".to_owned()), GroupRef::Gid(100)],
            patience: Duration::from_secs(1),
            udp_again: Duration::from_secs(2),
            control_socket: PathBuf::from("/run/portreeve-firewall/control.sock"),
            ident2_socket: None,
        }
    }
}

/// Reads and checks a configuration. `file` only names it in the problems.
///
/// # Errors
/// Every problem of the text, in the order of its lines.
pub fn parse(text: &str, file: &str) -> Result<FirewallConfig, Vec<Problem>> {
    let mut notes = Notes::default();
    let mut top = Section::whole(text, &mut notes);
    let key = top.string("key", &mut notes);
    let nodes = top.string("nodes", &mut notes);
    let port = top.integer("port", &mut notes);
    let queues = top.scalar("queues", &mut notes);
    let first_port = top.integer("first_port", &mut notes);
    let dry_run = top.boolean("dry_run", &mut notes);
    let connectors = top.array::<String>("exempt_connectors", "a user's name or \"UID\"", &mut notes);
    let listeners = top.array::<String>("exempt_listeners", "a user's name or \"UID\"", &mut notes);
    let never = top.array::<WrittenGroup>("never", "a group's name or gid", &mut notes);
    let patience = top.string("patience", &mut notes);
    let udp_again = top.string("udp_again", &mut notes);
    let control_socket = top.string("control_socket", &mut notes);
    let ident2_socket = top.string("ident2_socket", &mut notes);
    top.refuse_rest(&mut notes);

    let default = FirewallConfig::default();
    let mut path =
        |written: Option<Spanned<String>>, key| path(written.as_ref(), key, &mut notes).map(|(_, path)| path);
    let (key, nodes) = (path(key, "key"), path(nodes, "nodes"));
    let (control_socket, ident2_socket) =
        (path(control_socket, "control_socket"), path(ident2_socket, "ident2_socket"));
    let mut users = |written: Option<Vec<Spanned<String>>>, key, default: Vec<UserRef>| match written {
        Some(written) => written.iter().filter_map(|user| check_user(user, key, &mut notes)).collect(),
        None => default,
    };
    let exempt_connectors = users(connectors, "exempt_connectors", default.exempt_connectors);
    let exempt_listeners = users(listeners, "exempt_listeners", default.exempt_listeners);
    let never = match never {
        Some(groups) => {
            groups.into_iter().filter_map(|group| check_group(group, "never", &mut notes)).collect()
        }
        None => default.never,
    };
    let (second, ten) = (Duration::from_secs(1), Duration::from_secs(10));
    let config = FirewallConfig {
        key: key.unwrap_or(default.key),
        nodes: nodes.unwrap_or(default.nodes),
        port: number(port, "port", PRIVILEGED, &mut notes).unwrap_or(default.port),
        queues: match queues {
            Some(written) => check_queues(&written, &mut notes),
            None => default.queues,
        },
        first_port: number(first_port, "first_port", 1..=u16::MAX, &mut notes)
            .and_then(Port::new)
            .unwrap_or(default.first_port),
        dry_run: dry_run.is_some_and(Spanned::into_inner),
        exempt_connectors,
        exempt_listeners,
        never,
        patience: duration(&patience, "patience", Duration::from_millis(50)..=ten, &mut notes)
            .unwrap_or(default.patience),
        udp_again: duration(&udp_again, "udp_again", second..=60 * ten, &mut notes)
            .unwrap_or(default.udp_again),
        control_socket: control_socket.unwrap_or(default.control_socket),
        ident2_socket,
    };
    if notes.is_empty() { Ok(config) } else { Err(notes.into_problems(text, file)) }
}

/// `3`, `0-3`, or nothing at all.
fn check_queues(written: &Spanned<String>, notes: &mut Notes) -> Option<RangeInclusive<u16>> {
    let text = written.get_ref().trim();
    if text.is_empty() {
        return None;
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u16>().ok();
    if let (Some(first), Some(last)) = (number(first), number(last))
        && first <= last
        && last - first < MAX_QUEUES
    {
        return Some(first..=last);
    }
    let remedy = format!("write one queue's number or a range such as \"0-3\", of at most {MAX_QUEUES}");
    notes.note(written.span(), "queues", format!("{text:?} is no range of queues"), remedy);
    None
}

fn check_user(written: &Spanned<String>, key: &str, notes: &mut Notes) -> Option<UserRef> {
    let text = written.get_ref();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let what = if is_number(first) && is_number(last) {
        match (first.parse::<u32>(), last.parse::<u32>()) {
            // The last value stands for "no user" in the kernel's calls.
            (Ok(first), Ok(last)) if first <= last && last != u32::MAX => {
                return Some(UserRef::Uids(first..=last));
            }
            _ => "this is no uid or range of them",
        }
    } else {
        let bad = |c: char| c.is_control() || matches!(c, ':' | ',' | '/');
        if !text.trim().is_empty() && text.trim() == text && text.len() <= 255 && !text.contains(bad) {
            return Some(UserRef::Name(text.clone()));
        }
        "this is no user's name"
    };
    let remedy = "write a name as getent passwd shows it, a uid such as \"33\", or \"400-499\"".to_owned();
    notes.note(written.span(), key, what.to_owned(), remedy);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../proxy-config/firewall.toml");

    #[test]
    fn the_shipped_file_is_the_defaults() {
        assert_eq!(parse("", "-"), Ok(FirewallConfig::default()));
        assert_eq!(parse(SHIPPED, "firewall.toml"), Ok(FirewallConfig::default()));
        let key = |line: &str| {
            line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic)).map(str::to_owned)
        };
        let uncommented: String =
            SHIPPED.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect();
        assert_eq!(parse(&uncommented, "firewall.toml"), Ok(FirewallConfig::default()));
        let shown: toml::Table = uncommented.parse().unwrap();
        assert_eq!(shown.len(), 13, "{shown:?}");
    }

    #[test]
    fn every_key_is_read() {
        let text = "key = '/k'\nnodes = '/n'\nport = 99\nqueues = '2-5'\nfirst_port = 80\ndry_run = true\n\
                    exempt_connectors = ['slurm', '33', '400-499']\nexempt_listeners = []\nnever = ['all', 7]\n\
                    patience = '500ms'\nudp_again = '1m'\ncontrol_socket = '/c'\nident2_socket = '/i'\n";
        let expected = FirewallConfig {
            key: "/k".into(),
            nodes: "/n".into(),
            port: 99,
            queues: Some(2..=5),
            first_port: Port::new(80).unwrap(),
            dry_run: true,
            exempt_connectors: vec![
                UserRef::Name("slurm".to_owned()),
                UserRef::Uids(33..=33),
                UserRef::Uids(400..=499),
            ],
            exempt_listeners: Vec::new(),
            never: vec![GroupRef::Name("all".to_owned()), GroupRef::Gid(7)],
            patience: Duration::from_millis(500),
            udp_again: Duration::from_secs(60),
            control_socket: "/c".into(),
            ident2_socket: Some("/i".into()),
        };
        assert_eq!(parse(text, "-"), Ok(expected));
        assert_eq!(parse("queues = ''", "-").unwrap().queues, None);
        assert_eq!(parse("queues = 7", "-").unwrap().queues, Some(7..=7));
    }

    #[test]
    fn every_problem_at_once() {
        let text = "key = 'k'\nport = 1024\nqueues = '5-2'\nexempt_connectors = ['9-3', 'a:b']\nnever = ['7']\n\
                    patience = '1h'\nudp_again = 'x'\nuser = 'root'\n";
        let told: Vec<String> = parse(text, "f").unwrap_err().iter().map(Problem::to_string).collect();
        for (told, start) in told.iter().zip([
            "f:1: key: this is no absolute path",
            "f:2: port: 1024 is out of range",
            "f:3: queues: \"5-2\" is no range of queues",
            "f:4: exempt_connectors: this is no uid or range of them",
            "f:4: exempt_connectors: this is no user's name",
            "f:5: never: a gid in quotes",
            "f:6: patience: \"1h\" is out of range",
            "f:7: udp_again: this is no duration",
            "f:8: user: there is no such key",
        ]) {
            assert!(told.starts_with(start), "{told}\n{start}");
        }
        assert_eq!(told.len(), 9, "{told:#?}");
        for first_port in ["0", "-1", "65536", "'80'"] {
            assert!(parse(&format!("first_port = {first_port}"), "-").is_err(), "{first_port}");
        }
        for queues in ["a", "1-", "-1", "0-64", "70000", "1-2-3"] {
            assert!(parse(&format!("queues = '{queues}'"), "-").is_err(), "{queues}");
        }
    }
}
