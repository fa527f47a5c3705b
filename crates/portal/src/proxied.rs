//! Whom a trusted proxy connects for: the PROXY header, version 2, before TLS. Between: `accept` and `tls`.
//!
//! Invariant: it is read from a peer in `portal.trusted_proxies` only, who must send it; from anybody else its bytes are
//! just no TLS. Nothing behind the header is taken. What the header says is an address elsewhere, so that nobody passes
//! for somebody on this machine by what a header says.

use std::io;
use std::net::{IpAddr, SocketAddr};

use portreeve_model::Tuple;
use proxy_protocol_rs::{AddressFamily, Command, ParseError, TransportProtocol, Version, parse};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits;

/// Signature, version and command, family, and the length of the rest.
const FIXED: usize = 16;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nobody: the proxy connects for itself (`LOCAL`), as to see whether the portal is there.
    Nobody,
    /// A browser: the two ends of its connection to the proxy.
    Browser(Tuple),
}

/// Why there is no good header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("there is no PROXY header of version 2")]
    None,
    #[error(
        "it is a PROXY header of version 1, and only version 2 is taken: tell the proxy to send that one"
    )]
    Version1,
    #[error("the PROXY header has {0} bytes, which is too many")]
    TooLong(usize),
    #[error("the PROXY header is malformed")]
    Malformed(#[source] ParseError),
    #[error("the PROXY header is not about a TCP connection over IPv4 or IPv6")]
    NotTcp,
    #[error("the PROXY header says {0}, which is no address of somebody elsewhere")]
    NotElsewhere(IpAddr),
    #[error("the connection ended in the PROXY header")]
    Io(#[source] io::Error),
    #[error("the PROXY header did not come in time")]
    TimedOut,
}

/// Takes the header off the stream, and not one byte more.
pub(crate) async fn take_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Behind, HeaderError> {
    match tokio::time::timeout(limits::PROXY_HEADER, read_header(stream)).await {
        Ok(read) => read,
        Err(_) => Err(HeaderError::TimedOut),
    }
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Behind, HeaderError> {
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await.map_err(HeaderError::Io)?;
    let length = length(&header)?;
    header.resize(length, 0);
    stream.read_exact(&mut header[FIXED..]).await.map_err(HeaderError::Io)?;
    behind(&header)
}

/// How long the whole header is, by its first bytes: the only thing that is not left to the library, which would have to
/// be asked at each byte whether it has enough.
fn length(fixed: &[u8]) -> Result<usize, HeaderError> {
    if fixed.starts_with(b"PROXY ") {
        return Err(HeaderError::Version1);
    }
    let (true, Some(&[high, low])) = (fixed.starts_with(parse::V2_SIGNATURE), fixed.get(14..FIXED)) else {
        return Err(HeaderError::None);
    };
    match FIXED + usize::from(u16::from_be_bytes([high, low])) {
        length if length > limits::PROXY_HEADER_BYTES => Err(HeaderError::TooLong(length)),
        length => Ok(length),
    }
}

/// What a whole header says. Its checksum, where there is one, must be right; what else it adds to the addresses is passed
/// over.
pub(crate) fn behind(header: &[u8]) -> Result<Behind, HeaderError> {
    if length(header)? != header.len() {
        return Err(HeaderError::None);
    }
    let (info, _) = parse::parse(header).map_err(HeaderError::Malformed)?;
    match (info.version, info.command) {
        (Version::V2, Command::Local) => return Ok(Behind::Nobody),
        (Version::V2, Command::Proxy) => {}
        _ => return Err(HeaderError::None),
    }
    let is_tcp = info.transport.is_some_and(|transport| {
        transport.protocol == TransportProtocol::Stream
            && matches!(transport.family, AddressFamily::Inet | AddressFamily::Inet6)
    });
    match (info.source_inet(), info.destination_inet()) {
        (Some(client), Some(server)) if is_tcp => {
            let said = client.ip().to_canonical();
            let client = SocketAddr::new(said, client.port());
            let server = SocketAddr::new(server.ip().to_canonical(), server.port());
            if is_elsewhere(said) {
                Ok(Behind::Browser(Tuple { client, server }))
            } else {
                Err(HeaderError::NotElsewhere(said))
            }
        }
        _ => Err(HeaderError::NotTcp),
    }
}

/// Whether somebody who connects to another machine can have this address.
fn is_elsewhere(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [parse::V2_SIGNATURE, &[0x20 | command, family][..], &length, rest].concat()
    }

    fn tcp4(source: [u8; 4]) -> Vec<u8> {
        header(1, 0x11, &[&source[..], &[192, 0, 2, 1], &[0xc0, 0, 1, 187]].concat())
    }

    fn tcp6(source: &str) -> Vec<u8> {
        let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        header(1, 0x21, &[&address(source)[..], &address("2001:db8::1"), &[0xc0, 0, 1, 187]].concat())
    }

    fn client(header: &[u8]) -> String {
        match behind(header) {
            Ok(Behind::Browser(tuple)) => tuple.client.to_string(),
            Ok(Behind::Nobody) => "nobody".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn whom_headers_speak_for() {
        let long = header(1, 0x11, &vec![0; limits::PROXY_HEADER_BYTES - FIXED + 1]);
        let mut with_tlvs = vec![198, 51, 100, 7, 192, 0, 2, 1, 0xc0, 0, 1, 187];
        with_tlvs.extend([2, 0, 4, b'h', b'o', b's', b't', 0xee, 0, 0]);
        for (header, expected) in [
            (tcp4([198, 51, 100, 7]), "198.51.100.7:49152"),
            (header(1, 0x11, &with_tlvs), "198.51.100.7:49152"),
            (tcp6("2001:db8::7"), "[2001:db8::7]:49152"),
            (tcp6("::ffff:198.51.100.7"), "198.51.100.7:49152"),
            (header(0, 0x00, &[]), "nobody"),
            (header(0, 0x11, &[0; 12]), "nobody"),
        ] {
            assert_eq!(client(&header), expected, "{header:?}");
        }
        for header in [
            tcp4([127, 0, 0, 1]),
            tcp4([0, 0, 0, 0]),
            tcp4([255, 255, 255, 255]),
            tcp4([224, 0, 0, 1]),
            tcp6("::1"),
            tcp6("::"),
            tcp6("::ffff:127.0.0.1"),
            tcp6("ff02::1"),
            header(1, 0x12, &[1; 12]),
            header(1, 0x31, &[1; 216]),
            header(1, 0x00, &[]),
            header(1, 0x11, &[1; 11]),
            header(2, 0x11, &[1; 12]),
            header(1, 0x11, &[&with_tlvs[..], &[3]].concat()),
            long,
            b"PROXY TCP4 198.51.100.7 192.0.2.1 49152 443\r\n".to_vec(),
            [tcp4([198, 51, 100, 7]), vec![22]].concat(),
            vec![],
        ] {
            assert!(behind(&header).is_err(), "{header:?}: {}", client(&header));
        }
    }

    #[test]
    fn a_checksum_must_be_right() {
        let addresses = [198, 51, 100, 7, 192, 0, 2, 1, 0xc0, 0, 1, 187];
        // CRC-32C of the whole header with four zeros in the checksum's place.
        let with =
            |checksum: [u8; 4]| behind(&header(1, 0x11, &[&addresses[..], &[3, 0, 4], &checksum].concat()));
        assert!(matches!(with([0x17, 0x31, 0xe3, 0x7f]), Ok(Behind::Browser(_))));
        for wrong in [[0; 4], [0x17, 0x31, 0xe3, 0x7e]] {
            assert!(matches!(with(wrong), Err(HeaderError::Malformed(ParseError::CrcMismatch { .. }))));
        }
    }

    #[tokio::test]
    async fn what_comes_behind_the_header_stays() {
        let sent = [tcp4([198, 51, 100, 7]), b"hello".to_vec()].concat();
        let mut stream = &sent[..];
        assert!(matches!(take_header(&mut stream).await, Ok(Behind::Browser(_))));
        assert_eq!(stream, b"hello");
        let mut half = &sent[..20];
        assert!(matches!(take_header(&mut half).await, Err(HeaderError::Io(_))));
    }
}
