//! Callers that ask too much, or do not listen.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use portreeve_model::wire::ident2::{Flags, Op, Request};

use crate::world::{PROJECT, Service, at, holds, listener_of, listens, only, until, user};

#[test]
fn who_never_reads_is_dropped_and_the_others_are_answered() {
    let service = Service::start("", None);
    let (deaf, other) = (service.caller(), service.caller());
    let question = Request { flags: Flags::default(), ..listens(Op::Local, 1, at("127.0.0.1", 9)) };
    deaf.0.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let (bytes, start) = (question.to_bytes(), Instant::now());
    let mut sent = 0;
    // Until it is dropped: first it is not read from any more.
    let end = loop {
        match (&deaf.0).write(&bytes) {
            Ok(_) => sent += 1,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => break error.kind(),
        }
        assert_eq!(other.ask(&question).found, None);
        assert!(start.elapsed() < Duration::from_secs(60), "{sent}");
    };
    assert!(matches!(end, std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset), "{end:?}");
    assert!((100..20_000).contains(&sent), "{sent} questions were taken");
    until("it is told", || service.log().contains("it does not read its answers"));
    assert_eq!(other.ask(&question).found, None);
}

#[test]
fn a_burst_of_looks_is_answered_and_waits_for_nothing_else() {
    let Some(alice) = user() else { return };
    let service = Service::start("", None);
    let (busy, other) = (service.caller(), service.caller());
    let listener = listener_of(alice, "127.0.0.1:0");
    let _holder = holds(&listener, alice, PROJECT, "1");
    let look = listens(Op::Local, 0, listener.local_addr().unwrap());
    for query_id in 0..200 {
        busy.say(&Request { query_id, ..look }.to_bytes());
    }
    let quick = Request { flags: Flags::default(), ..look };
    assert_eq!(other.ask(&quick).found, only(alice));
    let mut answered: Vec<u64> = (0..200)
        .map(|_| {
            let response = busy.response();
            assert_eq!(response.found.unwrap().gid, Some(PROJECT));
            response.query_id
        })
        .collect();
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..200));
}

#[test]
fn there_is_room_for_so_many() {
    let service = Service::start("", None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let request =
        Request { flags: Flags::default(), ..listens(Op::Local, 1, listener.local_addr().unwrap()) };
    // One user's share is less than all places.
    let mut callers: Vec<_> = (0..384).map(|_| service.caller()).collect();
    assert!(callers.iter().all(|caller| caller.ask(&request).found.is_some()));
    assert!(service.caller().hear().is_empty());
    assert!(service.log().contains("one more was turned away"), "{}", service.log());
    callers.truncate(383);
    until("a place", || {
        let caller = service.caller();
        // Turned away, it can't even write.
        (&caller.0).write(&request.to_bytes()).is_ok() && !caller.hear().is_empty()
    });
}
