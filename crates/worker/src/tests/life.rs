//! The control channel, connections, and leaving.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::SockType;
use portreeve_model::wire::broker::PublicKey;
use portreeve_model::wire::worker::{ToWorker, WORKSPACE};
use portreeve_sys::message;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use super::world::*;
use crate::control::{Control, Heard};
use crate::limits;
use crate::process::{ControlError, Settings};

fn site() -> ToWorker {
    super::world::site(std::path::Path::new("/nonexistent"))
}

async fn is_closed(connection: &mut tokio::net::UnixStream) -> bool {
    let read = timeout(PATIENCE, connection.read(&mut [0; 64])).await.expect("it ends");
    matches!(read, Ok(0) | Err(_))
}

#[test]
fn with_the_control_channel_everything_ends_at_once() {
    run(async || {
        let worker = Worker::new();
        let mut connection = worker.connect();
        let good = format!("portreeve-ticket: {}", worker.ticket(|_| ()));
        let said = ask(&mut connection, "POST", WORKSPACE, &[&good], &json(&view())).await;
        assert_eq!(said.status, 200);
        let Worker { control, .. } = worker;
        drop(control);
        assert!(is_closed(&mut connection).await);
    });
}

#[test]
fn what_is_unexpected_ends_the_channel() {
    run(async || {
        let (file, (stream, _other)) = (tempfile::tempfile().unwrap(), pair(SockType::Stream));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let packet = pair(SockType::SeqPacket).0;
        let bad_key = PublicKey { id: "x".to_owned(), key: "AAAA".to_owned() };
        let keys = ToWorker::Keys(vec![]);
        let nothing: &[std::os::fd::BorrowedFd<'_>] = &[];
        let begun = [(site(), nothing), (keys.clone(), nothing)];
        for (what, said) in [
            ("a descriptor with keys", vec![(keys.clone(), &[stream.as_fd()][..])]),
            ("a descriptor with the site", vec![]),
            ("a connection without one", vec![(ToWorker::Connection, nothing)]),
            ("two of them", vec![(ToWorker::Connection, &[stream.as_fd(), stream.as_fd()][..])]),
            ("a file", vec![(ToWorker::Connection, &[file.as_fd()][..])]),
            ("a listener", vec![(ToWorker::Connection, &[tcp.as_fd()][..])]),
            ("another kind of socket", vec![(ToWorker::Connection, &[packet.as_fd()][..])]),
            ("a key that is none", vec![(ToWorker::Keys(vec![bad_key.clone()]), nothing)]),
            ("the site twice", vec![(site(), nothing)]),
        ] {
            let worker = Worker::silent(Settings::of(person()));
            if said.is_empty() {
                worker.tell(&site(), &[stream.as_fd()]);
            } else {
                for (message, descriptors) in begun.iter().chain(&said) {
                    worker.tell(message, descriptors);
                }
            }
            let ended = worker.end().await;
            assert!(
                matches!(&ended, Err(error) if !matches!(error, ControlError::Closed)),
                "{what}: {ended:?}"
            );
        }
        for first in [keys, ToWorker::Connection] {
            let worker = Worker::silent(Settings::of(person()));
            let with = matches!(first, ToWorker::Connection).then(|| stream.as_fd());
            worker.tell(&first, with.as_slice());
            assert!(matches!(worker.end().await, Err(ControlError::Order)));
        }
        for nonsense in [&b"{}"[..], b"\"keys\"", b"{\"run\":\"sh\"}", b"{\"keys\":[]} x", &[b'x'; 70_000]] {
            let worker = Worker::silent(Settings::of(person()));
            worker.tell(&site(), &[]);
            message::send(&worker.control, nonsense, &[]).unwrap();
            let ended = worker.end().await;
            assert!(matches!(ended, Err(ControlError::Frame(_) | ControlError::Receive(_))), "{ended:?}");
        }
    });
}

#[test]
fn without_keys_nobody_is_answered() {
    run(async || {
        let worker = Worker::silent(Settings { clock: || NOW, ..Settings::of(person()) });
        worker.tell(&site(), &[]);
        assert_eq!(worker.post(&json(&view())).await.status, 401);
    });
}

#[test]
fn it_leaves_when_nobody_needs_it_and_not_before() {
    run(async || {
        let idle = Duration::from_millis(300);
        let worker = Worker::with(idle, |_, _| Ok(Vec::new()));
        // Open is in use.
        let mut connection = worker.connect();
        tokio::time::sleep(idle * 3).await;
        let good = format!("portreeve-ticket: {}", worker.ticket(|_| ()));
        let said = ask(&mut connection, "POST", WORKSPACE, &[&good], &json(&view())).await;
        assert_eq!(said.status, 200);
        drop(connection);
        let began = Instant::now();
        worker.end().await.unwrap();
        assert!(began.elapsed() >= idle - Duration::from_millis(50), "{:?}", began.elapsed());
        // Nor does it wait for a first one for ever.
        Worker::with(idle, |_, _| Ok(Vec::new())).end().await.unwrap();
    });
}

/// Whoever hands something over just then either sees that it fails, or it is answered.
#[test]
fn nothing_is_lost_when_it_leaves() {
    run(async || {
        let (mut refused, mut answered) = (0, 0);
        for n in 0..60u64 {
            let worker = Worker::with(Duration::from_millis(20), |_, _| Ok(Vec::new()));
            tokio::time::sleep(Duration::from_micros(19_000 + n * 50)).await;
            let good = format!("portreeve-ticket: {}", worker.ticket(|_| ()));
            match worker.try_to_connect() {
                Ok(mut connection) => {
                    let said = ask(&mut connection, "POST", WORKSPACE, &[&good], &json(&view())).await;
                    assert_eq!(said.status, 200);
                    answered += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused + answered, 60);
    });
}

/// The same, step by step.
#[test]
fn what_was_handed_over_before_it_left_is_served_and_what_comes_after_is_refused() {
    run(async || {
        let (ours, theirs) = pair(SockType::SeqPacket);
        let mut control = Control::new(theirs).unwrap();
        let (_stream, end): (OwnedFd, OwnedFd) = pair(SockType::Stream);
        let frame = portreeve_model::wire::encode_bare(&ToWorker::Connection).unwrap();
        message::send(&ours, &frame, &[end.as_fd()]).unwrap();
        control.leave().unwrap();
        let late = message::send(&ours, &frame, &[end.as_fd()]).unwrap_err();
        assert_eq!(late.kind(), std::io::ErrorKind::BrokenPipe);
        assert!(matches!(control.waiting(), Ok(Some(Heard::Connection(_)))));
        assert!(matches!(control.waiting(), Err(ControlError::Closed)));
    });
}

#[test]
fn there_is_a_most_of_connections() {
    run(async || {
        let worker = Worker::new();
        let mut open: Vec<_> = (0..limits::CONNECTIONS).map(|_| worker.connect()).collect();
        assert!(is_closed(&mut worker.connect()).await, "one too many");
        drop(open.pop());
        // There is room again, as soon as it has noticed.
        let good = format!("portreeve-ticket: {}\r\n{}", worker.ticket(|_| ()), visit_field());
        let mut tries = 0;
        let said = loop {
            let mut connection = worker.connect();
            let request = format!("GET / HTTP/1.1\r\nhost: w\r\n{good}\r\n\r\n");
            let _ = tokio::io::AsyncWriteExt::write_all(&mut connection, request.as_bytes()).await;
            match timeout(PATIENCE, answer(&mut connection)).await.unwrap() {
                Some(said) => break said,
                None => tries += 1,
            }
            assert!(tries < 1000);
        };
        assert_eq!(said.status, 404);
        assert!(!worker.has_ended());
    });
}

#[test]
fn who_sends_nothing_or_half_a_request_is_left() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        for begins in ["", "POST /work", "POST /workspace HTTP/1.1\r\nhost: w\r\n"] {
            let worker = Worker::new();
            let mut connection = worker.connect();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut connection, begins.as_bytes()).await;
            let began = Instant::now();
            assert!(timeout(limits::REQUEST_HEAD * 2, connection.read(&mut [0; 64])).await.is_ok(), "{begins:?}");
            assert!(began.elapsed() >= limits::REQUEST_HEAD / 2, "{begins:?}: {:?}", began.elapsed());
        }
        // A body that does not come.
        let worker = Worker::new();
        let mut connection = worker.connect();
        let good = format!("{}\r\n{}", worker.ticket(|_| ()), visit_field());
        let head = format!(
            "POST {WORKSPACE} HTTP/1.1\r\nhost: w\r\nportreeve-ticket: {good}\r\ncontent-length: 500\r\n\r\n{{"
        );
        tokio::io::AsyncWriteExt::write_all(&mut connection, head.as_bytes()).await.unwrap();
        let said = timeout(limits::BODY * 2, answer(&mut connection)).await.unwrap().unwrap();
        assert_eq!(said.status, 408);
    });
}
