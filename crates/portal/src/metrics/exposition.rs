//! All that is counted, in Prometheus's text format. Each name here stands in `docs/admin-guide.md`, and the other way
//! round.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::block::{Block, Count, Durations};
use super::codes::{CODES, OTHER};
use super::labels::{
    Connect, Direction, Entered, HandshakeFailure, Kind, Label, Looked, Pooled, Protocol, Status, Turned, Way,
};
use super::nodes::{self, Agent};
use crate::portal::{Portal, now};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The text.
///
/// # Errors
/// None that could be explained: the text is written to memory.
pub(super) fn text(portal: &Arc<Portal>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(Arc::clone(portal))));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

struct Exposition(Arc<Portal>);

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposition")
    }
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder, blocks: self.0.metrics.blocks() };
        out.process(&self.0)?;
        out.connections(&self.0)?;
        out.requests()?;
        out.applications()?;
        out.people(&self.0)?;
        out.cluster(&self.0)
    }
}

/// Where it is written, and from what.
struct Out<'a> {
    encoder: DescriptorEncoder<'a>,
    blocks: Vec<Arc<Block>>,
}

impl Out<'_> {
    fn process(&mut self, portal: &Portal) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        self.gauges(
            "portreeve_build_info",
            "Always 1; the label says which version this is.",
            [(version, 1_u64)],
        )?;
        let started = portal.metrics.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.gauge(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970.",
            started.as_secs_f64(),
        )?;
        self.gauge(
            "portreeve_ready",
            "Whether it may answer people: 1, or 0.",
            u64::from(portal.is_ready().is_ok()),
        )
    }

    fn connections(&mut self, portal: &Portal) -> fmt::Result {
        let accepted = self.sum(|block| &block.connections_accepted);
        let ended = self.sum(|block| &block.connections_ended);
        self.counter(
            "portreeve_connections_accepted",
            "Browsers' connections that were accepted.",
            accepted,
        )?;
        self.gauge(
            "portreeve_connections_open",
            "Of these, those that are open.",
            accepted.saturating_sub(ended),
        )?;
        let most = portal.metrics.most_connections.load(Relaxed);
        self.gauge("portreeve_connections_limit", "How many may be open at once.", most as u64)?;
        self.each::<Turned>(
            "portreeve_connections_refused",
            "Connections that were ended before TLS.",
            "reason",
            |block, label| block.turned_away.of(label),
        )?;
        let failures = portal.metrics.accept_failures.load(Relaxed);
        self.counter(
            "portreeve_accept_failures",
            "Connections that could not be accepted, most likely for want of descriptors.",
            failures,
        )?;
        self.each::<HandshakeFailure>(
            "portreeve_tls_handshake_failures",
            "Browsers' connections without a TLS handshake.",
            "reason",
            |block, label| block.handshakes_failed.of(label),
        )
    }

    fn requests(&mut self) -> fmt::Result {
        let begun = self.sum(|block| &block.requests_begun);
        let ended = self.sum(|block| &block.requests_ended);
        self.gauge(
            "portreeve_http_requests_in_progress",
            "Requests that have no answer yet.",
            begun.saturating_sub(ended),
        )?;
        self.pairs::<Protocol, Status>(
            "portreeve_http_requests",
            "Requests, once the head of their answer was there.",
            ["version", "status"],
            |block, version, status| block.requests.of(version, status),
        )?;
        self.durations(
            "portreeve_http_request_duration_seconds",
            "From a request's head to the head of its answer.",
            |block| &block.durations,
        )?;
        let codes = CODES.iter().chain([&OTHER]).enumerate();
        let refused: Vec<_> = codes
            .map(|(number, code)| ([("code", *code)], self.sum(|block| &block.refusals[number])))
            .collect();
        self.counters(
            "portreeve_refusals",
            "Requests that were refused, by the code of the refusal.",
            refused,
        )
    }

    fn applications(&mut self) -> fmt::Result {
        self.each::<Pooled>(
            "portreeve_pool_lookups",
            "Looks for a connection to an application that is open already.",
            "result",
            |block, label| block.pooled.of(label),
        )?;
        self.each::<Connect>(
            "portreeve_application_connects",
            "Attempts to connect to an application, one for each address.",
            "result",
            |block, label| block.connects.of(label),
        )?;
        self.each::<Looked>(
            "portreeve_owner_lookups",
            "Look-ups of who owns a connection's far end.",
            "result",
            |block, label| block.lookups.of(label),
        )?;
        self.durations(
            "portreeve_owner_lookup_duration_seconds",
            "How long such a look-up took.",
            |block| &block.lookup_durations,
        )?;
        let begun = self.sum(|block| &block.tunnels_begun);
        let ended = self.sum(|block| &block.tunnels_ended);
        self.counter("portreeve_tunnels", "WebSockets and other tunnels that were begun.", begun)?;
        self.gauge("portreeve_tunnels_open", "Of these, those that are open.", begun.saturating_sub(ended))?;
        self.pairs::<Direction, Kind>(
            "portreeve_carried_bytes",
            "Bytes of bodies and tunnels that were carried between browsers and applications.",
            ["direction", "kind"],
            |block, direction, kind| block.bytes.of(direction, kind),
        )
    }

    fn people(&mut self, portal: &Portal) -> fmt::Result {
        let live = portal.sessions.live(now(), portal.settings.load().idle_seconds()).len();
        self.gauge(
            "portreeve_sessions",
            "Sessions that this portal has seen and that are not over.",
            live as u64,
        )?;
        self.pairs::<Way, Entered>(
            "portreeve_sign_ins",
            "Sign-ins and attempts, by the way in.",
            ["way", "result"],
            |block, way, result| block.sign_ins.of(way, result),
        )
    }

    fn cluster(&mut self, portal: &Portal) -> fmt::Result {
        let rows = nodes::rows(portal);
        let agents: Vec<_> = if portal.agents().is_some() {
            Agent::ALL
                .iter()
                .map(|state| {
                    let count = rows.iter().filter(|row| row.agent == *state).count();
                    ([("state", state.text())], count as u64)
                })
                .collect()
        } else {
            Vec::new()
        };
        self.gauges("portreeve_agents", "Nodes of the map, by how it stands with their agents.", agents)?;
        let age = portal.broker_news_age().map(|age| ([("", ""); 0], age.as_secs_f64()));
        self.gauges("portreeve_broker_news_age_seconds", "Since the broker was heard last.", age)
    }

    fn sum(&self, of: impl Fn(&Block) -> &Count) -> u64 {
        self.blocks.iter().map(|block| of(block).get()).fold(0, u64::wrapping_add)
    }

    /// The format adds `_total` to the name.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [([("", ""); 0], value)])
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name, help, [([("", ""); 0], value)])
    }

    fn gauges<const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'static str); N], V)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A counter for each value of a label.
    fn each<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        of: impl Fn(&Block, L) -> &Count,
    ) -> fmt::Result {
        let values: Vec<_> =
            L::ALL.iter().map(|l| ([(label, l.text())], self.sum(|block| of(block, *l)))).collect();
        self.counters(name, help, values)
    }

    /// A counter for each pair of two labels' values.
    fn pairs<A: Label, B: Label>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; 2],
        of: impl Fn(&Block, A, B) -> &Count,
    ) -> fmt::Result {
        let mut values = Vec::with_capacity(A::ALL.len() * B::ALL.len());
        for a in A::ALL {
            for b in B::ALL {
                let sum = self.sum(|block| of(block, *a, *b));
                values.push(([(labels[0], a.text()), (labels[1], b.text())], sum));
            }
        }
        self.counters(name, help, values)
    }

    fn durations<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&Block) -> &Durations<N>,
    ) -> fmt::Result {
        let (mut counts, mut sum) = (vec![0; N + 1], 0);
        for block in &self.blocks {
            of(block).add_to(&mut counts, &mut sum);
        }
        let bounds = self.blocks.first().map(|block| of(block).bounds());
        let bounds = bounds.into_iter().flatten().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "it is a float in this format; the error is far below a second"
        )]
        let seconds = sum as f64 / 1e9;
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }
}
