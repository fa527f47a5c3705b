//! The portal: whether it answers on this machine, by the certificate that is in the file.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portreeve_model::{Port, split_host_port};
use portreeve_portal::client_config;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, StreamOwned};

use super::{Finding, Installation, PATIENCE, in_time};

/// A TCP connection to this machine itself takes no time; one that is dropped by a firewall takes for ever.
const CONNECT: Duration = Duration::from_secs(1);
/// So much of the answer is read, in bytes; it has two.
const ANSWER: u64 = 64 * 1024;
/// Where `https` is, unless the address says otherwise.
const HTTPS: u16 = 443;

/// What was answered.
struct Answered {
    /// `HTTP/1.1 200 OK`
    status: String,
    certificate: Option<CertificateDer<'static>>,
}

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let authority = at.config.portal.url.as_deref().and_then(|url| url.strip_prefix("https://"));
    let Some(authority) = authority.map(str::to_owned) else {
        return vec![Finding::not_checked("portal.url is missing")];
    };
    let remedy = "systemctl status portreeve-portal.socket portreeve-portal says why";
    let asked = authority.clone();
    match in_time(move || ask(&asked)) {
        None => vec![Finding::problem("it takes the connection, and does not answer", remedy)],
        Some(Err(error)) => vec![Finding::problem(format!("{error:#}"), remedy)],
        Some(Ok(answered)) => {
            let mut findings = vec![of_status(&authority, &answered.status)];
            findings.extend(another_certificate(at, answered.certificate.as_ref()));
            findings
        }
    }
}

fn of_status(authority: &str, status: &str) -> Finding {
    let code = status.split(' ').nth(1).unwrap_or_default();
    match code {
        "200" => Finding::fine(format!("it answers as {authority}")),
        // Misdirected Request, RFC 9110 section 15.5.20.
        "421" => {
            let what = format!("it is not {authority}");
            Finding::problem(what, "systemctl restart portreeve-portal, so that it knows its address")
        }
        _ => Finding::problem(
            format!("it answers {status:?} when asked whether it is well"),
            "journalctl -u portreeve-portal says why",
        ),
    }
}

/// The one that it shows is not the one in the file.
fn another_certificate(at: &Installation, shown: Option<&CertificateDer<'static>>) -> Option<Finding> {
    let (file, _) = at.tls_files();
    // What can't be read was told by another check.
    let text = std::fs::read(&file).ok()?;
    let own = CertificateDer::pem_slice_iter(&text).next()?.ok()?;
    (Some(&own) != shown).then(|| {
        let what = format!("it shows another certificate than the one in {}", file.display());
        Finding::problem(what, "systemctl reload portreeve-portal")
    })
}

fn ask(authority: &str) -> anyhow::Result<Answered> {
    let (host, port) = split_host_port(authority).context("this is no address")?;
    let port = port.map_or(HTTPS, Port::get);
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    // Its certificate is another check's.
    let tls = ClientConnection::new(Arc::new(client_config(None)?), ServerName::try_from(bare)?)?;
    let tcp = connect(port)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(tls, tcp);
    let request = format!("GET /-/health HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("TLS with it fails")?;
    let mut answer = Vec::new();
    let read = (&mut stream).take(ANSWER).read_to_end(&mut answer);
    if answer.is_empty() {
        read.context("it does not answer")?;
        bail!("it hangs up without an answer");
    }
    let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    let certificate = stream.conn.peer_certificates().and_then(|chain| chain.first()).cloned();
    Ok(Answered { status, certificate: certificate.map(CertificateDer::into_owned) })
}

/// To whoever has this port on one of this machine's addresses.
fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    addresses.extend(portreeve_sys::local_addresses().unwrap_or_default());
    let mut tries = addresses.into_iter().filter(portreeve_sys::leads_somewhere);
    let connected = tries.find_map(|ip| TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT).ok());
    connected.with_context(|| format!("nobody listens on port {port} of this machine"))
}
