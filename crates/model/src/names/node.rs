//! Where an application listens: node and port, as people write them.
//! Invariant: one spelling for one node (lower case, canonical address), and no address that can't be a single node's.
//! Names become addresses elsewhere, through root's map only.

use super::{NameError, NameKind, check, parsed_text};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

/// A node: a host name in lower case, or an address literal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName {
    /// The canonical text; an IPv6 address stands in brackets.
    text: Box<str>,
    ip: Option<IpAddr>,
}
parsed_text!(NodeName);

impl NodeName {
    /// A host name of at most 253 bytes (stored in lower case), an IPv4 address, or an IPv6 address in brackets.
    /// IPv4-mapped IPv6 addresses become the IPv4 address, so that one node has one spelling.
    ///
    /// Names that end in a number are refused: resolvers and browsers read `127.1` and `0x7f000001` as addresses.
    ///
    /// # Errors
    /// What was wrong: also unspecified, multicast and broadcast addresses, and zone ids.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let kind = NameKind::Node;
        if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let v6: Ipv6Addr = inside.parse().map_err(|_| NameError::Form { kind })?;
            return Self::from_ip(v6.into());
        }
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Self::from_ip(v4.into());
        }
        check(kind, text, 253, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))?;
        let label = |l: &str| matches!(l.len(), 1..=63) && !l.starts_with('-') && !l.ends_with('-');
        let last = text.rsplit('.').next().unwrap_or(text);
        if text.split('.').all(label) && !reads_as_number(last) {
            Ok(Self { text: text.to_ascii_lowercase().into(), ip: None })
        } else {
            Err(NameError::Form { kind })
        }
    }

    /// The node of this address.
    ///
    /// # Errors
    /// `NoNode` for an unspecified, multicast or broadcast address.
    pub fn from_ip(ip: IpAddr) -> Result<Self, NameError> {
        let ip = ip.to_canonical();
        let no_node = |what| Err(NameError::NoNode { what });
        match ip {
            // Linux takes 0.0.0.0 for the machine itself; the rest of 0.0.0.0/8 is "this network" (RFC 1122, 3.2.1.3).
            IpAddr::V4(v4) if v4.octets()[0] == 0 => no_node("an unspecified one"),
            IpAddr::V6(v6) if v6.is_unspecified() => no_node("an unspecified one"),
            _ if ip.is_multicast() => no_node("a multicast one"),
            IpAddr::V4(Ipv4Addr::BROADCAST) => no_node("the broadcast one"),
            IpAddr::V4(v4) => Ok(Self { text: v4.to_string().into(), ip: Some(ip) }),
            IpAddr::V6(v6) => Ok(Self { text: format!("[{v6}]").into(), ip: Some(ip) }),
        }
    }

    /// The canonical text, an IPv6 address in brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, if the node was given as one.
    #[must_use]
    pub fn as_ip(&self) -> Option<IpAddr> {
        self.ip
    }
}

/// The URL standard's "ends in a number": all digits, or 0x and hexadecimal digits.
fn reads_as_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|b| b.is_ascii_digit()) || hex.is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeName({self})")
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A TCP port, 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(NonZeroU16);

impl Port {
    /// Decimal digits only: no sign, no leading zeros, 1 to 65535.
    ///
    /// # Errors
    /// What was wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let kind = NameKind::Port;
        check(kind, text, 5, |c| c.is_ascii_digit())?;
        match text.parse().ok().and_then(NonZeroU16::new) {
            Some(port) if !text.starts_with('0') => Ok(Self(port)),
            _ => Err(NameError::Form { kind }),
        }
    }

    /// The port of this number; `None` for 0.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(port) => Some(Self(port)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Whether only root may listen there (below 1024).
    #[must_use]
    pub const fn is_privileged(self) -> bool {
        self.get() < 1024
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({self})")
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for Port {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.get())
    }
}

impl<'de> serde::Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NonZeroU16::deserialize(deserializer).map(Self)
    }
}

/// A node and a port on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePort {
    /// The node.
    pub node: NodeName,
    /// The port on it.
    pub port: Port,
}
parsed_text!(NodePort);

impl NodePort {
    /// `host:port` or `[v6]:port`.
    ///
    /// # Errors
    /// What was wrong with the form, the node or the port.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (node, port) = text.rsplit_once(':').ok_or(NameError::Form { kind: NameKind::NodePort })?;
        Ok(Self { node: NodeName::parse(node)?, port: Port::parse(port)? })
    }

    /// `host-port`, split at the last '-', as it stands in one label of a host name. Host names only: an address has
    /// dots, colons or brackets.
    ///
    /// # Errors
    /// What was wrong with the form, the node or the port.
    pub fn parse_label(text: &str) -> Result<Self, NameError> {
        let kind = NameKind::NodePort;
        let (node, port) = text.rsplit_once('-').ok_or(NameError::Form { kind })?;
        let node = NodeName::parse(node)?;
        match node.as_ip() {
            Some(_) => Err(NameError::Form { kind }),
            None => Ok(Self { node, port: Port::parse(port)? }),
        }
    }
}

impl fmt::Display for NodePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.port)
    }
}

#[cfg(test)]
mod tests;
