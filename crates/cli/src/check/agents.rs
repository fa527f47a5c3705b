//! The nodes' agents: whether configuration and node map let them in.

use portreeve_model::{Node, Speaker};

use super::{Finding, Installation};

/// What the two files say together.
pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let Some(map) = &at.map else { return vec![Finding::not_checked("the node map has problems")] };
    if map.nodes().is_empty() {
        let remedy = "scontrol show node -o | portreeve nodes sync, then portreeve keys add for each";
        return vec![Finding::problem("the node map has no node, so that nothing can be reached", remedy)];
    }
    let mut findings: Vec<Finding> = map.nodes().iter().filter_map(|node| of_node(at, node)).collect();
    if findings.is_empty() {
        findings.push(Finding::fine(format!("{} known, each with an agent", map.nodes().len())));
    }
    findings
}

fn of_node(at: &Installation, node: &Node) -> Option<Finding> {
    let Node { name, addresses, speaker, is_login, .. } = node;
    let networks = &at.config.agents.plain_networks;
    let is_in = |address| networks.iter().any(|network| network.contains(address));
    Some(match speaker {
        None => Finding::warning(
            format!("{name} has no key, so nobody is let in there"),
            format!("portreeve keys add {name}, if it is to be reached"),
        ),
        Some(_) if addresses.is_empty() => Finding::warning(
            format!("{name} has no address, so it can't be reached"),
            "portreeve nodes sync, or write its addresses in the node map",
        ),
        Some(Speaker::Plain) if !addresses.iter().copied().any(is_in) => Finding::problem(
            format!(
                "{name} is plain, and no address of it is in agents.plain_networks: its agent is refused"
            ),
            format!("portreeve keys add {name}, or add its network"),
        ),
        Some(Speaker::Plain) => Finding::warning(
            format!("the agent of {name} is believed by its address alone"),
            format!("portreeve keys add {name} is the better way"),
        ),
        Some(Speaker::Key(_)) if *is_login && !at.config.sign_in.login_nodes => Finding::warning(
            format!(
                "{name} has the role login, and sign_in.login_nodes is false: portreeve login does not work there"
            ),
            "set it to true, or remove the role",
        ),
        Some(Speaker::Key(_)) => return None,
    })
}

/// Whether they are connected: only the running portal knows.
pub(super) fn connected(_: &Installation) -> Vec<Finding> {
    vec![Finding::not_checked(
        "which agents are connected only the portal knows: portreeve nodes status asks it",
    )]
}
