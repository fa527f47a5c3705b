//! The nodes' agents: whether configuration and node map let them in, and whether they are connected.

use std::io;
use std::path::Path;

use portreeve_model::{Node, NodeMap, Speaker};

use super::{Finding, Installation, in_time};
use crate::nodes_list::{self, METRICS, asked};

/// What the two files say together.
pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let Some(map) = &at.map else { return vec![Finding::not_checked("the node map has problems")] };
    if map.nodes().is_empty() {
        let remedy = "scontrol show node -o | portreeve nodes sync, then portreeve keys add for each";
        return vec![Finding::problem("the node map has no node, so that nothing can be reached", remedy)];
    }
    if let Some(socket) = at.config.agents.lookup.ident2() {
        return asked_by_ident2(map, socket);
    }
    let mut findings: Vec<Finding> = map.nodes().iter().filter_map(|node| of_node(at, node)).collect();
    if findings.is_empty() {
        findings.push(Finding::fine(format!("{} known, each with an agent", map.nodes().len())));
    }
    findings
}

/// Without agents, a node's addresses are all that is needed.
fn asked_by_ident2(map: &NodeMap, socket: &Path) -> Vec<Finding> {
    let away = map.nodes().iter().filter(|node| node.addresses.is_empty());
    let mut findings: Vec<Finding> = away.map(without_address).collect();
    findings.push(Finding::warning(
        format!(
            "whose a connection is says the ident2 service at {}, about all {} nodes: nothing proves its answers",
            socket.display(),
            map.nodes().len()
        ),
        "agents.lookup = \"agents\" is the better way; docs/admin/ident2.md says what is weaker",
    ));
    findings
}

fn without_address(node: &Node) -> Finding {
    Finding::warning(
        format!("{} has no address, so it can't be reached", node.name),
        "portreeve nodes sync, or write its addresses in the node map",
    )
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
        Some(_) if addresses.is_empty() => without_address(node),
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

/// Which of them are connected, as the portal says.
pub(super) fn connected(at: &Installation) -> Vec<Finding> {
    if at.config.agents.lookup.ident2().is_some() {
        return vec![Finding::fine("ident2 is asked in their place")];
    }
    let nodes = match in_time(|| asked(METRICS)) {
        Some(Ok(nodes)) => nodes,
        Some(Err(error)) if is_denied(&error) => {
            return vec![Finding::not_checked(format!("{METRICS} is not yours to ask: do this as root"))];
        }
        Some(Err(error)) => {
            let remedy = "systemctl status portreeve-metrics.socket portreeve-portal says why";
            return vec![Finding::problem(format!("{error:#}"), remedy)];
        }
        None => return vec![Finding::problem("the portal does not say which are connected", "restart it")],
    };
    of_all(&nodes)
}

fn is_denied(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

fn of_all(nodes: &[nodes_list::Node]) -> Vec<Finding> {
    let is_connected = |node: &&nodes_list::Node| node.agent.as_deref() == Some("connected");
    let (connected, away): (Vec<_>, Vec<_>) = nodes.iter().partition(is_connected);
    let mut findings = vec![if connected.is_empty() {
        let remedy =
            "journalctl -u portreeve-agent on a node says why; port 8499 of the portal must be open to nodes";
        Finding::problem("no agent is connected, so that nobody is let in anywhere", remedy)
    } else {
        Finding::fine(format!("{} of {} are connected", connected.len(), nodes.len()))
    }];
    for node in away.iter().filter(|_| !connected.is_empty()) {
        let why = node.problem.as_deref().unwrap_or("the portal does not say why");
        let what = format!("{} is not connected, so nobody is let in there: {why}", node.node);
        findings.push(Finding::warning(what, "journalctl -u portreeve-agent there says more"));
    }
    for (node, why) in connected.iter().filter_map(|node| Some((&node.node, node.problem.as_ref()?))) {
        findings.push(Finding::warning(format!("{node}: {why}"), "portreeve keys show has each node's key"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_connected() {
        let said = |rows: &str| -> Vec<String> {
            of_all(&serde_json::from_str::<Vec<nodes_list::Node>>(rows).unwrap())
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        let up = r#"{"node":"c1","agent":"connected"}"#;
        let down = r#"{"node":"c2","agent":"gone","problem":"it hung up"}"#;
        let odd = r#"{"node":"c3","agent":"connected","problem":"it calls itself c4"}"#;
        assert_eq!(said(&format!("[{up}]")), ["ok: 1 of 1 are connected"]);
        let both = said(&format!("[{up},{down},{odd}]"));
        assert_eq!(both.len(), 3, "{both:?}");
        assert_eq!(both[0], "ok: 2 of 3 are connected");
        assert!(both[1].starts_with("warning: c2 is not connected, so nobody is let in there: it hung up; "));
        assert!(both[2].starts_with("warning: c3: it calls itself c4; "));
        for none in ["[]".to_owned(), format!("[{down}]")] {
            let none = said(&none);
            assert!(none.len() == 1 && none[0].starts_with("problem: no agent is connected"), "{none:?}");
        }
    }
}
