//! `portreeve keys`: the keys by which nodes' agents and portals know each other. Root's, on the machine that keeps the
//! cluster's configuration. A node gets one file, and the node map its public key; nothing expires, nothing is signed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use portreeve_agent::channel::Identity;
use portreeve_broker::private_file;
use portreeve_model::{KeyFile, NodeName, NodePort, Secret, Speaker};
use toml_edit::{Array, value};

use crate::nodes_file::{NodesFile, set_addresses};

/// The portal's private key in the directory, PEM.
pub(crate) const PORTAL_KEY: &str = "agents-key.pem";
/// Key files for nodes, until they are copied there.
const KEY_FILES: &str = "agent-keys";
/// Where agents dial in if nobody says otherwise.
const PORT: u16 = 8499;

/// `portreeve keys`
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    action: Action,
    /// Directory of the cluster's configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/portreeve", global = true)]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the portal's key, and an empty node map
    Init {
        /// Where portals listen for agents, as HOST:PORT [default: this machine's name and 8499]
        #[arg(long = "portal", value_name = "HOST:PORT", value_delimiter = ',', value_parser = NodePort::parse)]
        portals: Vec<NodePort>,
    },
    /// Make a node's key: one file for the node, and an entry in the node map
    Add {
        /// The node
        #[arg(value_parser = NodeName::parse)]
        node: NodeName,
        /// By which addresses the portal reaches it, and no other node
        #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
        addresses: Vec<IpAddr>,
        /// `login`: people sign in from there with `portreeve login`
        #[arg(long = "role", value_name = "ROLE", value_parser = ["login"])]
        roles: Vec<String>,
        /// Replace the key that the node has
        #[arg(long)]
        replace: bool,
        /// The file to write [default: agent-keys/NODE.toml in the directory]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show the portal's key, and every node with its key, addresses and roles
    Show,
    /// Take a node's key out of the node map: its agent is not believed any more
    Revoke {
        /// The node
        #[arg(value_parser = NodeName::parse)]
        node: NodeName,
    },
}

pub(crate) fn keys(keys: &Keys) -> anyhow::Result<()> {
    let dir = &keys.dir;
    match &keys.action {
        Action::Init { portals } => init(dir, portals),
        Action::Add { node, addresses, roles, replace, out } => {
            let out = out.clone().unwrap_or_else(|| dir.join(KEY_FILES).join(format!("{node}.toml")));
            add(dir, node, addresses, roles, *replace, &out)
        }
        Action::Show => show(dir),
        Action::Revoke { node } => revoke(dir, node),
    }
}

fn init(dir: &Path, portals: &[NodePort]) -> anyhow::Result<()> {
    make_dir(dir, 0o755)?;
    let path = dir.join(PORTAL_KEY);
    if private_file::read(&path)?.is_some() {
        bail!(
            "{} is there already: with another key no agent would know the portal any more",
            path.display()
        );
    }
    let portals = match portals {
        [] => vec![this_machine()?],
        portals => portals.to_vec(),
    };
    let (pem, own) = generate()?;
    private_file::write(&path, pem.reveal().as_bytes())?;
    NodesFile::make(dir, &portals)?;
    println!("portal  {}", own.public());
    println!("the portal's private key is {}", path.display());
    Ok(())
}

fn add(
    dir: &Path,
    node: &NodeName,
    addresses: &[IpAddr],
    roles: &[String],
    replace: bool,
    out: &Path,
) -> anyhow::Result<()> {
    if node.as_ip().is_some() {
        bail!("a node has a name: give its addresses with --addresses");
    }
    let portal = portal_key(dir)?;
    let mut file = NodesFile::open(dir)?;
    let map = file.map()?;
    // The entry may have another name for it.
    let name = map.find(node).map_or_else(|| node.clone(), |known| known.name.clone());
    let (pem, own) = generate()?;
    let entry = file.node_or_new(&name)?;
    if entry.contains_key("key") && !replace {
        bail!("{name} has a key: --replace makes another, and the old one is not believed any more");
    }
    entry.insert("key", value(own.public().to_string()));
    entry.remove("plain");
    if !addresses.is_empty() {
        set_addresses(entry, "addresses", addresses);
    }
    if !roles.is_empty() {
        entry.insert("roles", value(roles.iter().collect::<Array>()));
    }
    let map = file.map()?;
    let key_file = KeyFile {
        node: name.clone(),
        private_key: pem,
        portal_keys: vec![portal.public()],
        portals: map.portals().to_vec(),
    };
    // The secret first: an entry without its file would be a node that can't speak.
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(parent, 0o700)?;
    }
    private_file::write(out, key_file.to_text().reveal().as_bytes())?;
    file.save()?;
    println!("{name}  {}", own.public());
    println!(
        "copy {} to {name} as /etc/portreeve/agent-key.toml, mode 0600, and remove it here",
        out.display()
    );
    if map.find(&name).is_none_or(|known| known.addresses.is_empty()) {
        println!("{name} has no address yet: portreeve nodes sync, or --addresses");
    }
    if map.portals().is_empty() {
        println!("no portal is in the file: write portals = [\"HOST:PORT\"] in the node's agent.toml");
    }
    println!("then: systemctl reload portreeve-portal");
    Ok(())
}

fn show(dir: &Path) -> anyhow::Result<()> {
    println!("portal  {}", portal_key(dir)?.public());
    for node in NodesFile::open(dir)?.map()?.nodes() {
        let speaker = match node.speaker {
            Some(Speaker::Key(key)) => key.to_string(),
            Some(Speaker::Plain) => "plain: no key, the weaker way".to_owned(),
            None => "no key".to_owned(),
        };
        let addresses = node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses };
        println!("{}  {speaker}  {addresses}{}", node.name, if node.is_login { "  login" } else { "" });
    }
    Ok(())
}

fn revoke(dir: &Path, node: &NodeName) -> anyhow::Result<()> {
    let mut file = NodesFile::open(dir)?;
    let Some(known) = file.map()?.find(node).map(|known| known.name.clone()) else {
        bail!("there is no node {node} in the node map");
    };
    let entry = file.node(&known)?;
    // The rest stays, so that a new key can be given. Without a key nobody speaks for the node.
    if entry.and_then(|entry| entry.remove("key")).is_none() {
        bail!("{known} has no key");
    }
    file.save()?;
    println!(
        "{known} has no key any more; the portal ends its connection at: systemctl reload portreeve-portal"
    );
    Ok(())
}

fn generate() -> anyhow::Result<(Secret, Identity)> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).context("no key could be made")?;
    let pem = Secret::new(pair.serialize_pem());
    let identity = Identity::from_pem(&pem)?;
    Ok((pem, identity))
}

fn portal_key(dir: &Path) -> anyhow::Result<Identity> {
    let path = dir.join(PORTAL_KEY);
    let Some(pem) = private_file::read(&path)? else {
        bail!("{} is not there: make it with portreeve keys init", path.display());
    };
    let pem = Secret::new(String::from_utf8(pem).unwrap_or_default());
    Identity::from_pem(&pem).with_context(|| path.display().to_string())
}

fn this_machine() -> anyhow::Result<NodePort> {
    let name = portreeve_sys::host_name().context("this machine has no name: use --portal HOST:PORT")?;
    NodePort::parse(&format!("{name}:{PORT}"))
        .context("this machine's name can't stand in an address: use --portal HOST:PORT")
}

fn make_dir(dir: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.with_context(|| format!("{} can't be made", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_model::NodeMap;
    use std::os::unix::fs::MetadataExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn map(dir: &Path) -> NodeMap {
        NodesFile::open(dir).unwrap().map().unwrap()
    }

    #[test]
    fn a_key_is_made_shown_replaced_and_revoked() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let portal = NodePort::parse("portal:8444").unwrap();
        init(dir, std::slice::from_ref(&portal)).unwrap();
        assert_eq!((mode(&dir.join(PORTAL_KEY)), mode(&dir.join("nodes.toml"))), (0o600, 0o644));
        assert!(init(dir, &[]).unwrap_err().to_string().contains("already"));

        // What the sysadmin writes stays.
        let with_comment = std::fs::read_to_string(dir.join("nodes.toml")).unwrap()
            + "# by hand\n[[node]]\nname = \"C2\" # ours\n";
        std::fs::write(dir.join("nodes.toml"), with_comment).unwrap();
        let out = dir.join(KEY_FILES).join("c1.toml");
        let addresses = ["10.0.0.11".parse().unwrap(), "fd00::11".parse().unwrap()];
        add(dir, &name("c1"), &addresses, &["login".to_owned()], false, &out).unwrap();
        add(dir, &name("c2"), &[], &[], false, &dir.join("c2.toml")).unwrap();
        let text = std::fs::read_to_string(dir.join("nodes.toml")).unwrap();
        assert!(
            text.contains("# by hand")
                && text.contains("# ours")
                && text.contains("# The nodes of the cluster"),
            "{text}"
        );
        assert_eq!((mode(&out), mode(&dir.join(KEY_FILES))), (0o600, 0o700));

        let key_file = KeyFile::parse(&std::fs::read_to_string(&out).unwrap(), "-").unwrap();
        let own = Identity::from_pem(&key_file.private_key).unwrap();
        assert_eq!((key_file.node.as_str(), key_file.portals), ("c1", vec![portal]));
        assert_eq!(key_file.portal_keys, [portal_key(dir).unwrap().public()]);
        let nodes = map(dir);
        let c1 = nodes.find(&name("c1")).unwrap();
        assert_eq!((c1.speaker, c1.is_login), (Some(Speaker::Key(own.public())), true));
        assert_eq!(c1.addresses, addresses);
        show(dir).unwrap();

        let again = add(dir, &name("c1"), &[], &[], false, &out).unwrap_err();
        assert!(again.to_string().contains("--replace"));
        add(dir, &name("c1"), &[], &[], true, &out).unwrap();
        let replaced = map(dir);
        assert!(replaced.of_key(&own.public()).is_none(), "the old key is not believed");
        assert_eq!(replaced.find(&name("c1")).unwrap().addresses, addresses, "the rest stays");

        revoke(dir, &name("c1")).unwrap();
        assert_eq!(map(dir).find(&name("c1")).unwrap().speaker, None);
        assert!(revoke(dir, &name("c1")).is_err() && revoke(dir, &name("c9")).is_err());
    }

    #[test]
    fn what_would_be_wrong_is_not_written() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        init(dir, &[NodePort::parse("portal:8444").unwrap()]).unwrap();
        let add = |node: &str, address: &str| {
            super::add(
                dir,
                &name(node),
                &[address.parse().unwrap()],
                &[],
                false,
                &dir.join(format!("{node}.toml")),
            )
        };
        add("c1", "10.0.0.11").unwrap();
        let before = std::fs::read_to_string(dir.join("nodes.toml")).unwrap();
        for (node, address) in
            [("c2", "10.0.0.11"), ("c2", "127.0.0.1"), ("c2", "0.0.0.0"), ("10.0.0.2", "10.0.0.2")]
        {
            assert!(add(node, address).is_err(), "{node} {address}");
            assert_eq!(std::fs::read_to_string(dir.join("nodes.toml")).unwrap(), before);
            assert!(!dir.join("c2.toml").exists(), "no key without an entry");
        }
        assert!(
            super::add(Path::new("/nonexistent"), &name("c1"), &[], &[], false, Path::new("/x")).is_err()
        );
    }
}
