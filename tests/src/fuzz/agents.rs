//! The files that say who agents and portals are.

use portreeve_model::nodes::slurm_nodes;
use portreeve_model::{AgentKey, KeyFile, Network, NodeMap, Speaker, agent_config};

/// `nodes.toml`, and the other files beside it.
pub fn node_map(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match NodeMap::parse(text, "nodes.toml") {
        Ok(map) => {
            for node in map.nodes() {
                for name in node.also.iter().chain([&node.name]) {
                    assert_eq!(map.find(name).map(|found| &found.name), Some(&node.name), "{text:?}");
                }
                for address in &node.addresses {
                    assert_eq!(map.at(*address).map(|found| &found.name), Some(&node.name), "{text:?}");
                }
                match node.speaker {
                    Some(Speaker::Key(key)) => {
                        assert_eq!(map.of_key(&key).map(|found| &found.name), Some(&node.name), "{text:?}");
                    }
                    Some(Speaker::Plain) | None => {
                        assert!(!node.is_login || node.speaker.is_none(), "{text:?}")
                    }
                }
            }
        }
        Err(problems) => assert!(!problems.is_empty(), "{text:?}"),
    }
    if let Err(problems) = agent_config::parse(text, "agent.toml") {
        assert!(!problems.is_empty(), "{text:?}");
    }
    if let Ok(file) = KeyFile::parse(text, "agent-key.toml")
        && !file.private_key.reveal().contains("'''")
    {
        assert!(!format!("{file:?}").contains("PRIVATE KEY"), "the key is shown");
    }
    if let Ok(network) = Network::parse(text) {
        assert_eq!(Network::parse(&network.to_string()), Ok(network), "{text:?}");
    }
    if let Ok(key) = AgentKey::parse(text) {
        assert_eq!(key.to_string(), text.to_ascii_lowercase());
    }
    let (nodes, wrong) = slurm_nodes(text);
    assert!(nodes.len() + wrong.len() <= text.lines().count());
}
