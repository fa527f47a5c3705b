//! PROXY headers, by which a load balancer says whose connection it is.

use std::net::{IpAddr, SocketAddr};

use portreeve_portal::fuzz::proxied;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header that is taken says just what its bytes say, and nothing about this machine.
pub fn proxy_header(data: &[u8]) {
    let Some(said) = proxied(data) else { return };
    assert_eq!(&data[..12], SIGNATURE, "taken without a signature");
    assert_eq!(16 + usize::from(u16::from_be_bytes([data[14], data[15]])), data.len(), "of another length");
    assert!(data.len() <= 4096, "taken though it is too long");
    let Some((client, server)) = said else {
        assert_eq!(data[12], 0x20, "only LOCAL speaks for nobody");
        return;
    };
    assert_eq!(data[12], 0x21, "only PROXY speaks for somebody");
    let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("four bytes or sixteen")),
    };
    let width = match data[13] {
        0x11 => 4,
        0x21 => 16,
        other => panic!("taken though it is not about TCP: {other:#x}"),
    };
    let (addresses, ports) = data[16..].split_at(2 * width);
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let said = |at: usize, port| SocketAddr::new(address(&addresses[at..at + width]).to_canonical(), port);
    assert_eq!((client, server), (said(0, port(0)), said(width, port(2))), "something else than it says");
    let ip = client.ip();
    assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast(), "{ip} is nobody elsewhere");
}
