//! The whole chain that a cluster's portal stands on: root's process, the broker in its sandbox, PAM, dialers, workers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::socket::SockType;
use portreeve_broker::Verifier;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::dialer::{Dial, Dialed};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::wire::{ControlReply, ControlRequest};
use portreeve_model::{Claims, ForwardName, Secret, SignIn, UserName};
use portreeve_tests::world::chain::{Cluster, SERVICE, Workers, pair, signed_in, with_cluster};
use portreeve_tests::world::etc::PASSWORD;
use portreeve_tests::world::skip;
use portreeve_tests::world::spawner::{eventually, hear, is_closed, signal, tell};

async fn check(name: &str, test: impl AsyncFnOnce(Cluster)) {
    with_cluster(name, SERVICE, Workers::StandIn, test).await;
}

#[tokio::test]
async fn from_a_password_to_a_worker_and_a_connection() {
    check("from_a_password_to_a_worker_and_a_connection", async |mut cluster| {
        let mut portal = cluster.portal().await;
        for (user, password, expected) in [
            ("alice", "wrong", PamRefusal::Credentials),
            ("nobody-of-this-name", PASSWORD, PamRefusal::Credentials),
            ("bob", PASSWORD, PamRefusal::Account),
            // Not even tried, and not to be told from a name that nobody has.
            ("root", PASSWORD, PamRefusal::Credentials),
        ] {
            let answer = portal.try_password(user, password).await;
            assert!(matches!(answer, Answer::Refused { why, .. } if why == expected), "{user}: {answer:?}");
        }
        let (claims, ticket) = portal.sign_in("alice").await;
        let verifier = Verifier::of_keys(&portal.keys).unwrap();
        assert_eq!(verifier.verify(ticket.reveal(), "portal", claims.iat), Some(claims));
        let groups = portal.ask(Question::Groups { ticket: ticket.clone() }).await;
        assert_eq!(groups, Answer::Groups(vec![20001, 20100]));

        // A forward file of alice's.
        let file = cluster.etc.path("forwards/alice-tb");
        std::fs::write(&file, "http://127.0.0.1:12001/\n").unwrap();
        std::os::unix::fs::chown(&file, Some(20001), Some(20001)).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).unwrap();
        let name = ForwardName::parse("alice-tb").unwrap();
        let found = portal.ask(Question::Forward { ticket: ticket.clone(), name }).await;
        let Answer::Forward(Ok(found)) = found else { panic!("{found:?}") };
        assert_eq!((found.line.as_str(), found.stat.uid), ("http://127.0.0.1:12001/", 20001));

        // A connection that alice's dialer makes.
        let application = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (dialer, theirs) = pair(SockType::SeqPacket);
        let answer = portal.ask_with(Question::Dialer { ticket: ticket.clone() }, Some(theirs)).await;
        assert_eq!(answer, Answer::Done);
        tell(&dialer, &Dial { id: 1, to: application.local_addr().unwrap(), patience: 5000 }, &[]);
        let (dialed, descriptors) = hear::<Dialed>(&dialer);
        assert_eq!((dialed, descriptors.len()), (Dialed::Connected { id: 1 }, 1));
        assert_eq!(hear::<Dialed>(&dialer).0, Dialed::Released { id: 1 });

        // The worker is alice's, in a session of hers, and knows the keys.
        let (worker, theirs) = pair(SockType::Stream);
        let answer = portal.ask_with(Question::Worker { ticket: ticket.clone() }, Some(theirs)).await;
        assert_eq!(answer, Answer::Done);
        let mut said = vec![0; 256];
        let length = nix::unistd::read(&worker, &mut said).unwrap();
        let home = cluster.etc.path("home/alice").display().to_string();
        assert_eq!(String::from_utf8_lossy(&said[..length]), format!("uid 20001 keys 1 home {home}"));

        // With the last session the dialer ends.
        let out = Question::SignOut { ticket: ticket.clone(), everywhere: false };
        assert_eq!(portal.ask(out).await, Answer::Done);
        assert!(is_closed(&dialer));
        assert_eq!(portal.ask(Question::Groups { ticket }).await, Answer::NoTicket);
    })
    .await;
}

#[tokio::test]
async fn whoever_is_on_the_machine_gets_an_address_and_root_ends_sessions() {
    check("whoever_is_on_the_machine_gets_an_address_and_root_ends_sessions", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let address = cluster.ask(20001, &ControlRequest::Login);
        let (claims, ticket) = signed_in(portal.enter(address).await);
        assert_eq!((claims.uid, claims.how), (20001, SignIn::Code));
        // The account is checked here, too: bob's has expired.
        let address = cluster.ask(20002, &ControlRequest::Login);
        let refused = portal.enter(address).await;
        assert!(matches!(refused, Answer::Refused { why: PamRefusal::Account, .. }), "{refused:?}");
        for uid in [0, 1, 54321] {
            assert!(
                matches!(cluster.ask(uid, &ControlRequest::Login), ControlReply::Refused { .. }),
                "{uid}"
            );
        }
        let list = ControlRequest::Sessions { user: None, after: None };
        let revoke = ControlRequest::Revoke { user: UserName::parse("alice").unwrap() };
        for request in [&list, &revoke] {
            for uid in [20001, 20004] {
                assert!(matches!(cluster.ask(uid, request), ControlReply::Refused { .. }));
            }
        }
        let ControlReply::Sessions { rows, .. } = cluster.ask(0, &list) else { panic!() };
        assert_eq!(rows.iter().map(|row| (row.uid, &row.id)).collect::<Vec<_>>(), [(20001, &claims.sid)]);
        // Another user signs out everywhere: only their own.
        assert_eq!(
            cluster.ask(20004, &ControlRequest::SignOutEverywhere),
            ControlReply::Ended { known: 0, tokens: 0 }
        );
        assert!(matches!(
            portal.ask(Question::Renew { ticket: ticket.clone() }).await,
            Answer::SignedIn { .. }
        ));
        assert_eq!(cluster.ask(0, &revoke), ControlReply::Ended { known: 1, tokens: 0 });
        assert_eq!(portal.ask(Question::Renew { ticket }).await, Answer::NoTicket);
    })
    .await;
}

#[tokio::test]
async fn what_runs_in_a_worker_gets_no_address() {
    check("what_runs_in_a_worker_gets_no_address", async |mut cluster| {
        drop(cluster.portal().await);
        // The second version's tree, alone or beside the first one's.
        let group = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .map(|root| Path::new(root).join(format!("portreeve-worker-{}.scope", std::process::id())));
        let made = group
            .iter()
            .find(|group| std::fs::create_dir(group).is_ok_and(|()| group.join("cgroup.procs").exists()));
        let Some(group) = made else {
            return skip("what_runs_in_a_worker_gets_no_address", "needs a control group of its own");
        };
        let inside: Vec<ControlReply> =
            [ControlRequest::Login, ControlRequest::SignOutEverywhere, ControlRequest::Where]
                .iter()
                .map(|request| cluster.ask_from(Some(group), 20001, request))
                .collect();
        eventually("the group is empty", || std::fs::remove_dir(group).ok());
        assert!(matches!(inside[0], ControlReply::Refused { .. }), "{inside:?}");
        assert!(matches!(inside[1], ControlReply::Refused { .. }), "{inside:?}");
        assert!(matches!(inside[2], ControlReply::Portal { .. }), "{inside:?}");
        let outside = cluster.ask(20001, &ControlRequest::Login);
        assert!(matches!(outside, ControlReply::Address { .. }));
    })
    .await;
}

#[tokio::test]
async fn sessions_outlive_a_restart_and_so_do_their_ends() {
    check("sessions_outlive_a_restart_and_so_do_their_ends", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (lives, good) = portal.sign_in("alice").await;
        let (over, ended) = portal.sign_in("alice").await;
        let (worker, theirs) = pair(SockType::Stream);
        portal.ask_with(Question::Worker { ticket: good.clone() }, Some(theirs)).await;
        let out = Question::SignOut { ticket: ended.clone(), everywhere: false };
        assert_eq!(portal.ask(out).await, Answer::Done);
        cluster.restart().await;
        let mut portal = cluster.portal().await;
        portal.hear_until(|portal| portal.ended.contains(&over.sid)).await;
        assert_eq!(portal.ask(Question::Renew { ticket: ended }).await, Answer::NoTicket);
        let (claims, _) = signed_in(portal.ask(Question::Renew { ticket: good }).await);
        assert_eq!((claims.sid, claims.exp), (lives.sid, lives.exp));
        // What ran for the old one is gone.
        let mut said = vec![0; 256];
        while nix::unistd::read(&worker, &mut said).unwrap() > 0 {}
        for file in ["ticket-keys.json", "ended-sessions.json", "mark-key"] {
            let mode = std::fs::metadata(cluster.etc.path("state").join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_reload_reads_the_file_again_and_a_broken_one_changes_nothing() {
    check("a_reload_reads_the_file_again_and_a_broken_one_changes_nothing", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let lasts = |(claims, _): (Claims, Secret)| claims.exp - claims.iat;
        assert_eq!(lasts(portal.sign_in("alice").await), 24 * 3600);
        let log = std::fs::File::open(cluster.etc.path("log")).unwrap();
        let mut log = std::io::BufReader::new(log);
        for (more, outcome, lifetime) in [
            ("[session]\nlifetime = \"2h\"\n", "the configuration was reloaded", 2 * 3600),
            ("[session]\nlifetime = \"later\"\nidel = \"1h\"\n", "not reloaded", 2 * 3600),
            ("[users]\nfirst_uid = 30000\n", "the configuration was reloaded", 24 * 3600),
        ] {
            cluster.configure(more);
            signal(cluster.pid(), Signal::SIGHUP);
            let said = said_until(&mut log, outcome);
            match outcome {
                "not reloaded" => {
                    // Every problem, with its line and what to do.
                    for problem in [
                        "portreeve.toml:6: session.lifetime: this is no duration; write hours",
                        "portreeve.toml:7: session.idel: there is no such key; did you mean session.idle?",
                    ] {
                        assert!(said.contains(problem), "{said}");
                    }
                }
                _ => assert!(!said.contains("portreeve.toml:"), "{said}"),
            }
            // Whom root's process serves only a restart changes.
            assert_eq!(
                said.contains("users.first_uid: only a restart changes it"),
                more.contains("first_uid")
            );
            assert_eq!(lasts(portal.sign_in("alice").await), lifetime, "{more}");
        }
        cluster.restart().await;
        let mut portal = cluster.portal().await;
        let refused = portal.try_password("alice", PASSWORD).await;
        assert!(matches!(refused, Answer::Refused { why: PamRefusal::Credentials, .. }), "{refused:?}");
    })
    .await;
}

/// What the log says from here to the line that has `end`.
fn said_until(log: &mut impl BufRead, end: &str) -> String {
    let mut said = String::new();
    eventually(end, || {
        while log.read_line(&mut said).unwrap() > 0 {}
        said.contains(end).then_some(())
    });
    said
}
