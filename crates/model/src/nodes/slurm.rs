//! What Slurm knows of nodes' addresses: the output of `scontrol show node -o`. Root runs that, and gives us the text.

use crate::names::NodeName;

/// A node of Slurm's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmNode {
    /// `NodeName`
    pub name: NodeName,
    /// `NodeAddr`: an address, or a name that a resolver knows (Slurm's default is the node's name).
    pub address: String,
}

/// The nodes of the text, one on each line, and what was not understood of the other lines.
///
/// Values like `Reason=` and `Comment=` are free text, in which anything can stand: they come last, so the first
/// `NodeAddr` of a line is Slurm's.
#[must_use]
pub fn slurm_nodes(text: &str) -> (Vec<SlurmNode>, Vec<String>) {
    let (mut nodes, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let name = line.strip_prefix("NodeName=").and_then(|rest| rest.split(' ').next());
        match (name.map(NodeName::parse), value("NodeAddr")) {
            (Some(Ok(name)), Some(address)) if name.as_ip().is_none() && !address.is_empty() => {
                nodes.push(SlurmNode { name, address: address.to_owned() });
            }
            (Some(Err(error)), _) => wrong.push(format!("line {}: {error}", number + 1)),
            _ => wrong.push(format!(
                "line {}: this is no node with a NodeAddr, as `scontrol show node -o` shows them",
                number + 1
            )),
        }
    }
    (nodes, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_as_slurm_shows_them() {
        let text = "NodeName=c1 Arch=x86_64 CoresPerSocket=1 CPUAlloc=0 AvailableFeatures=(null) Gres=(null) \
                    NodeAddr=10.0.0.11 NodeHostName=c1 Version=22.05.8 OS=Linux 6.1.0 #1 SMP Debian RealMemory=1 \
                    State=IDLE Reason=moved NodeAddr=10.9.9.9 [root@2026-11-22T12:00:00]\n\
                    NodeName=C2 NodeAddr=c2-ib NodeHostName=c2\n\nNodeName=c3 State=UNKNOWN\nslurm_load_node error\n\
                    NodeName=a/b NodeAddr=10.0.0.1\n";
        let (nodes, wrong) = slurm_nodes(text);
        let found: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.address.as_str())).collect();
        assert_eq!(found, [("c1", "10.0.0.11"), ("c2", "c2-ib")]);
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        assert!(wrong[0].starts_with("line 4: ") && wrong[2].starts_with("line 6: "), "{wrong:#?}");
    }
}
