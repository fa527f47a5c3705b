//! The keys by which agents and portals know each other: how they are written, and the file that a node gets.
//! Invariant: an [`AgentKey`] is a whole public key, so comparing two of them is the check; nothing is looked up, and
//! nothing expires.

use std::fmt;

use crate::config::{Notes, Problem, Section};
use crate::names::{NodeName, NodePort};
use crate::secret::Secret;
use toml::Spanned;

/// An Ed25519 public key (RFC 8032): 32 bytes, written as `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentKey([u8; 32]);

/// What stands before the 32 bytes in a SubjectPublicKeyInfo (RFC 8410 section 4): the form in which TLS carries a raw
/// public key (RFC 7250).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// This is no public key of an agent or portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key is written as ed25519: and 64 hexadecimal digits")]
pub struct NotAKey;

impl AgentKey {
    /// As written by its Display.
    ///
    /// # Errors
    /// For any other text.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let digits = text.strip_prefix("ed25519:").ok_or(NotAKey)?.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut key = [0; 32];
        if digits.len() != 2 * key.len() {
            return Err(NotAKey);
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0]).ok_or(NotAKey)? << 4 | digit(pair[1]).ok_or(NotAKey)?;
        }
        Ok(Self(key))
    }

    /// From the DER form of a SubjectPublicKeyInfo; `None` for a key of another kind.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI_HEAD)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ed25519:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What `portreeve keys add` writes for one node: the only file that the node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Which node's agent it makes.
    pub node: NodeName,
    /// The agent's private key, PEM.
    pub private_key: Secret,
    /// What a portal must show: one of these.
    pub portal_keys: Vec<AgentKey>,
    /// Where portals listen for agents.
    pub portals: Vec<NodePort>,
}

impl KeyFile {
    /// Reads the file's text. `file` only names it in the problems.
    ///
    /// # Errors
    /// Every problem of the text. None of them shows the private key.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let mut notes = Notes::default();
        let mut top = Section::whole(text, &mut notes);
        let node = top.string("node", &mut notes);
        let private_key = top.string("private_key", &mut notes);
        let portal_keys = top.array::<String>("portal_keys", "a string", &mut notes);
        let portals = top.array::<String>("portals", "a string", &mut notes);
        top.refuse_rest(&mut notes);

        let again = "make the file anew with portreeve keys add NODE --replace";
        let missing = |notes: &mut Notes, key: &str| {
            notes.note(0..0, key, "it is missing".to_owned(), again.to_owned());
        };
        let node = match node {
            Some(name) => NodeName::parse(name.get_ref())
                .map_err(|error| notes.note(name.span(), "node", error.to_string(), again.to_owned()))
                .ok(),
            None => {
                missing(&mut notes, "node");
                None
            }
        };
        let private_key = match private_key {
            Some(key) if key.get_ref().contains("-----BEGIN PRIVATE KEY-----") => {
                Some(Secret::new(key.into_inner()))
            }
            Some(key) => {
                let what = "this is no private key in PEM form".to_owned();
                notes.note(key.span(), "private_key", what, again.to_owned());
                None
            }
            None => {
                missing(&mut notes, "private_key");
                None
            }
        };
        if portal_keys.as_ref().is_none_or(Vec::is_empty) {
            missing(&mut notes, "portal_keys");
        }
        let portal_keys = portal_keys
            .unwrap_or_default()
            .iter()
            .filter_map(|key| {
                AgentKey::parse(key.get_ref())
                    .map_err(|error| {
                        notes.note(key.span(), "portal_keys", error.to_string(), again.to_owned());
                    })
                    .ok()
            })
            .collect();
        let portals = check_portals(portals.unwrap_or_default(), &mut notes);
        match (node, private_key) {
            (Some(node), Some(private_key)) if notes.is_empty() => {
                Ok(Self { node, private_key, portal_keys, portals })
            }
            _ => Err(notes.into_problems(text, file)),
        }
    }

    /// The file's text. A secret, as it holds the private key.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        fn quoted<T: fmt::Display>(values: &[T]) -> String {
            values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ")
        }
        Secret::new(format!(
            "# The key of Portreeve's agent on {node}. Whoever has it can speak for that node: mode 0600, on {node} \
             alone.\nnode = \"{node}\"\nportals = [{portals}]\nportal_keys = [{keys}]\nprivate_key = '''\n{private}\n'''\n",
            node = self.node,
            portals = quoted(&self.portals),
            keys = quoted(&self.portal_keys),
            private = self.private_key.reveal().trim_end(),
        ))
    }
}

/// Addresses of portals, each a host or address with a port.
pub(crate) fn check_portals(written: Vec<Spanned<String>>, notes: &mut Notes) -> Vec<NodePort> {
    written
        .into_iter()
        .filter_map(|portal| {
            NodePort::parse(portal.get_ref())
                .map_err(|error| {
                    let remedy = "write HOST:PORT, ADDRESS:PORT or [IPV6]:PORT".to_owned();
                    notes.note(portal.span(), "portals", error.to_string(), remedy);
                })
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ed25519:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_key_is_its_text_and_its_spki() {
        let key = AgentKey::parse(KEY).unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(AgentKey::parse(&KEY.replace("aabb", "AABB")), Ok(key));
        let spki = [&SPKI_HEAD[..], &key.0].concat();
        assert_eq!(AgentKey::from_spki(&spki), Some(key));
        for bad in [&spki[1..], &spki[..43], &[&spki[..], &[0]].concat(), &[0x30; 44], &[]] {
            assert_eq!(AgentKey::from_spki(bad), None);
        }
        for bad in ["", "ed25519:", &KEY[8..], &KEY[..71], &format!("{KEY}0"), &KEY.replace("00", "0g")] {
            assert_eq!(AgentKey::parse(bad), Err(NotAKey), "{bad}");
        }
    }

    fn file() -> KeyFile {
        KeyFile {
            node: NodeName::parse("c1").unwrap(),
            private_key: Secret::new(
                "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n".to_owned(),
            ),
            portal_keys: vec![AgentKey::parse(KEY).unwrap()],
            portals: vec![
                NodePort::parse("10.0.0.1:8499").unwrap(),
                NodePort::parse("[fd00::1]:8499").unwrap(),
            ],
        }
    }

    #[test]
    fn a_key_file_survives_the_way() {
        assert_eq!(KeyFile::parse(file().to_text().reveal(), "-"), Ok(file()));
    }

    #[test]
    fn every_problem_of_a_key_file_is_told_and_the_key_is_not() {
        let text =
            "node = 'a b'\nportals = ['x']\nportal_keys = ['y']\nprivate_key = 's3cret'\nprivate = 1\n";
        let told: Vec<String> =
            KeyFile::parse(text, "k").unwrap_err().iter().map(Problem::to_string).collect();
        for (told, start) in told.iter().zip([
            "k:1: node: ",
            "k:2: portals: ",
            "k:3: portal_keys: ",
            "k:4: private_key: ",
            "k:5: private: ",
        ]) {
            assert!(told.starts_with(start) && !told.contains("s3cret"), "{told}");
        }
        assert_eq!(told.len(), 5, "{told:#?}");
        assert_eq!(KeyFile::parse("", "k").unwrap_err().len(), 3);
    }
}
