//! `portreeve why`: what the firewall of this node makes of a connection, and why.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use portreeve_agent::firewall;
use portreeve_agent::rules::InForce;
use portreeve_model::firewall::Refused;
use portreeve_model::wire::firewall::{ControlAnswer, ControlQuestion, Flow, Transport};
use portreeve_model::{NodeName, NodePort};

use crate::nodes_file;

/// `portreeve why`
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Where it comes from; without the port it is said who may connect
    #[arg(long, value_name = "NODE:PORT")]
    from: String,
    /// Where it goes to: a port of this node
    #[arg(long, value_name = "NODE:PORT")]
    to: String,
    /// A flow of UDP, not a TCP connection
    #[arg(long)]
    udp: bool,
    /// Node map, which has the nodes' addresses
    #[arg(long, value_name = "FILE", default_value = "/etc/portreeve/nodes.toml")]
    nodes: PathBuf,
    /// Control socket of the firewall [default: the configured one]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn why(why: &Why) -> anyhow::Result<()> {
    let (from, from_port) = end(&why.from)?;
    let (to, to_port) = end(&why.to)?;
    let to_port = to_port.with_context(|| format!("{}: to which port?", why.to))?;
    let has_names = from.as_ip().is_none() || to.as_ip().is_none();
    let read = || nodes_file::read(&why.nodes).context("give addresses, or name the node map with --nodes");
    let map = has_names.then(read).transpose()?;
    let addresses = |name: &NodeName| -> anyhow::Result<Vec<IpAddr>> {
        match (name.as_ip(), &map) {
            (Some(ip), _) => Ok(vec![ip]),
            (None, Some(map)) => {
                map.addresses(name).with_context(|| format!("{name} is no node of {}", why.nodes.display()))
            }
            (None, None) => bail!("{name} is no address"),
        }
    };
    let (froms, tos) = (addresses(&from)?, addresses(&to)?);
    let pair =
        froms.iter().find_map(|from| Some((*from, *tos.iter().find(|to| to.is_ipv4() == from.is_ipv4())?)));
    let (from, to) = pair.context("the two ends have no addresses of one family")?;
    let flow = Flow {
        transport: if why.udp { Transport::Udp } else { Transport::Tcp },
        from: SocketAddr::new(from, from_port.unwrap_or(0)),
        to: SocketAddr::new(to, to_port),
    };
    let socket = match &why.socket {
        Some(path) => path.clone(),
        None => firewall::socket_path()?,
    };
    match firewall::ask(&socket, &ControlQuestion::Why { flow })? {
        ControlAnswer::Why(explained) => {
            explained.steps.iter().for_each(|step| println!("{step}"));
            // What the firewall itself can't know.
            if let Some(Err(why)) = &explained.verdict
                && *why != Refused::UnknownNode(flow.to.ip())
                && let Some(rules) = InForce::read()
                && let Some(left) = rules.leave_alone(&flow)
            {
                println!("{left}");
                return Ok(());
            }
            match explained.verdict {
                None | Some(Ok(_)) => Ok(()),
                // Nobody connects yet, and who may was said.
                Some(Err(Refused::NoConnector(_))) if flow.from.port() == 0 => Ok(()),
                Some(Err(why)) => bail!("refused ({}): {why}", why.code()),
            }
        }
        ControlAnswer::Refused { reason } => bail!("the firewall does not say: {reason}"),
        ControlAnswer::Status(_) | ControlAnswer::Metrics(_) => bail!("an answer to another question"),
    }
}

/// `NODE:PORT`, `NODE`, `[ADDRESS]:PORT`.
fn end(text: &str) -> anyhow::Result<(NodeName, Option<u16>)> {
    if let Ok(both) = NodePort::parse(text) {
        return Ok((both.node, Some(both.port.get())));
    }
    let wrong = || format!("{text:?} is no NODE:PORT");
    let node = match text.parse::<IpAddr>() {
        Ok(ip) => NodeName::from_ip(ip),
        Err(_) => NodeName::parse(text),
    };
    Ok((node.with_context(wrong)?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_as_people_write_them() {
        for (text, node, port) in [
            ("c1:5000", "c1", Some(5000)),
            ("c1", "c1", None),
            ("c1.cluster.example:1", "c1.cluster.example", Some(1)),
            ("10.0.0.1:5000", "10.0.0.1", Some(5000)),
            ("10.0.0.1", "10.0.0.1", None),
            ("[fd77::1]:5000", "[fd77::1]", Some(5000)),
            ("fd77::1", "[fd77::1]", None),
            ("[fd77::1]", "[fd77::1]", None),
        ] {
            let (found, at) = end(text).unwrap();
            assert_eq!((found.as_str(), at), (node, port), "{text}");
        }
        for text in ["", ":1", "c1:", "c1:70000", "c1:x", "c_!:1"] {
            assert!(end(text).is_err(), "{text}");
        }
    }
}
