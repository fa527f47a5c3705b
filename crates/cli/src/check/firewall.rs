//! The firewall of this node: whether it answers, and whether its queues are served.

use portreeve_agent::firewall::{ask, socket_path};
use portreeve_model::wire::firewall::{ControlAnswer, ControlQuestion, QueueState, Status};

use super::Finding;

/// A queue's thread says every second that it lives.
const STUCK_MS: u64 = 5_000;

/// As systemd enables it.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/portreeve-firewall.service";

/// Whether this node is meant to have one: its configuration comes with the package, and says nothing.
pub(super) fn is_here() -> bool {
    std::fs::symlink_metadata(ENABLED).is_ok() || socket_path().is_ok_and(|path| path.exists())
}

pub(super) fn check() -> Vec<Finding> {
    let path = match socket_path() {
        Ok(path) => path,
        Err(error) => {
            return vec![Finding::problem(format!("{error:#}"), "portreeve-agent firewall --check")];
        }
    };
    match ask(&path, &ControlQuestion::Status) {
        Ok(ControlAnswer::Status(status)) => findings(&status),
        Ok(_) => {
            vec![Finding::problem("it answers another question", "install agent and client of one version")]
        }
        Err(error) => vec![Finding::problem(
            format!("{error:#}: where its rules are in force, nobody gets in"),
            "systemctl start portreeve-firewall, or portreeve-agent rules remove",
        )],
    }
}

fn findings(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
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
    fn a_stuck_and_a_full_queue_are_seen() {
        let told = |queue: QueueState| of_queue(&queue).to_string();
        let fine = QueueState { number: 3, packets: 9, ..QueueState::default() };
        assert!(told(fine.clone()).starts_with("ok: queue 3: 9 packets"));
        let stuck = QueueState { silent_ms: 61_000, ..fine.clone() };
        assert!(told(stuck).starts_with("problem: queue 3 is stuck: its thread was heard of 61 s ago"));
        let full = QueueState { dropped_full: 7, ..fine };
        assert!(told(full).starts_with("warning: queue 3 lost 7 packets"));
        let dry = Status { dry_run: true, node: "c1".to_owned(), ..Status::default() };
        let all: Vec<String> = findings(&dry).iter().map(Finding::to_string).collect();
        assert_eq!(all.len(), 2, "{all:?}");
    }
}
