//! What the audit log says of places that lead nowhere: who, what, the verdict and the reason, once for each request.
//! (Of judgements: `ownership.rs`; of applications that are not shown: `shared.rs`; of rights that were taken back:
//! `withdrawn.rs`.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;

use portreeve_tests::world::{App, Portal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The audit records of what became of places, without sign-ins.
fn records(portal: &Portal) -> Vec<String> {
    let log = portal.stderr();
    let is_one = |line: &&str| line.contains(" audit:") && line.contains("verdict=");
    log.lines().filter(is_one).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_place_that_leads_nowhere_leaves_one_record_a_request() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let put = |name: &str, text: &str, mode: u32| {
        let path = portal.forwards().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let target = format!("http://localhost:{}/\n", app.port());
    put("disabled", "", 0o700);
    put("closed", &target, 0o600);
    put("nonsense", "nonsense\n", 0o700);
    put("far", "http://c17:8888/\n", 0o700);
    put("system", "http://localhost:80/\n", 0o700);
    std::os::unix::fs::symlink("closed", portal.forwards().join("link")).unwrap();
    let itself = format!("/fw2/localhost:{}", portal.port());
    let session = {
        let signed_in = portal.logged(&["audit", "event=\"sign-in\""]).await;
        signed_in.split("session=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;

    let mut written = 0;
    for (place, status, reason) in [
        ("/fw/nobody-made-it", 404, "no-such-forward"),
        ("/fw/disabled", 410, "disabled"),
        ("/fw/closed", 403, "not-executable"),
        ("/fw/nonsense", 502, "bad-forward"),
        ("/fw/link", 403, "forward-refused"),
        ("/fw/far", 404, "unknown-node"),
        ("/fw/system", 403, "privileged-port"),
        ("/fw2/c17:8888", 404, "unknown-node"),
        ("/fw2/192.0.2.1:8888", 404, "unknown-node"),
        ("/fw2/localhost:80", 403, "privileged-port"),
        (itself.as_str(), 403, "ourselves"),
    ] {
        // In path form over both versions, asked again (what a file said is remembered for a while), and in an origin
        // of its own where the name can be one.
        let mut asked =
            vec![(client.clone(), format!("{place}/x?y")), (client.clone().http2(), format!("{place}/"))];
        if let Some(name) = place.strip_prefix("/fw/") {
            asked.push((client.enter(&format!("{name}.fn.localhost")).await.program(), "/".to_owned()));
        }
        for (client, path) in asked {
            client.get(&path).await.assert_refused(status, reason);
            let page = client.browser().get(&path).await;
            page.assert_refused(status, reason);
            portal.logged(&[&format!("request=\"{}\"", page.header("x-request-id"))]).await;
            let all = records(&portal);
            assert_eq!(all.len(), written + 2, "one for each request: {:#?}", &all[written..]);
            for record in &all[written..] {
                for field in [
                    " WARN audit:",
                    &format!(" user={user} "),
                    &format!(" session=\"{session}\" "),
                    &format!(" what={place} "),
                    " verdict=\"deny\"",
                    &format!(" reason=\"{reason}\""),
                ] {
                    assert!(format!("{record} ").contains(field), "{field} is missing: {record}");
                }
                // Nobody was connected to, and nobody's it is.
                assert!(!record.contains(" to=") && !record.contains(" owner="), "{record}");
                assert!(!record.contains("x?y"), "what is asked of an application is its own: {record}");
            }
            written = all.len();
        }
    }
    assert_eq!(app.connections(), 0);
}

/// Asks over HTTP/1.1 with this `Host`, until the portal closes.
async fn ask_as(portal: &Portal, host: &str, times: usize) -> String {
    let mut stream = portal.tls(&[b"http/1.1"]).await;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let last = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all((request.repeat(times - 1) + &last).as_bytes()).await.unwrap();
    let mut answers = String::new();
    // Whoever closes may do so without saying so to TLS.
    let _ = stream.read_to_string(&mut answers).await;
    answers
}

#[tokio::test]
async fn what_a_stranger_sends_makes_no_field_of_a_record() {
    let portal = Portal::plain();
    for host in [
        "x verdict=\"allow\" user=\"bob\"",
        "x\" verdict=\"allow\" user=\"bob",
        "x\tverdict=\"allow\" user=\"bob\"",
        "x:1 verdict=\"allow\" user=\"bob\"",
    ] {
        ask_as(&portal, host, 1).await;
    }
    ask_as(&portal, "other.example.org", 1).await;
    portal.logged(&["refused request=", "other.example.org"]).await;
    let log = portal.stderr();
    for field in [" verdict=\"", " user=\"bob", "\tverdict"] {
        assert!(!log.contains(field), "{field}: {log}");
    }
}

#[tokio::test]
async fn refusals_of_strangers_do_not_fill_the_log_and_are_counted() {
    const TIMES: usize = 300;
    let portal = Portal::plain();
    let answers = ask_as(&portal, "other.example.org", TIMES).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), TIMES, "each is answered");
    portal.logged(&["were not logged one by one"]).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let log = portal.stderr();
    let written = log.lines().filter(|line| line.contains("refused request=")).count();
    let more: usize = log
        .lines()
        .filter(|line| line.contains("were not logged one by one"))
        .map(|line| line.split("more=").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(written + more, TIMES, "none is lost");
    assert!(written <= TIMES / 2, "{written}");
}
