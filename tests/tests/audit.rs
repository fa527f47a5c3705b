//! What the audit log says of places that lead nowhere: who, what, the verdict and the reason, once for each request.
//! (Of judgements: `ownership.rs`; of applications that are not shown: `shared.rs`; of rights that were taken back:
//! `withdrawn.rs`.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;

use portreeve_tests::world::{App, Portal};

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
