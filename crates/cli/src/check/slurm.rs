//! Slurm: whether it answers, and knows the same nodes as the node map.

use std::io::{self, Read};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use portreeve_model::nodes::{SlurmNode, slurm_nodes};
use portreeve_model::{Node, NodeMap};

use super::{Finding, Installation, PATIENCE};

/// What is read of a program's output at most, in bytes: a hundred thousand nodes.
const MOST: u64 = 256 * 1024 * 1024;
/// The remedy that `nodes sync` is.
const SYNC: &str = "scontrol show node -o | portreeve nodes sync, then systemctl reload portreeve-portal";

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let answer = match run(Command::new("scontrol").args(["show", "node", "-o"])) {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::not_checked("there is no Slurm here: no program scontrol")];
        }
        Err(error) => {
            let remedy = "scontrol ping and sinfo say more";
            return vec![Finding::problem(format!("scontrol show node: {error}"), remedy)];
        }
    };
    let (nodes, wrong) = slurm_nodes(&answer);
    let mut findings = vec![Finding::fine(format!("it answers, and has {} node(s)", nodes.len()))];
    if let Some(wrong) = wrong.first() {
        let remedy = "write these nodes into the node map by hand";
        findings.push(Finding::warning(format!("its table is not understood in {wrong}"), remedy));
    }
    match &at.map {
        Some(map) => {
            let own = portreeve_sys::local_addresses().unwrap_or_default();
            findings.extend(compare(map, &nodes, &own));
        }
        None => findings.push(Finding::not_checked("the node map has problems")),
    }
    findings
}

/// `own` are this machine's addresses.
fn compare(map: &NodeMap, slurm: &[SlurmNode], own: &[IpAddr]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = slurm.iter().filter_map(|node| of_slurms(map, node)).collect();
    let is_slurms = |node: &Node| {
        slurm.iter().any(|other| map.find(&other.name).is_some_and(|known| known.name == node.name))
    };
    // At login nodes people sign in, and the portal's own is often none of Slurm's either.
    let is_expected =
        |node: &Node| node.is_login || node.addresses.iter().any(|address| own.contains(address));
    for node in map.nodes().iter().filter(|node| !is_expected(node) && !is_slurms(node)) {
        let what = format!("{} is in the node map, and Slurm does not have it", node.name);
        findings.push(Finding::warning(what, "remove it if it is gone"));
    }
    findings
}

fn of_slurms(map: &NodeMap, node: &SlurmNode) -> Option<Finding> {
    let Some(known) = map.find(&node.name) else {
        let what = format!("Slurm has {}, and the node map does not: nobody can reach it", node.name);
        return Some(Finding::problem(what, SYNC));
    };
    // By a name: which address that is only a resolver could say.
    let address = node.address.parse().ok()?;
    (!known.addresses.contains(&address)).then(|| {
        let what = format!("Slurm says that {} is at {address}, and the node map does not", node.name);
        Finding::problem(what, SYNC)
    })
}

/// What a program says; its own words when it fails. It is killed when it takes too long.
fn run(command: &mut Command) -> io::Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let said = out.recv_timeout(PATIENCE).ok().zip(err.recv_timeout(PATIENCE).ok());
    if said.is_none() {
        child.kill()?;
    }
    let status = child.wait()?;
    match said {
        None => Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long")),
        Some((out, _)) if status.success() => Ok(out),
        Some((_, err)) => Err(io::Error::other(match err.lines().next() {
            Some(line) => line.to_owned(),
            None => status.to_string(),
        })),
    }
}

/// All that comes out, once its end is closed.
fn collect(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if from.is_some_and(|from| from.take(MOST).read_to_end(&mut bytes).is_ok()) {
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_must_agree() {
        let map = "[[node]]\nname = 'c1'\naddresses = ['10.0.0.11', '10.1.0.11']\n[[node]]\nname = 'c2'\naddresses = ['10.0.0.12']\n\
                   [[node]]\nname = 'login1'\nroles = ['login']\n[[node]]\nname = 'gone'\n[[node]]\nname = 'portal'\naddresses = ['10.0.0.1']\n[[node]]\nname = 'c4'\n";
        let map = NodeMap::parse(map, "-").unwrap();
        let own = ["10.0.0.1".parse().unwrap()];
        let table = "NodeName=c1 NodeAddr=10.1.0.11\nNodeName=C2 NodeAddr=10.0.0.13\nNodeName=c3 NodeAddr=10.0.0.14\nNodeName=c4 \
                     NodeAddr=c4\n";
        let said: Vec<String> =
            compare(&map, &slurm_nodes(table).0, &own).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                format!("problem: Slurm says that c2 is at 10.0.0.13, and the node map does not; {SYNC}"),
                format!("problem: Slurm has c3, and the node map does not: nobody can reach it; {SYNC}"),
                "warning: gone is in the node map, and Slurm does not have it; remove it if it is gone"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn a_program_says_something_or_why_not() {
        let sh = |script: &str| run(Command::new("sh").args(["-c", script]));
        assert_eq!(sh("echo one; echo two >&2").unwrap(), "one\n");
        assert_eq!(sh("echo out; echo why >&2; exit 1").unwrap_err().to_string(), "why");
        assert_eq!(sh("exit 3").unwrap_err().to_string(), "exit status: 3");
        let missing = run(&mut Command::new("/nonexistent/scontrol")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
