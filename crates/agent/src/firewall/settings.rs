//! What the firewall is told: configuration, key file and node map, at start and at each reload.

use std::fs::File;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::{Group, User};
use portreeve_model::firewall::Exempt;
use portreeve_model::{
    AgentKey, FirewallConfig, GroupRef, GroupRules, NodeMap, NodeName, Speaker, UserRef, firewall_config,
};

use super::CONFIG;
use crate::channel::Identity;
use crate::files::{self, told};

/// A node map of 100,000 nodes is some 15 MB.
const MAX_NODES: u64 = 64 * 1024 * 1024;

/// All that was told, checked, with names looked up.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: FirewallConfig,
    pub(super) node: NodeName,
    pub(super) own: Identity,
    pub(super) nodes: NodeMap,
    pub(super) exempt: Exempt,
    pub(super) groups: GroupRules,
}

/// How the node with an address can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its firewall, which has this key.
    ByKey(AgentKey),
    /// The site's ident2 service, which knows it by its address: it never had a key, and the node map says so.
    ByIdent2,
}

impl Settings {
    /// Reads all three files. Asks the user database for the names in the configuration.
    ///
    /// # Errors
    /// Every problem of the first file that has some.
    pub(super) fn read(file: &Path, dry_run: bool) -> anyhow::Result<Self> {
        let mut config = read_config(file)?;
        config.dry_run |= dry_run;
        let (keys, own) = files::key(&config.key)?;
        let nodes = read_nodes(&config.nodes)?;
        match nodes.of_key(&own.public()) {
            Some(node) if node.name == keys.node => {}
            Some(node) => bail!(
                "the node map {} gives this node's key to {}, and the key file to {}: make the key anew with \
                 portreeve keys add {} --replace",
                config.nodes.display(),
                node.name,
                keys.node,
                keys.node
            ),
            None => bail!(
                "the node map {} does not have this node's key: copy the portal's nodes.toml, or make the key with \
                 portreeve keys add {}",
                config.nodes.display(),
                keys.node
            ),
        }
        let exempt = Exempt {
            connectors: uids(&config.exempt_connectors, "exempt_connectors", file)?,
            listeners: uids(&config.exempt_listeners, "exempt_listeners", file)?,
        };
        let never: Vec<Option<u32>> = config.never.iter().map(gid).collect::<anyhow::Result<_>>()?;
        let groups = GroupRules { never: never.into_iter().flatten().collect() };
        Ok(Self { node: keys.node, own, nodes, exempt, groups, config })
    }

    /// How to ask about whoever connects from this address; `None`: nobody can be asked.
    pub(super) fn asked(&self, address: IpAddr) -> Option<Asked> {
        // An address that no node has is nobody's. A key that was revoked leaves an entry without a speaker: less than a
        // key must not be believed of that node.
        match self.nodes.at(address)?.speaker? {
            Speaker::Key(key) => Some(Asked::ByKey(key)),
            Speaker::Plain => self.config.ident2_socket.is_some().then_some(Asked::ByIdent2),
        }
    }

    /// The name of the node that has the address, else the address.
    pub(super) fn name_of(&self, address: IpAddr) -> String {
        self.nodes.at(address).map_or_else(|| address.to_string(), |node| node.name.to_string())
    }

    /// One address for all that a node has, so that what is counted is the node; of no node, the address itself.
    pub(super) fn origin(&self, address: IpAddr) -> IpAddr {
        self.nodes.at(address).and_then(|node| node.addresses.first()).copied().unwrap_or(address)
    }

    /// What a reload can't change.
    pub(super) fn warn_of_what_stays(&self, before: &Self) {
        let (new, old) = (&self.config, &before.config);
        for (key, changed) in [
            ("queues", new.queues != old.queues),
            ("first_port", new.first_port != old.first_port),
            ("port", new.port != old.port),
            ("control_socket", new.control_socket != old.control_socket),
        ] {
            if changed {
                tracing::warn!("{key} takes effect at the next start");
            }
        }
    }

    /// One line for `--check`.
    pub(super) fn summary(&self) -> String {
        let queues = match &self.config.queues {
            Some(queues) => format!("queues {} to {}", queues.start(), queues.end()),
            None => "no queue: answers other nodes only".to_owned(),
        };
        let with_key =
            self.nodes.nodes().iter().filter(|node| matches!(node.speaker, Some(Speaker::Key(_)))).count();
        format!(
            "node {}, {queues}, port {}, {} nodes of which {with_key} have a key{}",
            self.node,
            self.config.port,
            self.nodes.nodes().len(),
            if self.config.dry_run { ", dry run: nothing is refused" } else { "" }
        )
    }
}

/// Reads the configuration alone. It need not be there where it is if nobody says otherwise.
///
/// # Errors
/// Every problem of it.
pub(crate) fn read_config(file: &Path) -> anyhow::Result<FirewallConfig> {
    files::config(file, CONFIG, firewall_config::parse)
}

fn read_nodes(path: &Path) -> anyhow::Result<NodeMap> {
    let read = files::read_decisive(File::open(path), MAX_NODES);
    let text = read.with_context(|| format!("the node map {}", path.display()))?;
    NodeMap::parse(&text, &path.display().to_string()).map_err(|found| told("node map", &found))
}

/// A name that is nobody's here is refused: with a slip of the pen somebody would be let in everywhere, or nobody.
fn uids(users: &[UserRef], key: &str, file: &Path) -> anyhow::Result<Vec<RangeInclusive<u32>>> {
    let uid = |user: &UserRef| match user {
        UserRef::Uids(range) => Ok(range.clone()),
        UserRef::Name(name) => match User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()..=user.uid.as_raw()),
            Ok(None) => bail!(
                "{}: {key}: this node has no user {name}: take it out, or write the uid",
                file.display()
            ),
            Err(error) => {
                Err(error).with_context(|| format!("{key}: the user database can't be asked for {name}"))
            }
        },
    };
    users.iter().map(uid).collect()
}

/// A group that this node does not have can't be anybody's here by that name. One that can't be looked up could be.
fn gid(group: &GroupRef) -> anyhow::Result<Option<u32>> {
    match group {
        GroupRef::Gid(gid) => Ok(Some(*gid)),
        GroupRef::Name(name) => {
            let found = Group::from_name(name);
            let found =
                found.with_context(|| format!("never: the user database can't be asked for {name}"))?;
            Ok(found.map(|group| group.gid.as_raw()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    use nix::unistd::Uid;
    use portreeve_model::{KeyFile, NodePort, Secret};

    use super::*;
    use crate::firewall::tests::{ALICE, identity, node_map, settings, skip};

    #[test]
    fn a_node_is_asked_by_its_key_and_by_ident2_only_if_the_map_says_that_it_has_none() {
        let (own, key) = (identity(), identity().public());
        let mut told = settings(&own, &[]);
        let map = format!(
            "{}[[node]]\nname = 'plain'\naddresses = ['192.0.2.3']\nplain = true\n\
             [[node]]\nname = 'revoked'\naddresses = ['192.0.2.4']\n\
             [[node]]\nname = 'not-plain'\naddresses = ['192.0.2.5']\nplain = false\n",
            node_map(&[("keyed", key, &["192.0.2.2"])])
        );
        told.nodes = NodeMap::parse(&map, "nodes.toml").unwrap();
        for (socket, plain) in [(None, None), (Some("/run/ident2d.sock".into()), Some(Asked::ByIdent2))] {
            told.config.ident2_socket = socket;
            for (address, asked) in [
                ("192.0.2.2", Some(Asked::ByKey(key))),
                ("::ffff:192.0.2.2", Some(Asked::ByKey(key))),
                ("192.0.2.3", plain),
                ("::ffff:192.0.2.3", plain),
                ("192.0.2.4", None),
                ("192.0.2.5", None),
                ("192.0.2.6", None),
            ] {
                let socket = &told.config.ident2_socket;
                assert_eq!(told.asked(address.parse().unwrap()), asked, "{address}, {socket:?}");
            }
        }
    }

    #[test]
    fn a_node_map_or_key_that_others_may_write_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let [config, key, nodes] = ["firewall.toml", "key", "nodes.toml"].map(|name| dir.path().join(name));
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let own = Identity::from_pem(&Secret::new(pem.clone())).unwrap().public();
        let key_file = KeyFile {
            node: NodeName::parse("c1").unwrap(),
            private_key: Secret::new(pem),
            portal_keys: vec![identity().public()],
            portals: vec![NodePort::parse("192.0.2.9:8444").unwrap()],
        };
        std::fs::write(&key, key_file.to_text().reveal()).unwrap();
        std::fs::write(&nodes, node_map(&[("c1", own, &["192.0.2.1"])])).unwrap();
        let text = format!("key = '{}'\nnodes = '{}'\nnever = []\n", key.display(), nodes.display());
        std::fs::write(&config, text).unwrap();
        let set = |file: &Path, mode| std::fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        set(&config, 0o644);
        let read = || Settings::read(&config, false);
        let refused = |why: &str, what: &str| {
            let error = format!("{:#}", read().unwrap_err());
            assert!(error.contains(why) && error.contains("it was not used"), "{what}: {error}");
        };
        set(&key, 0o600);
        for mode in [0o600, 0o644, 0o444] {
            set(&nodes, mode);
            assert!(read().is_ok(), "{mode:o}");
        }
        let (of_map, of_key) = ("nobody else may write it", "closed to everybody else");
        for (file, what) in [(&config, "configuration"), (&nodes, "map")] {
            for mode in [0o664, 0o646, 0o666, 0o620, 0o602] {
                set(file, mode);
                refused(of_map, &format!("{what} {mode:o}"));
            }
            set(file, 0o644);
        }
        for mode in [0o620, 0o660, 0o602, 0o604, 0o666] {
            set(&key, mode);
            refused(of_key, &format!("key {mode:o}"));
        }
        set(&key, 0o600);
        assert!(read().is_ok());
        if !Uid::effective().is_root() {
            return skip("to give a file to somebody else needs root");
        }
        for (file, why) in [(&config, of_map), (&nodes, of_map), (&key, of_key)] {
            chown(file, Some(ALICE), None).unwrap();
            refused(why, "alice's");
            chown(file, Some(0), None).unwrap();
        }
        assert!(read().is_ok());
    }
}
