//! The firewall of this node: whether it answers, and whether its queues are served.

use portreeve_agent::firewall::{ask, socket_path};
use portreeve_agent::rules::InForce;
use portreeve_model::wire::firewall::{ControlAnswer, ControlQuestion, QueueState, Status};

use super::Finding;

/// A queue's thread says every second that it lives.
const STUCK_MS: u64 = 5_000;

/// As systemd enables it.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/portreeve-firewall.service";

/// Whether this node is meant to have one: its configuration comes with the package, and says nothing. One that is stopped
/// and not enabled is missed where its rules are: only root can see those.
pub(super) fn is_here() -> bool {
    std::fs::symlink_metadata(ENABLED).is_ok()
        || socket_path().is_ok_and(|path| path.exists())
        || rules_ask() == Some(true)
}

/// Whether the packet filter hands anything over; `None`: it is not known.
fn rules_ask() -> Option<bool> {
    InForce::read()?.ask_at_all()
}

pub(super) fn check() -> Vec<Finding> {
    let path = match socket_path() {
        Ok(path) => path,
        Err(error) => {
            return vec![Finding::problem(format!("{error:#}"), "portreeve-agent firewall --check")];
        }
    };
    match ask(&path, &ControlQuestion::Status) {
        Ok(ControlAnswer::Status(status)) => {
            let unserved = InForce::read().and_then(|rules| rules.unserved().ok()).unwrap_or_default();
            findings(&status, &unserved)
        }
        Ok(_) => {
            vec![Finding::problem("it answers another question", "install agent and client of one version")]
        }
        Err(error) => vec![unanswered(&error, rules_ask())],
    }
}

fn unanswered(error: &anyhow::Error, rules_ask: Option<bool>) -> Finding {
    let (so, remedy) = match rules_ask {
        Some(true) => (
            "its rules are in force, so nobody gets in",
            "systemctl start portreeve-firewall, or portreeve-agent rules remove",
        ),
        Some(false) => ("it has no rules here, so nobody is kept out", "systemctl start portreeve-firewall"),
        None => (
            "where its rules are in force, nobody gets in",
            "systemctl start portreeve-firewall, or portreeve-agent rules remove",
        ),
    };
    Finding::problem(format!("{error:#}: {so}"), remedy)
}

/// `unserved`: queues of the rules in force that nobody serves, as far as that is known.
fn findings(status: &Status, unserved: &[u16]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !unserved.is_empty() {
        let numbers: Vec<String> = unserved.iter().map(u16::to_string).collect();
        findings.push(Finding::problem(
            format!(
                "rules put new connections into queue {}, which nobody serves: they are lost",
                numbers.join(", ")
            ),
            "portreeve-agent rules install, which takes the queues of firewall.toml, or rules remove",
        ));
    }
    if status.dry_run {
        findings.push(Finding::warning(
            "it refuses nothing (dry_run)",
            "set dry_run to false once its log shows nothing that must work",
        ));
    }
    if status.queues.is_empty() {
        findings.push(Finding::fine(format!("{} answers other nodes' questions only", status.node)));
    }
    findings.extend(status.queues.iter().map(of_queue));
    findings
}

fn of_queue(queue: &QueueState) -> Finding {
    let number = queue.number;
    if queue.silent_ms >= STUCK_MS {
        return Finding::problem(
            format!("queue {number} is stuck: its thread was heard of {} s ago", queue.silent_ms / 1000),
            "systemctl restart portreeve-firewall",
        );
    }
    if queue.dropped_full + queue.dropped_unread > 0 {
        return Finding::warning(
            format!(
                "queue {number} lost {} packets because it was full, and {} on the way; {} wait now",
                queue.dropped_full, queue.dropped_unread, queue.waiting
            ),
            "more queues in firewall.toml and in the rules, if it goes on",
        );
    }
    Finding::fine(format!(
        "queue {number}: {} packets, {} wait, {} are being decided, {} flows of UDP",
        queue.packets, queue.waiting, queue.undecided, queue.udp_flows
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_firewall_that_does_not_run_it_is_said_what_its_rules_do() {
        let told = |rules| unanswered(&anyhow::anyhow!("no answer"), rules).to_string();
        assert!(
            told(Some(true)).starts_with("problem: no answer: its rules are in force, so nobody gets in;")
        );
        assert!(told(Some(true)).contains("portreeve-agent rules remove"));
        assert!(told(Some(false)).contains("nobody is kept out"), "{}", told(Some(false)));
        assert!(told(None).contains("where its rules are in force"), "{}", told(None));
    }

    #[test]
    fn a_stuck_and_a_full_queue_are_seen() {
        let told = |queue: QueueState| of_queue(&queue).to_string();
        let fine = QueueState { number: 3, packets: 9, ..QueueState::default() };
        assert!(told(fine.clone()).starts_with("ok: queue 3: 9 packets"));
        let stuck = QueueState { silent_ms: 61_000, ..fine.clone() };
        assert!(told(stuck).starts_with("problem: queue 3 is stuck: its thread was heard of 61 s ago"));
        let full = QueueState { dropped_full: 7, ..fine };
        assert!(told(full).starts_with("warning: queue 3 lost 7 packets"));
        let dry = Status { dry_run: true, node: "c1".to_owned(), ..Status::default() };
        let all: Vec<String> = findings(&dry, &[]).iter().map(Finding::to_string).collect();
        assert_eq!(all.len(), 2, "{all:?}");
        let unserved = findings(&Status::default(), &[0, 5]);
        let told = unserved[0].to_string();
        assert!(
            told.starts_with("problem: rules put new connections into queue 0, 5, which nobody"),
            "{told}"
        );
    }
}
