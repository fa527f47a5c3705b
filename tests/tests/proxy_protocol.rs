//! Behind a load balancer: who may say in a PROXY header whose connection it is, and what comes of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use http::Version;
use nix::sys::signal::Signal;
use portreeve_portal::limits::PROXY_HEADER;
use portreeve_tests::world::{
    Answer, App, Client, Link, PATIENCE, Portal, PortalOptions, enter, people, skip, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The balancer's address; whoever connects from 127.0.0.1 is somebody else.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const TRUSTED: &str = "[portal]\ntrusted_proxies = [\"127.0.0.9\"]\naccess_log = true\n";

const LOCAL: u8 = 0x20;
const PROXIED: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// A browser at this address, with so many bytes more beside the addresses.
fn from_with(source: &str, more: &[u8]) -> Vec<u8> {
    let ports = [0xc0, 0, 1, 187];
    match source.parse().unwrap() {
        IpAddr::V4(source) => {
            header(PROXIED, TCP4, &[&source.octets()[..], &[192, 0, 2, 1], &ports, more].concat())
        }
        IpAddr::V6(source) => {
            let here: Ipv6Addr = "2001:db8::1".parse().unwrap();
            header(PROXIED, TCP6, &[&source.octets()[..], &here.octets(), &ports, more].concat())
        }
    }
}

fn from(source: &str) -> Vec<u8> {
    from_with(source, &[])
}

/// One more field, which nobody reads, of so many bytes in all.
fn field_of(bytes: usize) -> Vec<u8> {
    let length = u16::try_from(bytes - 3).unwrap().to_be_bytes();
    [&[0xee][..], &length, &vec![0; bytes - 3]].concat()
}

async fn begun(portal: &Portal, proxy: Ipv4Addr, first: &[u8]) -> TcpStream {
    let mut stream = portal.tcp_from(proxy).await;
    stream.write_all(first).await.unwrap();
    stream
}

/// A browser behind the balancer that begins with these bytes; `None`: it was not let in.
async fn through(portal: &Portal, first: &[u8]) -> Option<Link> {
    let stream = begun(portal, PROXY, first).await;
    let tls = portal.tls_over(stream, &[b"http/1.1"]).await.ok()?;
    Some(Link::over(tls, Version::HTTP_11).await.unwrap())
}

async fn get(client: &Client, link: &mut Link, path: &str) -> Answer {
    client.ask_on(link, client.prepare("GET", path)).await.unwrap()
}

/// Whom an application is told that the visitor is.
fn forwarded_for(answer: &Answer) -> String {
    let headers = answer.json()["headers"].clone();
    let all: Vec<(String, String)> = serde_json::from_value(headers).unwrap();
    let of_it: Vec<_> = all.into_iter().filter(|(name, _)| name == "x-forwarded-for").collect();
    assert_eq!(of_it.len(), 1);
    of_it[0].1.clone()
}

/// Waits for the connection's end; true when that came without a byte.
async fn ends_without_a_word(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // It may be reset, since there is something unread.
    let _ = read.expect("it ends");
    rest.is_empty()
}

#[tokio::test]
async fn who_a_trusted_proxy_speaks_for_is_who_it_is() {
    let portal = Portal::start(PortalOptions {
        config: Some(TRUSTED.into()),
        metrics: Some("metrics.sock".into()),
        ..PortalOptions::default()
    });
    let app = App::echo().await;
    for (first, expected) in [
        (from("198.51.100.7"), "198.51.100.7"),
        (from("2001:db8::7"), "2001:db8::7"),
        (from("::ffff:198.51.100.8"), "198.51.100.8"),
        (from_with("198.51.100.9", &field_of(100)), "198.51.100.9"),
        // As long as it may be.
        (from_with("198.51.100.10", &field_of(4096 - 16 - 12)), "198.51.100.10"),
        // For itself: to see whether the portal is there.
        (header(LOCAL, 0, &[]), "127.0.0.9"),
        (header(LOCAL, TCP4, &[198, 51, 100, 7, 192, 0, 2, 1, 0xc0, 0, 1, 187]), "127.0.0.9"),
    ] {
        let mut link = through(&portal, &first).await.unwrap_or_else(|| panic!("{expected}: {first:?}"));
        let mut client = portal.stranger();
        let entered = get(&client, &mut link, &enter(&portal.code())).await;
        entered.assert_status(303);
        client.take_cookies(&entered);
        let answer = get(&client, &mut link, &app.path("/")).await;
        assert_eq!(forwarded_for(&answer), expected);
        // What a browser says about itself is still taken out.
        let lying = client.clone().with("x-forwarded-for", "127.0.0.1");
        assert_eq!(forwarded_for(&get(&lying, &mut link, &app.path("/")).await), expected);
        let shown: IpAddr = expected.parse().unwrap();
        let shown = SocketAddr::new(shown, 49152).to_string();
        let shown = shown.trim_end_matches("49152");
        portal.logged(&[" audit: ", "event=\"sign-in\"", &format!(" from={shown}")]).await;
        portal.logged(&[" access: ", &format!(" peer={shown}")]).await;
    }
    let refused = portal.scrape().await.get("portreeve_connections_refused_total{reason=\"proxy-header\"}");
    assert!(refused < 0.5, "{refused}");
}

#[tokio::test]
async fn a_trusted_proxy_without_a_good_header_is_not_answered() {
    let portal = Portal::watched(TRUSTED);
    let mut wrong_checksum = vec![198, 51, 100, 7, 192, 0, 2, 1, 0xc0, 0, 1, 187];
    wrong_checksum.extend([3, 0, 4, 1, 2, 3, 4]);
    let cases = [
        ("version 1", b"PROXY TCP4 198.51.100.7 192.0.2.1 49152 443\r\n".to_vec(), "only version 2 is taken"),
        ("version 1, unknown", b"PROXY UNKNOWN\r\n".to_vec(), "only version 2 is taken"),
        ("plain HTTP", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(), "there is no PROXY header"),
        ("garbage", vec![0xa5; 64], "there is no PROXY header"),
        ("version 3", header(0x31, TCP4, &[1; 12]), "malformed"),
        ("no such command", header(0x22, TCP4, &[1; 12]), "malformed"),
        ("no such family", header(PROXIED, 0x41, &[1; 12]), "malformed"),
        ("no family", header(PROXIED, 0x00, &[]), "malformed"),
        ("too short for its family", header(PROXIED, TCP4, &[1; 11]), "malformed"),
        ("a broken field", from_with("198.51.100.7", &[0xee, 0, 9, 1]), "malformed"),
        ("a wrong checksum", header(PROXIED, TCP4, &wrong_checksum), "malformed"),
        ("UDP", header(PROXIED, 0x12, &[1; 12]), "not about a TCP connection"),
        ("a unix socket", header(PROXIED, 0x31, &[1; 216]), "not about a TCP connection"),
        ("a byte too long", from_with("198.51.100.7", &field_of(4096 - 16 - 12 + 1)), "4097 bytes"),
        ("as long as can be", header(PROXIED, TCP4, &vec![0; usize::from(u16::MAX)]), "65551 bytes"),
    ];
    // Behind a version 1 that is shorter than a header of version 2, the browser's own words follow.
    let with_tls = |first: &[u8]| [first, &[22, 3, 1, 0, 5]].concat();
    for (what, first, _) in &cases {
        let mut stream = portal.tcp_from(PROXY).await;
        // The portal may not wait for the rest.
        let _ = stream.write_all(&with_tls(first)).await;
        assert!(ends_without_a_word(&mut stream).await, "{what}");
    }
    let refused = "portreeve_connections_refused_total{reason=\"proxy-header\"}";
    let count = portal.scrape().await.get(refused);
    assert!((count - cases.len() as f64).abs() < 0.5, "{count}");
    // Each is told why, though not more often than once a second.
    for (what, first, clause) in &cases {
        if portal.stderr().contains(clause) {
            continue;
        }
        until(&format!("{what} is logged as {clause:?}"), PATIENCE, || async {
            let mut stream = portal.tcp_from(PROXY).await;
            let _ = stream.write_all(&with_tls(first)).await;
            assert!(ends_without_a_word(&mut stream).await, "{what}");
            portal.stderr().contains(clause).then_some(())
        })
        .await;
    }
    portal.logged(&["a trusted proxy's connection was ended", "proxy=127.0.0.9:"]).await;
    let records = portal.stderr().matches("a trusted proxy's connection was ended").count();
    assert!(records < 3 * cases.len(), "not one for each connection: {records}");
    // A browser that comes by way of the balancer's machine, not of the balancer.
    assert!(portal.tls_over(portal.tcp_from(PROXY).await, &[b"h2"]).await.is_err());
    // It was the header, nothing else.
    assert!(through(&portal, &from("198.51.100.7")).await.is_some());
}

/// What a header says is an address elsewhere: nobody passes for somebody on this machine.
#[tokio::test]
async fn nobody_passes_for_somebody_on_this_machine() {
    let portal = Portal::with_config(TRUSTED);
    for source in
        ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255"]
    {
        assert!(through(&portal, &from(source)).await.is_none(), "{source}");
        portal.logged(&["a trusted proxy's connection was ended", "no address of somebody elsewhere"]).await;
    }
    // Own origins are below localhost: of use on this machine only, and so offered to nobody else.
    let app = App::echo().await;
    let client = portal.sign_in().await;
    let own_origin = format!("https://localhost-{}.localhost:{}", app.port(), portal.port());
    assert!(client.get("/").await.text().contains(&own_origin));
    let mut link = through(&portal, &from("198.51.100.7")).await.unwrap();
    let page = get(&client, &mut link, "/").await;
    page.assert_status(200);
    assert!(!page.text().contains(".localhost:"), "{}", page.text());

    // This machine's other addresses are for the kernel to judge: it knows of no such connection.
    let ours = portreeve_sys::local_addresses().unwrap();
    match ours.iter().find(|ip| ip.is_ipv4() && !ip.is_loopback()) {
        Some(ip) => assert!(through(&portal, &from(&ip.to_string())).await.is_none(), "{ip}"),
        None => skip("nobody_passes_for_somebody_on_this_machine", "this machine has the loopback only"),
    }
}

#[tokio::test]
async fn a_header_from_anybody_else_is_just_no_tls() {
    for config in ["", TRUSTED, "[portal]\ntrusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]\n"] {
        let portal = Portal::with_config(config);
        let mut stream = begun(&portal, Ipv4Addr::LOCALHOST, &from("198.51.100.7")).await;
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
        // And who sends none is answered.
        portal.sign_in().await;
        assert!(!portal.stderr().contains("198.51.100.7"));
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let portal = Portal::with_config(TRUSTED);
    let whole = from("198.51.100.7");
    // It breaks off.
    for length in [0, 1, 12, 16, whole.len() - 1] {
        let mut stream = begun(&portal, PROXY, &whole[..length]).await;
        stream.shutdown().await.unwrap();
        assert!(ends_without_a_word(&mut stream).await, "{length} bytes");
    }
    // It stands still, or trickles.
    let mut waiting = Vec::new();
    for length in [0, 15, 16, whole.len() - 1] {
        let mut stream = begun(&portal, PROXY, &whole[..length]).await;
        waiting.push(tokio::spawn(async move {
            let start = Instant::now();
            (ends_without_a_word(&mut stream).await, start.elapsed())
        }));
    }
    let (mut reader, mut writer) = begun(&portal, PROXY, &[]).await.into_split();
    let trickles = tokio::spawn(async move {
        for byte in whole {
            // The pace is what is tested: each byte comes in time, all of them do not.
            tokio::time::sleep(Duration::from_millis(200)).await;
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut rest)).await.expect("it ends");
    let took = start.elapsed();
    assert!(
        rest.is_empty() && took >= PROXY_HEADER - Duration::from_millis(500) && took < 2 * PROXY_HEADER,
        "{took:?}"
    );
    trickles.abort();
    for waited in waiting {
        let (silent, took) = waited.await.unwrap();
        assert!(silent && took >= PROXY_HEADER - Duration::from_millis(500), "{took:?}");
        assert!(took < 2 * PROXY_HEADER, "well before the handshake's own limit: {took:?}");
    }
    portal.logged(&["the PROXY header did not come in time"]).await;
}

#[tokio::test]
async fn a_reload_changes_who_is_trusted_for_new_connections() {
    let portal = Portal::with_config(TRUSTED);
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let mut before = through(&portal, &from("198.51.100.7")).await.unwrap();
    std::fs::write(portal.config_file(), "[portal]\ntrusted_proxies = [\"127.0.0.8\"]\n").unwrap();
    portal.signal(Signal::SIGHUP);
    portal.logged(&["configuration and certificate reloaded"]).await;
    assert!(through(&portal, &from("198.51.100.7")).await.is_none(), "it is not trusted any more");
    assert_eq!(forwarded_for(&get(&client, &mut before, &app.path("/")).await), "198.51.100.7");
    let stream = begun(&portal, Ipv4Addr::new(127, 0, 0, 8), &from("198.51.100.9")).await;
    let tls = portal.tls_over(stream, &[b"http/1.1"]).await.unwrap();
    let mut link = Link::over(tls, Version::HTTP_11).await.unwrap();
    assert_eq!(forwarded_for(&get(&client, &mut link, &app.path("/")).await), "198.51.100.9");
    // And the other one is a browser again.
    let tls = portal.tls_over(portal.tcp_from(PROXY).await, &[b"http/1.1"]).await.unwrap();
    let mut link = Link::over(tls, Version::HTTP_11).await.unwrap();
    assert_eq!(forwarded_for(&get(&client, &mut link, &app.path("/")).await), "127.0.0.9");
}

/// Otherwise one browser's wrong codes would keep everybody behind the balancer waiting.
#[tokio::test]
async fn wrong_codes_are_counted_by_the_browsers_address() {
    let portal = Portal::with_config(TRUSTED);
    let stranger = portal.stranger();
    let mut link = through(&portal, &from("198.51.100.7")).await.unwrap();
    for _ in 0..10 {
        get(&stranger, &mut link, &enter("wrong")).await.assert_refused(403, "code-unknown");
    }
    get(&stranger, &mut link, &enter("wrong")).await.assert_refused(429, "too-many-codes");
    let mut other = through(&portal, &from("198.51.100.8")).await.unwrap();
    get(&stranger, &mut other, &enter("wrong")).await.assert_refused(403, "code-unknown");
}

/// Who connects is looked up by the connection itself, whatever network is trusted.
#[tokio::test]
async fn one_address_has_a_share_of_the_connections_and_its_balancer_has_them_all() {
    let portal = Portal::watched(&format!("{TRUSTED}[limits]\nconnections = 8\n"));
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(through(&portal, &from("2001:db8::7")).await.unwrap());
    }
    for first in ["2001:db8::7", "2001:db8::8"] {
        let mut stream = begun(&portal, PROXY, &from(first)).await;
        assert!(ends_without_a_word(&mut stream).await, "{first}");
    }
    let refused = "portreeve_connections_refused_total{reason=\"address\"}";
    assert!((portal.scrape().await.get(refused) - 2.0).abs() < 0.5);
    // Others have theirs, and so has the balancer for itself.
    for first in [from("2001:db8:0:1::7"), from("198.51.100.7"), header(LOCAL, 0, &[]), header(LOCAL, 0, &[])]
    {
        held.push(through(&portal, &first).await.unwrap());
    }
    held.remove(0);
    until("there is a place again", PATIENCE, || async { through(&portal, &from("2001:db8::8")).await })
        .await;
}

#[tokio::test]
async fn another_user_of_this_machine_gains_nothing_by_a_header() {
    let test = "another_user_of_this_machine_gains_nothing_by_a_header";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let config = Some("[portal]\ntrusted_proxies = [\"127.0.0.1\"]\n".to_owned());
    let person = Some(alice.clone());
    let portal = Portal::start(PortalOptions { config, person, ..PortalOptions::default() });
    let hex: String = header(LOCAL, 0, &[]).iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let answer_to = |uid: u32, gid: u32| {
        // Behind the header plain HTTP, which is answered to the portal's own user only.
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{}; printf '{hex}GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3",
            portal.port()
        );
        let asked = Command::new("setpriv")
            .args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"])
            .args(["bash", "-c", &script])
            .output()
            .unwrap();
        String::from_utf8_lossy(&asked.stdout).trim().to_owned()
    };
    assert_eq!(answer_to(alice.uid, alice.gid), "HTTP/1.1 400 Bad Request");
    assert_eq!(answer_to(bob.uid, bob.gid), "");
    portal.logged(&["event=\"stranger\"", &format!("uid={}", bob.uid)]).await;
}
