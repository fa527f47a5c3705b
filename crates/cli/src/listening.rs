//! `portreeve listening`: what of yours listens where, and by which address it is opened. On this machine the kernel is
//! asked; about a cluster's other nodes the portal, which asks their agents.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use nix::unistd::Uid;
use portreeve_model::{ControlReply, ControlRequest};
use serde::{Deserialize, Serialize};

use crate::arguments::Login;
use crate::config::cluster_url;
use crate::login::{Place, address};
use crate::portal_client::PortalClient;
use crate::table;

/// `portreeve listening`
#[derive(Debug, Args)]
pub(crate) struct Listening {
    /// On all nodes of the cluster; asks its portal, signed in for that moment
    #[arg(long)]
    all_nodes: bool,
    /// With --all-nodes: certificates of the authorities to trust instead of the system's, PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    login: Login,
}

/// What one node says. So does the portal's answer to `/-/listening`, which is a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    node: String,
    #[serde(default)]
    rows: Vec<Row>,
    /// There are more.
    #[serde(default)]
    more: bool,
    /// Why nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Something that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    address: IpAddr,
    port: u16,
    /// The program's name for itself.
    #[serde(default)]
    command: Option<String>,
    /// The Slurm job.
    #[serde(default)]
    job: Option<u32>,
    /// By which address it is opened; `None`: by none.
    #[serde(default)]
    open: Option<String>,
}

/// How this machine is reached by a portal.
enum Reached {
    /// The portal runs here and is one's own.
    Own { url: String },
    /// As this node of a cluster. The portal's address is not known on every node.
    Node { name: String, url: Option<String> },
    /// There is none.
    Not,
}

pub(crate) fn listening(listening: &Listening) -> anyhow::Result<()> {
    let nodes = if listening.all_nodes {
        let place = Place::of(&listening.login)?;
        let Place::Cluster(_) = place else {
            bail!(
                "your own portal knows this machine only: leave --all-nodes out, or name the cluster's --socket"
            );
        };
        let client = PortalClient::to(&address(&place)?, listening.cacert.as_deref())?;
        let answer = client.json("/-/listening")?;
        serde_json::from_str(&answer)
            .context("the portal's answer is not understood: is it of another version?")?
    } else {
        if listening.cacert.is_some() {
            bail!("--cacert goes with --all-nodes: nobody is asked otherwise");
        }
        vec![this_machine(&listening.login)?]
    };
    if listening.json { table::json(&nodes) } else { show(&nodes) }
}

fn show(nodes: &[Node]) -> anyhow::Result<()> {
    let rows: Vec<[String; 5]> = nodes
        .iter()
        .flat_map(|node| node.rows.iter().map(move |row| (node, row)))
        .map(|(node, row)| {
            let at = std::net::SocketAddr::from((row.address, row.port)).to_string();
            let open = row.open.clone().unwrap_or_else(|| why_not(row.address).to_owned());
            let job = row.job.map(|job| job.to_string()).unwrap_or_default();
            [node.node.clone(), at, row.command.clone().unwrap_or_default(), job, open]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("nothing of yours listens on a port from 1024 up");
    } else {
        table::print(["NODE", "LISTENS ON", "PROGRAM", "JOB", "OPEN"], &rows)?;
    }
    for node in nodes {
        let name = &node.node;
        if let Some(problem) = &node.problem {
            let problem: String = problem.chars().filter(|c| !c.is_control()).collect();
            eprintln!("{name}: not known: {problem}");
        }
        if node.more {
            eprintln!("{name}: there are more");
        }
    }
    Ok(())
}

/// Why something has no address to open.
fn why_not(address: IpAddr) -> &'static str {
    if address.to_canonical().is_loopback() { "on the loopback alone: not from elsewhere" } else { "" }
}

fn this_machine(login: &Login) -> anyhow::Result<Node> {
    let name = portreeve_sys::host_name().context("this machine has no name")?;
    let name = name.split('.').next().unwrap_or_default().to_owned();
    let reached = reached(login, &name);
    let found = portreeve_agent::listening(Uid::effective().as_raw()).context("the kernel can't be asked")?;
    let own_port = match &reached {
        Reached::Own { url } => {
            url.trim_end_matches('/').rsplit_once(':').and_then(|(_, port)| port.parse().ok())
        }
        Reached::Node { .. } | Reached::Not => None,
    };
    let rows: BTreeSet<(u16, IpAddr, Option<String>)> = found
        .into_iter()
        // The portal itself.
        .filter(|row| Some(row.port) != own_port)
        .map(|row| (row.port, row.address, row.command))
        .collect();
    let rows = rows
        .into_iter()
        .map(|(port, address, command)| Row {
            address,
            port,
            command,
            job: None,
            open: open(&reached, address, port),
        })
        .collect();
    Ok(Node { node: name, rows, more: false, problem: None })
}

fn reached(login: &Login, name: &str) -> Reached {
    let node = |url| Reached::Node { name: name.to_owned(), url };
    let place = match (Place::of(login), cluster_url()) {
        (Ok(place), _) => place,
        // A compute node: nobody there has to sign in.
        (Err(_), Some(url)) => return node(Some(url)),
        (Err(error), None) => {
            eprintln!("nothing can be opened: {error:#}");
            return Reached::Not;
        }
    };
    match (&place, place.ask(&ControlRequest::Where)) {
        (Place::Own(_), Ok(ControlReply::Portal { url, .. })) => Reached::Own { url },
        (Place::Cluster(_), Ok(ControlReply::Portal { url, .. })) => node(Some(url)),
        // A login node's agent does not say where the portal is.
        (Place::Cluster(_), _) => node(cluster_url()),
        (Place::Own(_), _) => Reached::Not,
    }
}

/// The address by which a portal opens what listens there.
fn open(reached: &Reached, address: IpAddr, port: u16) -> Option<String> {
    let address = address.to_canonical();
    let is_first_loopback =
        address == IpAddr::from([127, 0, 0, 1]) || address == IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
    let literal = match address {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => format!("[{six}]"),
    };
    match reached {
        Reached::Own { url } => {
            let node =
                if address.is_unspecified() || is_first_loopback { "localhost" } else { literal.as_str() };
            Some(format!("{url}fw2/{node}:{port}/"))
        }
        Reached::Not => None,
        Reached::Node { .. } if address.is_loopback() => None,
        Reached::Node { name, url } => {
            let node = if address.is_unspecified() { name.as_str() } else { literal.as_str() };
            Some(format!("{}fw2/{node}:{port}/", url.as_deref().unwrap_or("/")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_open() {
        let own = Reached::Own { url: "https://localhost:8443/".to_owned() };
        let node = |url: Option<&str>| Reached::Node { name: "c1".to_owned(), url: url.map(str::to_owned) };
        let portal = node(Some("https://portal/"));
        for (reached, address, opened) in [
            (&own, "0.0.0.0", Some("https://localhost:8443/fw2/localhost:8888/")),
            (&own, "127.0.0.1", Some("https://localhost:8443/fw2/localhost:8888/")),
            (&own, "::1", Some("https://localhost:8443/fw2/localhost:8888/")),
            (&own, "127.0.0.2", Some("https://localhost:8443/fw2/127.0.0.2:8888/")),
            (&own, "fd00::1", Some("https://localhost:8443/fw2/[fd00::1]:8888/")),
            (&portal, "0.0.0.0", Some("https://portal/fw2/c1:8888/")),
            (&portal, "::", Some("https://portal/fw2/c1:8888/")),
            (&portal, "10.0.0.11", Some("https://portal/fw2/10.0.0.11:8888/")),
            (&portal, "127.0.0.1", None),
            (&portal, "::1", None),
            (&portal, "::ffff:127.0.0.1", None),
            (&node(None), "0.0.0.0", Some("/fw2/c1:8888/")),
            (&Reached::Not, "0.0.0.0", None),
        ] {
            assert_eq!(open(reached, address.parse().unwrap(), 8888).as_deref(), opened, "{address}");
        }
    }

    #[test]
    fn the_portals_answer() {
        let text = r#"[{"node":"c1","rows":[{"address":"10.0.0.11","port":12001,"command":"jupyter-lab","job":17,
            "open":"https://p/fw2/c1:12001/"}],"more":false},{"node":"c2","problem":"its agent is not connected"},
            {"node":"c3","rows":[{"address":"::","port":1024,"command":null,"job":null}],"more":true,"younger":1}]"#;
        let nodes: Vec<Node> = serde_json::from_str(text).unwrap();
        assert_eq!((nodes[0].rows[0].job, nodes[0].rows[0].port), (Some(17), 12001));
        assert_eq!(nodes[1].problem.as_deref(), Some("its agent is not connected"));
        assert!(nodes[2].more && nodes[2].rows[0].open.is_none());
    }
}
