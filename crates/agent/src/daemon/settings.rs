//! What the agent is told: configuration and key file, at start and at each reload.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use portreeve_model::{AgentConfig, AgentKey, NodeName, NodePort, agent_config};
use rustls::ClientConfig;

use crate::channel::tls::client_config;
use crate::files;

/// Where the configuration is if nobody says otherwise. It need not be there.
pub const CONFIG: &str = "/etc/portreeve/agent.toml";

/// All that was told, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) config: AgentConfig,
    pub(super) node: NodeName,
    /// Not empty.
    pub(super) portals: Vec<NodePort>,
    pub(super) way: Way,
}

/// By what portal and agent know each other.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Keys { tls: Arc<ClientConfig>, own: AgentKey, portals: Vec<AgentKey> },
    Plain,
}

impl PartialEq for Way {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) => true,
            (Self::Keys { own, portals, .. }, Self::Keys { own: other, portals: others, .. }) => {
                own == other && portals == others
            }
            _ => false,
        }
    }
}

impl Settings {
    /// Reads both files.
    ///
    /// # Errors
    /// Every problem of the configuration, or every problem of the key file.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let config = files::config(file, CONFIG, agent_config::parse)?;
        if config.plain {
            let node = match &config.node {
                Some(node) => node.clone(),
                None => host_name()?,
            };
            let portals = config.portals.clone();
            return Ok(Self { node, portals, way: Way::Plain, config });
        }
        let (keys, own) = files::key(&config.key)?;
        let portals = if config.portals.is_empty() { keys.portals } else { config.portals.clone() };
        if portals.is_empty() {
            bail!(
                "neither {} nor the key file says where portals are: write portals = [\"HOST:PORT\"]",
                file.display()
            );
        }
        let tls = client_config(&own, keys.portal_keys.clone()).context("TLS can't be set up")?;
        let way = Way::Keys { tls: Arc::new(tls), own: own.public(), portals: keys.portal_keys };
        Ok(Self { node: keys.node, portals, way, config })
    }
}

/// `portreeve-agent --check`: what is found to be in order.
///
/// # Errors
/// As at a start.
pub fn check(file: &Path) -> anyhow::Result<String> {
    let settings = Settings::read(file)?;
    let portals = settings.portals.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let way = match &settings.way {
        Way::Keys { own, .. } => format!("key {own}"),
        Way::Plain => "no key: the weaker way".to_owned(),
    };
    Ok(format!("no problems: node {}, {way}, portals {portals}", settings.node))
}

fn host_name() -> anyhow::Result<NodeName> {
    let name = portreeve_sys::host_name().context("this machine has no name: write node = \"...\"")?;
    NodeName::parse(&name).context("this machine's name is no node's: write node = \"...\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Identity;
    use crate::firewall::tests::{ALICE, skip};
    use nix::unistd::Uid;
    use portreeve_model::{KeyFile, Secret};
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    fn key_file() -> KeyFile {
        let pem = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        KeyFile {
            node: NodeName::parse("c1").unwrap(),
            private_key: Secret::new(pem()),
            portal_keys: vec![Identity::from_pem(&Secret::new(pem())).unwrap().public()],
            portals: vec![NodePort::parse("10.0.0.1:8444").unwrap()],
        }
    }

    #[test]
    fn the_key_file_says_what_the_configuration_leaves_out() {
        let dir = tempfile::tempdir().unwrap();
        let (config, key) = (dir.path().join("agent.toml"), dir.path().join("key"));
        std::fs::write(&key, key_file().to_text().reveal()).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&config, format!("key = '{}'", key.display())).unwrap();
        let settings = Settings::read(&config).unwrap();
        assert_eq!((settings.node.as_str(), settings.portals.len()), ("c1", 1));
        assert!(check(&config).unwrap().contains("10.0.0.1:8444"));
        let more = format!("key = '{}'\nportals = ['p1:1', 'p2:2']", key.display());
        std::fs::write(&config, more).unwrap();
        let other = Settings::read(&config).unwrap();
        assert_eq!(other.portals.len(), 2);
        assert!(other.way == settings.way, "the keys are the same");
        for mode in [0o604, 0o640, 0o660] {
            std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            // Root's group may read it, if this is root.
            let read_by_root = mode == 0o640 && std::fs::metadata(&key).unwrap().gid() == 0;
            assert_eq!(Settings::read(&config).is_ok(), read_by_root, "{mode:o}");
        }
        std::fs::remove_file(&key).unwrap();
        assert!(Settings::read(&config).is_err());
    }

    #[test]
    fn a_configuration_that_others_may_write_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agent.toml");
        std::fs::write(&config, "plain = true\nnode = 'c9'\nportals = ['p:1']").unwrap();
        let set = |mode| std::fs::set_permissions(&config, Permissions::from_mode(mode)).unwrap();
        let refused = |what: &str| {
            for error in [Settings::read(&config).err(), check(&config).err()] {
                let error = format!("{:#}", error.unwrap_or_else(|| panic!("{what}: it was used")));
                assert!(error.contains("nobody else may write it"), "{what}: {error}");
                assert!(error.contains("agent.toml") && error.contains("it was not used"), "{what}: {error}");
            }
        };
        for mode in [0o600, 0o644, 0o444] {
            set(mode);
            assert!(Settings::read(&config).is_ok(), "{mode:o}");
        }
        for mode in [0o664, 0o646, 0o666, 0o620, 0o602] {
            set(mode);
            refused(&format!("{mode:o}"));
        }
        set(0o644);
        if !Uid::effective().is_root() {
            return skip("to give a file to somebody else needs root");
        }
        chown(&config, Some(ALICE), None).unwrap();
        refused("alice's");
        chown(&config, Some(0), None).unwrap();
        assert!(Settings::read(&config).is_ok());
        // What is no file can't be looked at for who may write it.
        assert!(Settings::read(dir.path()).is_err());
    }

    #[test]
    fn the_weaker_way_needs_no_key_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agent.toml");
        std::fs::write(&config, "plain = true\nnode = 'c9'\nportals = ['p:1']").unwrap();
        let settings = Settings::read(&config).unwrap();
        assert!(settings.way == Way::Plain && settings.node.as_str() == "c9");
        assert!(check(&config).unwrap().contains("the weaker way"));
        assert!(Settings::read(&dir.path().join("none")).is_err());
    }
}
