//! What is answered, and what is denied.

use std::sync::atomic::{AtomicBool, Ordering};

use portreeve_broker::TicketKey;
use portreeve_model::wire::worker::{MAX_BODY, ToWorker, WORKSPACE};
use portreeve_model::{Audience, Scope, Scopes, SessionId, SignIn};

use tokio::io::AsyncWriteExt;

use super::world::*;
use crate::process::Settings;

fn field(ticket: &str) -> String {
    format!("Portreeve-Ticket: {ticket}")
}

#[test]
fn a_view_becomes_a_page() {
    run(async || {
        let worker = Worker::new();
        let said = worker.post(&json(&view())).await;
        assert_eq!(said.status, 200, "{said:?}");
        assert!(said.head.contains("\r\ncontent-type: text/html; charset=utf-8\r\n"), "{}", said.head);
        assert!(said.body.contains("<h1>Workspace</h1>") && said.body.contains("alice"));
        assert!(!said.head.contains("portreeve-ticket"));
    });
}

#[test]
fn without_a_good_ticket_nobody_learns_anything() {
    run(async || {
        let worker = Worker::new();
        let stranger = TicketKey::generate().unwrap().0;
        let application = Audience::parse("c1-8888.example.org").unwrap();
        let good = field(&worker.ticket(|_| ()));
        let theirs = ticket_of(&stranger, |_| ());
        let tries: Vec<(&str, Vec<String>)> = vec![
            ("none", vec![]),
            ("another user's", vec![field(&worker.ticket(|claims| claims.uid += 1))]),
            ("an expired one", vec![field(&worker.ticket(|claims| claims.exp = NOW))]),
            ("an application's", vec![field(&worker.ticket(|claims| claims.aud = application))]),
            ("one of an unknown key", vec![field(&theirs)]),
            ("two", vec![good.clone(), good.clone()]),
            ("as a cookie", vec![format!("cookie: __Host-portreeve={}", worker.ticket(|_| ()))]),
        ];
        for (what, fields) in tries {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let mut answers = Vec::new();
            for (method, path) in
                [("POST", WORKSPACE), ("GET", WORKSPACE), ("GET", "/nothing"), ("POST", "/")]
            {
                let said = ask(&mut worker.connect(), method, path, &fields, &json(&view())).await;
                assert_eq!(said.status, 401, "{what}: {said:?}");
                answers.push(said.body);
            }
            assert!(
                answers.iter().all(|text| text.contains("No ticket that is good here")),
                "{what}: {answers:?}"
            );
        }
    });
}

#[test]
fn an_access_token_sees_no_page() {
    run(async || {
        let worker = Worker::new();
        let all = Scopes::new(&Scope::ALL).unwrap();
        let token = field(&worker.ticket(|claims| claims.how = SignIn::Token(all)));
        let said = ask(&mut worker.connect(), "POST", WORKSPACE, &[&token], &json(&view())).await;
        assert_eq!(said.status, 401, "{}", said.body);
    });
}

#[test]
fn a_connection_that_was_kept_is_of_no_use_to_a_session_that_is_over() {
    run(async || {
        let worker = Worker::new();
        let mut kept = worker.connect();
        let session =
            |number| field(&worker.ticket(|claims| claims.sid = SessionId::from_bytes([number; 16])));
        let (over, live) = (session(2), session(3));
        let body = json(&view());
        for ticket in [&over, &live] {
            assert_eq!(ask(&mut kept, "POST", WORKSPACE, &[ticket], &body).await.status, 200);
        }
        for (sessions, until, of_live) in [(vec![[2; 16]], 0, 200), (vec![], NOW, 401)] {
            let sessions: Vec<_> = sessions.into_iter().map(SessionId::from_bytes).collect();
            worker.tell(&ToWorker::Ended { sessions, until }, &[]);
            // It is heard before anything that is handed over after it.
            let said = ask(&mut worker.connect(), "POST", WORKSPACE, &[&over], &body).await;
            assert_eq!(said.status, 401);
            assert_eq!(ask(&mut kept, "POST", WORKSPACE, &[&over], &body).await.status, 401);
            assert_eq!(ask(&mut kept, "POST", WORKSPACE, &[&live], &body).await.status, of_live);
        }
    });
}

#[test]
fn keys_come_and_go() {
    run(async || {
        let worker = Worker::new();
        let mut connection = worker.connect();
        let good = field(&worker.ticket(|_| ()));
        let next = TicketKey::generate().unwrap().0;
        let body = json(&view());
        for (keys, status) in [
            (vec![worker.key.public_key(), next.public_key()], 200),
            // Rotated out: also on a connection that is there.
            (vec![next.public_key()], 401),
            (vec![], 401),
            (vec![worker.key.public_key()], 200),
        ] {
            worker.tell(&ToWorker::Keys(keys.clone()), &[]);
            // It is heard before anything that is handed over after it.
            let said = ask(&mut worker.connect(), "POST", WORKSPACE, &[&good], &body).await;
            assert_eq!(said.status, status, "{keys:?}");
            let said = ask(&mut connection, "POST", WORKSPACE, &[&good], &body).await;
            assert_eq!(said.status, status, "{keys:?}");
        }
    });
}

#[test]
fn paths_and_methods() {
    run(async || {
        let worker = Worker::new();
        let good = field(&worker.ticket(|_| ()));
        for (method, path, status) in [
            ("GET", WORKSPACE, 405),
            ("PUT", WORKSPACE, 405),
            ("DELETE", WORKSPACE, 405),
            ("POST", "/workspace/", 404),
            ("POST", "/", 404),
            ("GET", "/", 404),
            ("POST", "/workspace?x=1", 200),
            ("POST", "http://elsewhere/workspace", 200),
            ("GET", "/apps/nothing", 404),
            ("PUT", "/apps/run", 405),
            ("GET", "/jobs/..%2f..", 404),
            ("GET", "/api/v1/nothing", 404),
            ("GET", "/api/v2/jobs", 404),
        ] {
            let said = ask(&mut worker.connect(), method, path, &[&good], &json(&view())).await;
            assert_eq!(said.status, status, "{method} {path}: {said:?}");
            assert_eq!(status == 405, said.head.contains("\r\nallow: "), "{}", said.head);
        }
    });
}

#[test]
fn a_body_is_bounded_and_of_one_form() {
    run(async || {
        let worker = Worker::new();
        let good = String::from_utf8(json(&view())).unwrap();
        let extra = good.replacen('{', "{\"extra\":1,", 1);
        let deep = good.replacen("\"more\":", "\"less\":1,\"more\":", 1);
        let at_home = good.replacen(&good[good.find("\"nodes\":").unwrap() + 8..good.len() - 1], "null", 1);
        let padded = format!("{good}{}", " ".repeat(MAX_BODY - good.len()));
        let too_long = format!("{padded} ");
        for (body, status) in [
            (good.as_str(), 200),
            (&padded, 200),
            (&too_long, 413),
            ("", 400),
            ("{}", 400),
            ("null", 400),
            (&format!("{good}{{}}"), 400),
            (&extra, 400),
            (&deep, 400),
            (&"[".repeat(100_000), 400),
            // A look at the portal's own machine.
            (&at_home, 400),
        ] {
            let said = worker.post(body.as_bytes()).await;
            assert_eq!(said.status, status, "{:.60}", body);
            assert!(status == 200 || said.body.len() < 200, "{}", said.body);
        }
        // One that does not say how long it is.
        let mut connection = worker.connect();
        let ticket = format!("{}\r\n{}", field(&worker.ticket(|_| ())), visit_field());
        let head =
            format!("POST {WORKSPACE} HTTP/1.1\r\nhost: w\r\n{ticket}\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = format!("{:x}\r\n{}\r\n", 64 * 1024, " ".repeat(64 * 1024));
        let flood = async {
            let (mut reading, mut writing) = connection.split();
            let write = async {
                let _ = writing.write_all(head.as_bytes()).await;
                for _ in 0..20 {
                    let _ = writing.write_all(chunk.as_bytes()).await;
                }
            };
            let read = async {
                let mut bytes = vec![0; 64];
                let length = tokio::io::AsyncReadExt::read(&mut reading, &mut bytes).await.unwrap();
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            };
            tokio::join!(write, read).1
        };
        let said = tokio::time::timeout(PATIENCE, flood).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    });
}

#[test]
fn a_directory_that_hangs_is_said_on_the_page() {
    run(async || {
        let worker = Worker::with(std::time::Duration::from_secs(600), |_, _| {
            loop {
                std::thread::park();
            }
        });
        for n in 0..4 {
            let began = tokio::time::Instant::now();
            let said = worker.post(&json(&view())).await;
            assert_eq!(said.status, 200);
            assert!(said.body.contains("does not answer"), "{}", said.body);
            assert!(said.body.contains("Your listening ports"), "the rest is there");
            let waited = began.elapsed() >= crate::limits::FORWARDS_LIST;
            assert_eq!(waited, n < crate::limits::FORWARDS_LISTS, "{n}: {:?}", began.elapsed());
        }
    });
}

#[test]
fn a_panic_costs_one_answer() {
    run(async || {
        let worker = Worker::with(std::time::Duration::from_secs(600), |_, _| panic!("on purpose"));
        for _ in 0..4 {
            let said = worker.post(&json(&view())).await;
            assert_eq!(said.status, 200);
            assert!(said.body.contains("the list broke off"));
        }
        // On the thread that serves, it costs the connection.
        static PANICS: AtomicBool = AtomicBool::new(true);
        let clock = || match PANICS.swap(false, Ordering::SeqCst) {
            true => panic!("on purpose"),
            false => NOW,
        };
        let worker = Worker::of(Settings { clock, ..Settings::of(person()) });
        let mut connection = worker.connect();
        let head = format!("GET / HTTP/1.1\r\nhost: w\r\n{}\r\n\r\n", field(&worker.ticket(|_| ())));
        connection.write_all(head.as_bytes()).await.unwrap();
        assert!(answer(&mut connection).await.is_none());
        assert_eq!(worker.post(&json(&view())).await.status, 200);
    });
}
