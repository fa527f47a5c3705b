//! Metrics, in Prometheus' text format. Invariant: counting on the way of a packet takes no lock and makes no string.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use portreeve_model::firewall::{LetThrough, Refused};
use portreeve_model::wire::firewall::QueueState;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::limits;

/// Upper bounds, in seconds, from 20 us on, each twice the one before: the last is 1.3 s.
const FASTEST: f64 = 20e-6;
const BUCKETS: u16 = 17;

/// Everything that is counted.
pub(super) struct Counts {
    let_through: [Counter; LetThrough::CODES.len()],
    refused: [Counter; Refused::CODES.len()],
    /// Refused in word only: `dry_run`.
    spared: Counter,
    latency: Histogram,
    /// Questions to the kernel about an end.
    pub(super) lookups: Counter,
    /// Searches for processes. Those that take a glance are not counted.
    pub(super) looks: Counter,
    /// Questions to other nodes.
    pub(super) asked: Counter,
    /// Questions of other nodes.
    pub(super) answered: Counter,
    /// Datagrams that a remembered flow let through.
    pub(super) remembered: Counter,
    /// Flows of UDP that were made to be asked about again.
    pub(super) forgotten: Counter,
    registry: Registry,
    started: Instant,
    pulses: Vec<Pulse>,
}

/// What a queue's thread said last.
#[derive(Default)]
struct Pulse {
    number: u16,
    /// Milliseconds since the start.
    at: AtomicU64,
    flows: AtomicU64,
    waiting: AtomicU64,
}

impl Counts {
    pub(super) fn new(queues: &[u16]) -> Self {
        type ByCode = Family<[(&'static str, &'static str); 1], Counter>;
        let (decided, refused) = (ByCode::default(), ByCode::default());
        let of = |family: &ByCode, label, code| family.get_or_create(&[(label, code)]).clone();
        let mut counts = Self {
            let_through: LetThrough::CODES.map(|code| of(&decided, "rule", code)),
            refused: Refused::CODES.map(|code| of(&refused, "reason", code)),
            spared: Counter::default(),
            latency: Histogram::new(exponential_buckets(FASTEST, 2.0, BUCKETS)),
            lookups: Counter::default(),
            looks: Counter::default(),
            asked: Counter::default(),
            answered: Counter::default(),
            remembered: Counter::default(),
            forgotten: Counter::default(),
            registry: Registry::with_prefix("portreeve_firewall"),
            started: Instant::now(),
            pulses: queues.iter().map(|&number| Pulse { number, ..Pulse::default() }).collect(),
        };
        let registry = &mut counts.registry;
        registry.register("let_through", "New connections that were let through, by rule", decided);
        registry.register("refused", "New connections that were refused, by reason", refused);
        registry.register("spared", "Refused in the log only: dry_run", counts.spared.clone());
        registry.register(
            "decision_seconds",
            "From the packet's arrival to its verdict",
            counts.latency.clone(),
        );
        registry.register("lookups", "Questions to the kernel about an end", counts.lookups.clone());
        registry.register("looks", "Searches for processes, for the group rule", counts.looks.clone());
        registry.register("asked", "Questions to other nodes", counts.asked.clone());
        registry.register("answered", "Questions of other nodes", counts.answered.clone());
        registry.register("remembered", "Datagrams of flows let through before", counts.remembered.clone());
        registry.register("forgotten", "UDP flows to be asked about again", counts.forgotten.clone());
        counts
    }

    /// Whether any queue is served: without, the node only answers others.
    pub(super) fn guards(&self) -> bool {
        !self.pulses.is_empty()
    }

    pub(super) fn decided(&self, outcome: &Result<LetThrough, Refused>, spared: bool, took: Duration) {
        let (codes, code, counters) = match outcome {
            Ok(rule) => (&LetThrough::CODES[..], rule.code(), &self.let_through[..]),
            Err(why) => (&Refused::CODES[..], why.code(), &self.refused[..]),
        };
        if let Some(counter) = codes.iter().position(|known| *known == code).and_then(|at| counters.get(at)) {
            counter.inc();
        }
        if spared {
            self.spared.inc();
        }
        self.latency.observe(took.as_secs_f64());
    }

    /// The queue's thread lives: it watches so many flows of UDP, and so many packets wait for an answer or a look.
    pub(super) fn pulse(&self, number: u16, flows: usize, waiting: usize) {
        if let Some(pulse) = self.pulses.iter().find(|pulse| pulse.number == number) {
            pulse.at.store(self.now(), Relaxed);
            pulse.flows.store(flows as u64, Relaxed);
            pulse.waiting.store(waiting as u64, Relaxed);
        }
    }

    /// Whether each queue's thread was heard of in the last seconds.
    pub(super) fn all_live(&self) -> bool {
        let (now, most) = (self.now(), limits::SILENT.as_millis());
        self.pulses.iter().all(|pulse| u128::from(now.saturating_sub(pulse.at.load(Relaxed))) < most)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What was decided, by rule and reason.
    pub(super) fn so_far(&self) -> BTreeMap<String, u64> {
        let rules = LetThrough::CODES.iter().zip(&self.let_through);
        let reasons = Refused::CODES.iter().zip(&self.refused);
        rules.chain(reasons).map(|(code, counter)| ((*code).to_owned(), counter.get())).collect()
    }

    /// The queues, with what the kernel says of them now.
    pub(super) fn queues(&self) -> Vec<QueueState> {
        let kernel = fs::read_to_string("/proc/net/netfilter/nfnetlink_queue").unwrap_or_default();
        let now = self.now();
        let state = |pulse: &Pulse| QueueState {
            silent_ms: now.saturating_sub(pulse.at.load(Relaxed)),
            udp_flows: pulse.flows.load(Relaxed),
            undecided: pulse.waiting.load(Relaxed),
            ..queue(&kernel, pulse.number)
        };
        self.pulses.iter().map(state).collect()
    }

    /// As Prometheus reads it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            return String::new();
        }
        let queues = self.queues();
        let end = text.rfind("# EOF").unwrap_or(text.len());
        let mut more = String::new();
        for (name, kind, help, value) in [
            (
                "waiting",
                "gauge",
                "Packets that wait in the kernel",
                (|q| q.waiting) as fn(&QueueState) -> u64,
            ),
            ("undecided", "gauge", "Packets that wait for an answer or a look", |q| q.undecided),
            ("udp_flows", "gauge", "UDP flows that are watched", |q| q.udp_flows),
            ("lost_full", "counter", "Packets lost because the queue was full", |q| q.dropped_full),
            ("lost_unread", "counter", "Packets lost on the way to the firewall", |q| q.dropped_unread),
            ("packets", "counter", "Packets that came through the queue", |q| q.packets),
            ("silent_milliseconds", "gauge", "Since the queue's thread was heard of", |q| q.silent_ms),
        ] {
            let total = if kind == "counter" { "_total" } else { "" };
            more.push_str(&format!("# HELP portreeve_firewall_{name} {help}.\n"));
            more.push_str(&format!("# TYPE portreeve_firewall_{name} {kind}\n"));
            for queue in &queues {
                let (number, value) = (queue.number, value(queue));
                more.push_str(&format!("portreeve_firewall_{name}{total}{{queue=\"{number}\"}} {value}\n"));
            }
        }
        text.insert_str(end, &more);
        text
    }
}

/// One line of the kernel's table: number, port id, waiting, copy mode, copy range, lost because full, lost unread,
/// packets.
fn queue(kernel: &str, number: u16) -> QueueState {
    let fields = |line: &str| -> Vec<u64> {
        line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect()
    };
    let row = kernel.lines().map(fields).find(|row| row.first() == Some(&number.into()));
    match row.as_deref() {
        Some(&[_, _, waiting, _, _, dropped_full, dropped_unread, packets, ..]) => {
            QueueState { number, waiting, dropped_full, dropped_unread, packets, ..QueueState::default() }
        }
        _ => QueueState { number, ..QueueState::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_by_number() {
        let table = "    0  27018     3 2   548     7     1       99  1\n    2   1     0 2 65531     0     0        0  1\n";
        let expected = QueueState {
            number: 0,
            waiting: 3,
            dropped_full: 7,
            dropped_unread: 1,
            packets: 99,
            ..QueueState::default()
        };
        assert_eq!(queue(table, 0), expected);
        assert_eq!(queue(table, 1), QueueState { number: 1, ..QueueState::default() });
        assert_eq!(queue("garbled", 0), QueueState::default());
    }

    #[test]
    fn what_is_counted_is_told() {
        let counts = Counts::new(&[0, 1]);
        counts.decided(&Ok(LetThrough::Group(7)), false, Duration::from_micros(30));
        counts.decided(&Err(Refused::NoListener), true, Duration::from_millis(1));
        counts.pulse(1, 5, 6);
        let text = counts.text();
        for line in [
            "portreeve_firewall_let_through_total{rule=\"group\"} 1",
            "portreeve_firewall_let_through_total{rule=\"same-user\"} 0",
            "portreeve_firewall_refused_total{reason=\"no-listener\"} 1",
            "portreeve_firewall_spared_total 1",
            "portreeve_firewall_decision_seconds_count 2",
            "portreeve_firewall_lost_full_total{queue=\"0\"} 0",
            "portreeve_firewall_udp_flows{queue=\"1\"} 5",
            "portreeve_firewall_undecided{queue=\"1\"} 6",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.trim_end().ends_with("# EOF"));
        assert_eq!(counts.so_far()["group"], 1);
        assert_eq!(counts.queues().len(), 2);
    }
}
