//! `portreeve nodes`: the map of nodes. `sync` takes addresses over from Slurm, `list` shows the nodes. No key is touched by it, and nothing that
//! was written by hand: what Slurm says stands under a key of its own (`slurm`).

use std::io::{IsTerminal, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use portreeve_model::nodes::{SlurmNode, slurm_nodes};
use toml_edit::{Item, Table};

use crate::nodes_file::{NodesFile, set_addresses};
use crate::nodes_list::{List, list};

/// What Slurm's node table may have at most, in bytes: a hundred thousand nodes.
const MAX_TABLE: u64 = 256 * 1024 * 1024;

/// `portreeve nodes`
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Without one: list
    #[command(subcommand)]
    action: Option<Action>,
    /// Directory of the cluster's configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/portreeve", global = true)]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the nodes, their addresses, and whether their agents are connected
    #[command(visible_alias = "status")]
    List(List),
    /// Take nodes and their addresses over from Slurm: scontrol show node -o | portreeve nodes sync
    Sync {
        /// A file with the output of `scontrol show node -o` [default: standard input]
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Look up, with this machine's resolver, nodes that Slurm knows by a name
        #[arg(long)]
        resolve: bool,
        /// Remove addresses that an earlier sync wrote for nodes that Slurm does not have any more
        #[arg(long)]
        prune: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) fn nodes(nodes: &Nodes) -> anyhow::Result<()> {
    let (from, resolve, prune, dry_run) = match &nodes.action {
        None => return list(&List::default(), &nodes.dir),
        Some(Action::List(how)) => return list(how, &nodes.dir),
        Some(Action::Sync { from, resolve, prune, dry_run }) => (from, resolve, prune, dry_run),
    };
    let text = table(from.as_deref())?;
    let mut file = NodesFile::open(&nodes.dir)?;
    for line in sync(&mut file, &text, *resolve, *prune)? {
        println!("{line}");
    }
    if *dry_run {
        // What would be refused is told now.
        file.map()?;
        println!("nothing was written");
        return Ok(());
    }
    file.save()
}

fn table(from: Option<&Path>) -> anyhow::Result<String> {
    let mut text = String::new();
    match from {
        Some(path) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("{}: can't be read", path.display()))?;
            file.take(MAX_TABLE).read_to_string(&mut text).with_context(|| path.display().to_string())?;
        }
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                bail!("nothing to read: scontrol show node -o | portreeve nodes sync");
            }
            stdin.lock().take(MAX_TABLE).read_to_string(&mut text).context("standard input can't be read")?;
        }
    }
    Ok(text)
}

/// Changes the file, and says what was done to each node.
fn sync(file: &mut NodesFile, text: &str, resolve: bool, prune: bool) -> anyhow::Result<Vec<String>> {
    let (found, wrong) = slurm_nodes(text);
    if let Some(first) = wrong.first() {
        bail!("{} line(s) are not understood, and nothing was changed; {first}", wrong.len());
    }
    if found.is_empty() {
        bail!("there is no node in the table, and nothing was changed: does slurmctld answer?");
    }
    let before = file.map()?;
    let (mut told, mut unchanged) = (Vec::new(), 0);
    for node in &found {
        let addresses = match addresses_of(node, resolve) {
            Ok(addresses) => addresses,
            Err(why) => {
                told.push(format!("skipped {}: {why}", node.name));
                continue;
            }
        };
        let known = before.find(&node.name).map(|known| known.name.clone());
        let is_new = known.is_none();
        let entry = file.node_or_new(&known.unwrap_or_else(|| node.name.clone()))?;
        let old = synced(entry);
        let shown = |addresses: &[String]| addresses.join(", ");
        let new: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        match old {
            Some(old) if old == new => {
                unchanged += 1;
                continue;
            }
            Some(old) => told.push(format!("changed {}: {} -> {}", node.name, shown(&old), shown(&new))),
            None if is_new => told.push(format!("added {}: {}; it has no key yet", node.name, shown(&new))),
            None => told.push(format!("added to {}: {}", node.name, shown(&new))),
        }
        set_addresses(entry, "slurm", &addresses);
    }
    for node in before.nodes() {
        if found.iter().any(|slurm| before.find(&slurm.name).is_some_and(|known| known.name == node.name)) {
            continue;
        }
        let Some(entry) = file.node(&node.name)? else { continue };
        match synced(entry) {
            Some(old) if prune => {
                entry.remove("slurm");
                told.push(format!("removed from {}: {}; Slurm does not have it", node.name, old.join(", ")));
            }
            Some(_) => told.push(format!(
                "kept {}: Slurm does not have it any more; --prune removes what sync wrote",
                node.name
            )),
            None => told.push(format!("kept {}: not Slurm's", node.name)),
        }
    }
    told.push(format!("{unchanged} unchanged"));
    Ok(told)
}

/// What an earlier sync wrote.
fn synced(entry: &Table) -> Option<Vec<String>> {
    let written = entry.get("slurm").and_then(Item::as_array)?;
    Some(written.iter().filter_map(|address| address.as_str().map(str::to_owned)).collect())
}

fn addresses_of(node: &SlurmNode, resolve: bool) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = node.address.parse() {
        return Ok(vec![address]);
    }
    if !resolve {
        return Err(format!(
            "Slurm knows it by the name {}: --resolve looks it up, or write its addresses by hand",
            node.address
        ));
    }
    let found = (node.address.as_str(), 0).to_socket_addrs();
    let found = found.map_err(|error| format!("{} can't be looked up: {error}", node.address))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()) {
        // Some systems give a machine's own name a loopback address.
        if !address.is_loopback() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(format!("{} has no address but this machine's own loopback", node.address));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_model::{NodeName, NodePort};

    const KEY: &str = "ed25519:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn with(text: &str) -> (tempfile::TempDir, NodesFile) {
        let dir = tempfile::tempdir().unwrap();
        NodesFile::make(dir.path(), &[NodePort::parse("p:1").unwrap()]).unwrap();
        std::fs::write(dir.path().join("nodes.toml"), text).unwrap();
        let file = NodesFile::open(dir.path()).unwrap();
        (dir, file)
    }

    #[test]
    fn addresses_follow_slurm_and_keys_stay() {
        let (dir, mut file) = with(&format!(
            "# ours\n[[node]]\nname = 'c1'\naddresses = ['10.8.0.1'] # by hand\nslurm = ['10.0.0.1']\nkey = '{KEY}'\n\
             [[node]]\nname = 'c2'\nslurm = ['10.0.0.2']\n[[node]]\nname = 'login1'\naddresses = ['10.0.0.9']\n\
             [[node]]\nname = 'gone'\nslurm = ['10.0.0.8']\n[[node]]\nname = 'c4.cluster.example'\n"
        ));
        let table = "NodeName=c1 NodeAddr=10.0.0.11 Reason=x\nNodeName=C2 NodeAddr=10.0.0.2\nNodeName=c3 NodeAddr=10.0.0.3\n\
                     NodeName=c4 NodeAddr=10.0.0.4\nNodeName=c5 NodeAddr=c5\n";
        let told = sync(&mut file, table, false, false).unwrap();
        assert_eq!(
            told,
            [
                "changed c1: 10.0.0.1 -> 10.0.0.11",
                "added c3: 10.0.0.3; it has no key yet",
                "added to c4: 10.0.0.4",
                "skipped c5: Slurm knows it by the name c5: --resolve looks it up, or write its addresses by hand",
                "kept login1: not Slurm's",
                "kept gone: Slurm does not have it any more; --prune removes what sync wrote",
                "1 unchanged",
            ]
        );
        file.save().unwrap();
        let text = std::fs::read_to_string(dir.path().join("nodes.toml")).unwrap();
        assert!(text.contains("# ours") && text.contains("# by hand") && text.contains(KEY), "{text}");
        let mut file = NodesFile::open(dir.path()).unwrap();
        let map = file.map().unwrap();
        let at = |address: &str| map.at(address.parse().unwrap()).map(|node| node.name.to_string());
        assert_eq!(at("10.0.0.11").as_deref(), Some("c1"));
        assert_eq!(at("10.8.0.1").as_deref(), Some("c1"));
        assert_eq!(at("10.0.0.1"), None);
        assert_eq!(at("10.0.0.4").as_deref(), Some("c4.cluster.example"));
        assert!(map.find(&NodeName::parse("c1").unwrap()).unwrap().speaker.is_some());
        let told = sync(&mut file, table, false, true).unwrap();
        assert!(
            told.contains(&"removed from gone: 10.0.0.8; Slurm does not have it".to_owned()),
            "{told:#?}"
        );
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        let (_dir, mut file) = with("[[node]]\nname = 'c1'\nslurm = ['10.0.0.1']\n");
        for bad in [
            "",
            "\n",
            "slurm_load_node error: Unable to contact slurm controller\n",
            "NodeName=c1 State=IDLE\n",
        ] {
            assert!(sync(&mut file, bad, false, true).is_err(), "{bad}");
        }
        // An address that would be two nodes'.
        sync(&mut file, "NodeName=c2 NodeAddr=10.0.0.1\n", false, false).unwrap();
        assert!(file.map().is_err() && file.save().is_err());
    }
}
