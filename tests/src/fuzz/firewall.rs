//! The firewall: packets of anybody's, datagrams of the kernel's, and what other nodes and users of the node ask.

use super::channels::comes_back;
use portreeve_agent::fuzz::packet;
use portreeve_model::firewall_config;
use portreeve_model::wire::firewall::{Answer, Ask, ControlAnswer, ControlQuestion};
use portreeve_sys::connections::each_udp_flow;
use portreeve_sys::nfqueue::each_packet;

/// The longest error that is sent.
const ERROR: usize = 576;

/// A packet, alone and as the kernel hands it over.
pub fn firewall_packets(data: &[u8]) {
    if let Some((flow, errors)) = packet(data) {
        assert_eq!(flow.from.is_ipv4(), flow.to.is_ipv4());
        for error in errors {
            assert!(error.len() <= ERROR);
            // It is no packet that would be answered by another error.
            assert_eq!(packet(&error), None);
        }
    }
    each_packet(data, 0, &mut |found| {
        assert!(found.bytes.len() < data.len());
    });
    let mut flows = Vec::new();
    let _ = each_udp_flow(data, 0, &mut flows);
    assert!(flows.iter().all(|(from, to)| from.is_ipv4() == to.is_ipv4()));
}

/// Messages between firewalls, on the control socket, and the configuration.
pub fn firewall_messages(data: &[u8]) {
    comes_back::<Ask>(data);
    comes_back::<Answer>(data);
    comes_back::<ControlQuestion>(data);
    comes_back::<ControlAnswer>(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(problems) = firewall_config::parse(text, "-")
    {
        assert!(!problems.is_empty());
    }
}
