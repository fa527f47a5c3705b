//! What the agent is told: configuration and key file, at start and at each reload.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use nix::unistd::Uid;
use portreeve_model::{AgentConfig, AgentKey, KeyFile, NodeName, NodePort, Problem, Secret, agent_config};
use rustls::ClientConfig;

use crate::channel::Identity;
use crate::channel::tls::client_config;

/// Where the configuration is if nobody says otherwise. It need not be there.
pub const CONFIG: &str = "/etc/portreeve/agent.toml";
/// No file that is read here is larger, in bytes.
pub(crate) const MAX_FILE: u64 = 256 * 1024;

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
        let config = match read_text(file) {
            Ok(text) => agent_config::parse(&text, &file.display().to_string())
                .map_err(|found| told("configuration", &found))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && file == Path::new(CONFIG) => {
                AgentConfig::default()
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{} can't be read", file.display()));
            }
        };
        if config.plain {
            let node = match &config.node {
                Some(node) => node.clone(),
                None => host_name()?,
            };
            let portals = config.portals.clone();
            return Ok(Self { node, portals, way: Way::Plain, config });
        }
        let path = &config.key;
        let text = read_secret(path).with_context(|| format!("the key file {}", path.display()))?;
        let keys = KeyFile::parse(text.reveal(), &path.display().to_string())
            .map_err(|found| told("key file", &found))?;
        let own = Identity::from_pem(&keys.private_key)
            .with_context(|| format!("the key file {}", path.display()))?;
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

pub(crate) fn told(what: &str, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow!("the {what} has {} problem(s):\n{}", lines.len(), lines.join("\n"))
}

fn host_name() -> anyhow::Result<NodeName> {
    let name = portreeve_sys::host_name().context("this machine has no name: write node = \"...\"")?;
    NodeName::parse(&name).context("this machine's name is no node's: write node = \"...\"")
}

pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    read_all(File::open(path)?)
}

fn read_all(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// The file must be root's or our own, and closed to others. Root's group may read it: so does systemd's copy of a
/// credential.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let file = File::open(path).context("can't be read")?;
    let meta = file.metadata().context("can't be looked at")?;
    let owner_is_right = meta.uid() == 0 || meta.uid() == Uid::effective().as_raw();
    let group = if meta.gid() == 0 { 0o020 } else { 0o070 };
    if !meta.is_file() || !owner_is_right || meta.mode() & (0o007 | group) != 0 {
        bail!("must be root's and closed to everybody else (chown root, chmod 600); it was not used");
    }
    Ok(Secret::new(read_all(file).context("can't be read")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

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
