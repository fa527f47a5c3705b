//! The cluster's nodes: which addresses are whose, and which key speaks for them. Root writes it down in `nodes.toml`; no
//! resolver is asked, since a user could influence one.
//! Invariant: an address, a name and a key are each one node's at most, so that no node can answer for another.
//!
//! ```toml
//! # Where the portals listen for agents: `portreeve keys add` copies this into key files.
//! portals = ["portal.cluster.example:8499"]
//! # Ends of full names: c1.cluster.example is c1.
//! domains = ["cluster.example"]
//!
//! [[node]]
//! name = "c1"
//! addresses = ["10.0.0.11", "fd00::11"]   # by which the portal reaches it, the first one first
//! slurm = ["10.1.0.11"]                   # more of them, kept by `portreeve nodes sync`
//! also = ["c1-ib"]                        # other names
//! key = "ed25519:..."                     # of its agent, from `portreeve keys add`
//! roles = ["login"]                       # believed when it says whose process asks for a sign-in address
//! ```
//!
//! Instead of a key a node may have `plain = true`: its agent is believed without one, by a privileged source port and
//! an address of the node inside `agents.plain_networks`. That is the weaker way: whoever can send from the node's
//! address, or is root on any machine that can take it, is believed as well.

mod slurm;

pub use slurm::{SlurmNode, slurm_nodes};

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use toml::Spanned;

use crate::agent_key::{AgentKey, check_portals};
use crate::config::{Notes, Problem, Section};
use crate::names::{NodeName, NodePort};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// By which it is known in logs and on pages.
    pub name: NodeName,
    /// Its other names.
    pub also: Vec<NodeName>,
    /// By which the portal reaches it, in the order to try; each no other node's.
    pub addresses: Vec<IpAddr>,
    /// Who speaks for it; `None`: nobody does, and nobody is let in there.
    pub speaker: Option<Speaker>,
    /// Whether its agent is believed when it says whose process asks for a sign-in address.
    pub is_login: bool,
}

/// By what a node's agent is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// By its key.
    Key(AgentKey),
    /// By its address and a privileged port alone.
    Plain,
}

/// All nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeMap {
    nodes: Vec<Node>,
    portals: Vec<NodePort>,
    domains: Vec<String>,
    by_name: HashMap<NodeName, usize>,
    /// First labels of full names; `None` where two nodes have the same.
    by_label: HashMap<String, Option<usize>>,
    by_address: HashMap<IpAddr, usize>,
    by_key: HashMap<AgentKey, usize>,
}

impl NodeMap {
    /// Reads `nodes.toml`. `file` only names it in the problems.
    ///
    /// # Errors
    /// Every problem of the text, in the order of its lines.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let mut notes = Notes::default();
        let mut top = Section::whole(text, &mut notes);
        let portals = top.array::<String>("portals", "a string", &mut notes).unwrap_or_default();
        let mut map = Self { portals: check_portals(portals, &mut notes), ..Self::default() };
        for domain in top.array::<String>("domains", "a string", &mut notes).unwrap_or_default() {
            map.add_domain(&domain, &mut notes);
        }
        for (index, (begin, section)) in top.sections("node", &mut notes).into_iter().enumerate() {
            map.add(index, begin, section, &mut notes);
        }
        top.refuse_rest(&mut notes);
        if notes.is_empty() { Ok(map) } else { Err(notes.into_problems(text, file)) }
    }

    /// All of them, in the file's order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where the portals listen for agents.
    #[must_use]
    pub fn portals(&self) -> &[NodePort] {
        &self.portals
    }

    /// The node of this name or address. Names have no case here. A full name is found by its first label where its
    /// domain is listed; a first label alone finds the one node whose full name begins with it. Nothing but an entry of
    /// exactly that name makes `localhost` a node.
    #[must_use]
    pub fn find(&self, name: &NodeName) -> Option<&Node> {
        if let Some(address) = name.as_ip() {
            return self.at(address);
        }
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None if name.as_str() == "localhost" => return None,
            None => match name.as_str().split_once('.') {
                Some((label, domain)) if self.domains.iter().any(|known| known == domain) => {
                    *self.by_name.get(&NodeName::parse(label).ok()?)?
                }
                Some(_) => return None,
                None => (*self.by_label.get(name.as_str())?)?,
            },
        };
        self.nodes.get(index)
    }

    /// The node that has this address.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.get(*self.by_address.get(&address.to_canonical())?)
    }

    /// The node whose agent has this key.
    #[must_use]
    pub fn of_key(&self, key: &AgentKey) -> Option<&Node> {
        self.nodes.get(*self.by_key.get(key)?)
    }

    /// Where to connect for this name, in the order to try: all addresses of the node, or the one that was asked for.
    /// `None` if it is no node's.
    #[must_use]
    pub fn addresses(&self, name: &NodeName) -> Option<Vec<IpAddr>> {
        let node = self.find(name)?;
        Some(name.as_ip().map_or_else(|| node.addresses.clone(), |asked| vec![asked]))
    }

    fn add_domain(&mut self, written: &Spanned<String>, notes: &mut Notes) {
        match NodeName::parse(written.get_ref()) {
            Ok(domain) if domain.as_ip().is_none() => self.domains.push(domain.as_str().to_owned()),
            _ => {
                let what = "this is no end of a host name".to_owned();
                notes.note(written.span(), "domains", what, "write it as cluster.example".to_owned());
            }
        }
    }

    /// `index` is the node's place, if nothing is wrong with any.
    fn add(&mut self, index: usize, begin: Range<usize>, mut section: Section<'_>, notes: &mut Notes) {
        let name = section.string("name", notes);
        let addresses = section.array::<String>("addresses", "a string", notes).unwrap_or_default();
        let slurm = section.array::<String>("slurm", "a string", notes).unwrap_or_default();
        let also = section.array::<String>("also", "a string", notes).unwrap_or_default();
        let key = section.string("key", notes);
        let plain = section.boolean("plain", notes);
        let roles = section.array::<String>("roles", "a string", notes).unwrap_or_default();
        let on_portal = section.boolean("on_portal", notes).is_some_and(|on_portal| on_portal.into_inner());
        section.refuse_rest(notes);

        let parsed = match name {
            Some(name) => self.add_name(&name, "node.name", index, notes),
            None => {
                let remedy = "write name = \"...\" below [[node]]".to_owned();
                notes.note(begin, "node.name", "a node without a name".to_owned(), remedy);
                None
            }
        };
        let also = also.iter().filter_map(|name| self.add_name(name, "node.also", index, notes)).collect();
        let mut reached_at = Vec::new();
        for (written, key) in [(addresses, "node.addresses"), (slurm, "node.slurm")] {
            for address in written {
                match self.add_address(&address, index, on_portal) {
                    // The same one in both lists of a node is no harm.
                    Ok(address) if reached_at.contains(&address) => {}
                    Ok(address) => reached_at.push(address),
                    Err((what, remedy)) => notes.note(address.span(), key, what, remedy),
                }
            }
        }
        let speaker = self.speaker(key, plain.as_ref(), index, notes);
        let is_login = check_roles(&roles, speaker, notes);
        if let Some(name) = parsed {
            self.nodes.push(Node { name, also, addresses: reached_at, speaker, is_login });
        }
    }

    fn add_name(
        &mut self,
        written: &Spanned<String>,
        key: &str,
        index: usize,
        notes: &mut Notes,
    ) -> Option<NodeName> {
        let mut refuse = |what: String, remedy: &str| {
            notes.note(written.span(), key, what, remedy.to_owned());
            None
        };
        let name = match NodeName::parse(written.get_ref()) {
            Ok(name) => name,
            Err(error) => return refuse(error.to_string(), "correct the name"),
        };
        if name.as_ip().is_some() {
            return refuse("an address is no name".to_owned(), "write it under addresses");
        }
        match self.by_name.entry(name.clone()) {
            Entry::Occupied(_) => return refuse(format!("{name} is there twice"), "name every node once"),
            Entry::Vacant(free) => free.insert(index),
        };
        if let Some((label, _)) = name.as_str().split_once('.') {
            let of_label = self.by_label.entry(label.to_owned()).or_insert(Some(index));
            if *of_label != Some(index) {
                *of_label = None;
            }
        }
        Some(name)
    }

    fn add_address(
        &mut self,
        written: &Spanned<String>,
        index: usize,
        on_portal: bool,
    ) -> Result<IpAddr, (String, String)> {
        let address: IpAddr = written.get_ref().parse().map_err(|_| {
            let remedy = "write an IPv4 or IPv6 address; names are not looked up".to_owned();
            ("this is no address".to_owned(), remedy)
        })?;
        let address = address.to_canonical();
        if let Some(what) = no_nodes(address) {
            return Err((what.to_owned(), "write an address that is this node's alone".to_owned()));
        }
        if address.is_loopback() && !on_portal {
            let remedy = "remove it, or write on_portal = true if the portal runs on this node".to_owned();
            return Err(("every machine has this address".to_owned(), remedy));
        }
        match self.by_address.entry(address) {
            Entry::Vacant(free) => {
                free.insert(index);
                Ok(address)
            }
            Entry::Occupied(taken) if *taken.get() == index => Ok(address),
            Entry::Occupied(taken) => {
                let owner = self.nodes.get(*taken.get()).map_or("another node", |node| node.name.as_str());
                let remedy = "an address is one node's: remove it where it does not belong".to_owned();
                Err((format!("{address} is {owner}'s already"), remedy))
            }
        }
    }

    fn speaker(
        &mut self,
        key: Option<Spanned<String>>,
        plain: Option<&Spanned<bool>>,
        index: usize,
        notes: &mut Notes,
    ) -> Option<Speaker> {
        let plain = plain.filter(|plain| *plain.get_ref());
        let Some(key) = key else { return plain.map(|_| Speaker::Plain) };
        let mut refuse = |what: String, remedy: &str| {
            notes.note(key.span(), "node.key", what, remedy.to_owned());
            None
        };
        if plain.is_some() {
            let what = "a node with a key is not believed without it".to_owned();
            return refuse(what, "remove key, or plain");
        }
        let parsed = match AgentKey::parse(key.get_ref()) {
            Ok(parsed) => parsed,
            Err(error) => return refuse(error.to_string(), "copy it from portreeve keys show"),
        };
        match self.by_key.entry(parsed) {
            Entry::Vacant(free) => {
                free.insert(index);
                Some(Speaker::Key(parsed))
            }
            Entry::Occupied(taken) => {
                let owner = self.nodes.get(*taken.get()).map_or("another node", |node| node.name.as_str());
                refuse(format!("this is {owner}'s key already"), "give each node a key of its own")
            }
        }
    }
}

/// Why no node can be told by this address.
fn no_nodes(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4 == Ipv4Addr::BROADCAST => {
            Some("no node has this address")
        }
        IpAddr::V6(v6) if v6.is_unspecified() => Some("no node has this address"),
        _ if address.is_multicast() => Some("a multicast address is no single node's"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("a link-local address means nothing without an interface")
        }
        _ => None,
    }
}

fn check_roles(written: &[Spanned<String>], speaker: Option<Speaker>, notes: &mut Notes) -> bool {
    let mut is_login = false;
    for role in written {
        if role.get_ref() != "login" {
            let what = "there is no such role".to_owned();
            notes.note(role.span(), "node.roles", what, "the one role is login".to_owned());
        } else if speaker == Some(Speaker::Plain) {
            let what = "whoever signs people in must have a key".to_owned();
            let remedy = "make one with portreeve keys add, and remove plain".to_owned();
            notes.note(role.span(), "node.roles", what, remedy);
        } else {
            is_login = true;
        }
    }
    is_login
}

#[cfg(test)]
mod tests;
