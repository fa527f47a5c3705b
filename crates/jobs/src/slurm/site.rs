//! What a cluster has: `sinfo`, and the person's accounts.

use std::collections::BTreeSet;

use serde::Serialize;

use super::queue::duration;
use super::run::CommandError;

/// Partition (with a star if it is the usual one), up or not, time limit, nodes and cores each as allocated/idle/other/total, GPUs,
/// features, cores and MiB of a node. A bar stands in none of them.
pub(super) const FORMAT: &str = "%P|%a|%l|%F|%C|%G|%f|%c|%m";

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Jobs that name none go there.
    pub is_default: bool,
    /// It takes jobs and starts them.
    pub is_up: bool,
    /// A job may run so long, in seconds; `None`: as long as it likes.
    pub limit: Option<i64>,
    /// Nodes that are free.
    pub idle_nodes: u32,
    /// Nodes in all.
    pub nodes: u32,
    /// Cores that are free.
    pub idle_cores: u32,
    /// Cores in all.
    pub cores: u32,
    /// Cores of a node, of the kind that has most.
    pub node_cores: u32,
    /// Memory of a node, of the kind that has most, in MiB.
    pub node_memory_mib: u64,
    /// GPUs of a node: type (empty: none said) and count.
    pub gpus: BTreeSet<(String, u32)>,
    /// What its nodes have.
    pub features: BTreeSet<String>,
}

/// Whom a person's jobs are charged to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Association {
    /// The account.
    pub account: String,
    /// Qualities of service that may be asked for with it.
    pub qos: Vec<String>,
}

/// What `sinfo` said, which has a line for each kind of node.
pub(super) fn partitions(said: &str) -> Result<Vec<Partition>, CommandError> {
    let mut all: Vec<Partition> = Vec::new();
    for line in said.lines() {
        let one = partition(line).ok_or_else(|| CommandError::NotUnderstood("sinfo".to_owned()))?;
        match all.iter_mut().find(|known| known.name == one.name) {
            Some(known) => known.add(one),
            None => all.push(one),
        }
    }
    Ok(all)
}

fn partition(line: &str) -> Option<Partition> {
    let [name, up, limit, nodes, cores, gres, features, node_cores, memory] =
        line.split('|').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let counts = |text: &str| {
        let mut counts = text.split('/').map(|count| count.trim().parse::<u32>());
        let (_allocated, idle, _other, total) =
            (counts.next()?, counts.next()?, counts.next()?, counts.next()?);
        Some((idle.ok()?, total.ok()?))
    };
    let ((idle_nodes, nodes), (idle_cores, cores)) = (counts(nodes)?, counts(cores)?);
    // "8+": there are nodes with more.
    let number = |text: &str| text.trim().trim_end_matches('+').parse().ok();
    Some(Partition {
        name: name.trim().trim_end_matches('*').to_owned(),
        is_default: name.trim().ends_with('*'),
        is_up: up.trim() == "up",
        limit: duration(limit.trim()),
        idle_nodes,
        nodes,
        idle_cores,
        cores,
        node_cores: u32::try_from(number(node_cores)?).ok()?,
        node_memory_mib: number(memory)?,
        gpus: gres.split(',').filter_map(gpu).collect(),
        features: features
            .split(',')
            .map(str::trim)
            .filter(|one| !one.is_empty() && *one != "(null)")
            .map(str::to_owned)
            .collect(),
    })
}

/// `gpu:TYPE:COUNT` or `gpu:COUNT`, and behind it in brackets where they are.
fn gpu(gres: &str) -> Option<(String, u32)> {
    let gres = gres.split('(').next()?.trim();
    let mut parts = gres.strip_prefix("gpu:")?.rsplitn(2, ':');
    let count = parts.next()?.parse().ok()?;
    Some((parts.next().unwrap_or_default().to_owned(), count))
}

impl Partition {
    fn add(&mut self, other: Self) {
        self.idle_nodes = self.idle_nodes.saturating_add(other.idle_nodes);
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.idle_cores = self.idle_cores.saturating_add(other.idle_cores);
        self.cores = self.cores.saturating_add(other.cores);
        self.node_cores = self.node_cores.max(other.node_cores);
        self.node_memory_mib = self.node_memory_mib.max(other.node_memory_mib);
        self.gpus.extend(other.gpus);
        self.features.extend(other.features);
        self.is_up |= other.is_up;
    }
}

/// What `sacctmgr --parsable2` said.
pub(super) fn associations(said: &str) -> Vec<Association> {
    let mut all: Vec<Association> = Vec::new();
    for line in said.lines() {
        let (account, qos) = line.split_once('|').unwrap_or((line, ""));
        if account.is_empty() || all.iter().any(|known| known.account == account) {
            continue;
        }
        let qos = qos.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
        all.push(Association { account: account.to_owned(), qos });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_has() {
        let said = "normal*|up|1:00:00|1/1/0/2|8/8/0/16|(null)|(null)|8|8000\n\
                    gpu|up|infinite|0/2/0/2|0/64/0/64|gpu:a100:4(S:0-1)|big,fast|32|256000+\n\
                    gpu|up|infinite|1/0/0/1|64/0/0/64|gpu:v100:2,tmp:1|slow|64+|128000\n\
                    old|drain|5:00|0/0/1/1|0/0/4/4|gpu:2|(null)|4|1000\n";
        let all = partitions(said).unwrap();
        let [normal, gpu, old] = &all[..] else { panic!("{all:?}") };
        assert!(normal.is_default && normal.is_up && normal.gpus.is_empty() && normal.features.is_empty());
        assert_eq!((normal.limit, normal.idle_nodes, normal.nodes, normal.idle_cores), (Some(3600), 1, 2, 8));
        assert_eq!(
            (gpu.limit, gpu.nodes, gpu.cores, gpu.node_cores, gpu.node_memory_mib),
            (None, 3, 128, 64, 256_000)
        );
        assert_eq!(gpu.gpus, [("a100".to_owned(), 4), ("v100".to_owned(), 2)].into());
        assert_eq!(gpu.features.len(), 3);
        assert!(!old.is_up && old.gpus == [(String::new(), 2)].into());
        for bad in ["nonsense", "a|up|1:00|1/1|8/8/0/16|x|y|8|8000"] {
            assert!(partitions(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn accounts() {
        let all = associations("physics|normal,high\nphysics|normal\nchem|\n\n");
        assert_eq!(
            all.iter().map(|one| (one.account.as_str(), one.qos.len())).collect::<Vec<_>>(),
            [("physics", 2), ("chem", 0)]
        );
    }
}
