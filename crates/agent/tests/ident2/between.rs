//! Between two machines: questions over UDP, and who is believed.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockname, socket};
use portreeve_model::wire::ident2::{Found, Op, Request, TcpStates};

use crate::world::{Machine, PROJECT, Service, at, given, holds, listener_of, listens, only, response, user};

const PEERS: &str = "peers = ['10.99.0.0/24', 'fd99::/64']";

fn pair() -> Option<(Machine, Machine)> {
    Machine::pair(&["10.99.0.1/16", "fd99::1/64"], &["10.99.0.2/16", "fd99::2/64"])
}

#[test]
fn a_caller_here_learns_who_listens_there() {
    let (Some(alice), Some((one, two))) = (user(), pair()) else { return };
    let (here, there) = (Service::start(PEERS, Some(&one)), Service::start(PEERS, Some(&two)));
    let listener = two.inside(|| listener_of(alice, "[::]:0"));
    let port = listener.local_addr().unwrap().port();
    let holder = holds(&listener, alice, PROJECT, "20901,20902");
    let found =
        Found { uid: alice, gid: Some(PROJECT), pid: Some(holder.pid()), groups: Some(vec![20_901, 20_902]) };
    let caller = here.caller();
    for ip in ["10.99.0.2", "fd99::2", "::ffff:10.99.0.2"] {
        let answer = caller.ask(&Request { client_id: 77, ..listens(Op::Remote, 5, at(ip, port)) });
        // Its own id as the service knows it, not what went over the network.
        assert_eq!((answer.op, answer.client_id, answer.query_id), (Op::Remote, 1, 5), "{ip}");
        assert_eq!(answer.found, Some(found.clone()), "{ip}");
        let nothing = caller.ask(&listens(Op::Remote, 6, at(ip, 9)));
        assert_eq!((nothing.query_id, nothing.found), (6, None));
        // It is that machine's, not this one's.
        assert_eq!(caller.ask(&listens(Op::Local, 7, at(ip, port))).found, None);
    }
    assert_eq!(there.caller().ask(&listens(Op::Local, 8, at("10.99.0.2", port))).found, Some(found.clone()));
    // Its own address is no other node, whatever way it is asked.
    assert_eq!(there.caller().ask(&listens(Op::Remote, 8, at("10.99.0.2", port))).found, Some(found));
}

/// What a firewall at the far end of a connection asks.
#[test]
fn who_connects_from_there() {
    let (Some(alice), Some((one, two))) = (user(), pair()) else { return };
    let (here, _there) = (Service::start(PEERS, Some(&one)), Service::start(PEERS, Some(&two)));
    let caller = here.caller();
    // Nobody has this address, so its first packet stays unanswered.
    let to = "10.99.0.77:4444".parse().unwrap();
    let socket = two.inside(|| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        let SocketAddr::V4(to) = to else { panic!() };
        let _ = connect(socket.as_raw_fd(), &SockaddrIn::from(to));
        given(socket, alice)
    });
    let _holder = holds(&socket, alice, PROJECT, "20901");
    let name: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
    let request = Request {
        states: TcpStates::SYN_SENT,
        remote: to,
        ..listens(Op::Remote, 1, at("10.99.0.2", name.port()))
    };
    let found = caller.ask(&request).found.unwrap();
    assert_eq!((found.uid, found.gid, found.groups), (alice, Some(PROJECT), Some(vec![20_901])));
    for wrong in [
        Request { remote: "10.99.0.77:4445".parse().unwrap(), ..request },
        Request { remote: "10.99.0.78:4444".parse().unwrap(), ..request },
        Request { states: TcpStates::CONNECTED, local: at("10.99.0.2", 9), ..request },
        Request { states: TcpStates::LISTEN, ..request },
        Request { remote: at("10.99.0.77", 0), ..request },
    ] {
        assert_eq!(caller.ask(&wrong).found, None, "{wrong:?}");
    }
    // A connection that stands, in the middle of which a firewall begins to look.
    let listener = one.inside(|| listener_of(0, "10.99.0.1:0"));
    let there = two.inside(|| given(TcpStream::connect(listener.local_addr().unwrap()).unwrap(), alice));
    let request = Request {
        states: TcpStates::CONNECTED,
        local: there.local_addr().unwrap(),
        remote: there.peer_addr().unwrap(),
        ..request
    };
    assert_eq!(caller.ask(&request).found, only(alice));
    assert_eq!(caller.ask(&Request { states: TcpStates::SYN_SENT, ..request }).found, None);
}

#[test]
fn an_answer_is_believed_from_the_node_that_was_asked_and_once() {
    let Some((one, two)) = pair() else { return };
    two.add("10.99.0.3/16");
    let here = Service::start(PEERS, Some(&one));
    let caller = here.caller();
    // The other node, by hand; and others that try to answer in its place.
    let node = two.udp("10.99.0.2:99");
    let (another, user) = (two.udp("10.99.0.3:99"), two.udp("10.99.0.2:1234"));
    let request = listens(Op::Remote, 5, at("10.99.0.2", 8000));
    caller.say(&request.to_bytes());
    let (asked, from) = node.question();
    assert_eq!((from, asked.query_id), (at("10.99.0.1", 99), 5));
    assert_eq!(asked, Request { client_id: asked.client_id, ..request });
    let lie = asked.answer(only(666)).to_bytes();
    another.say(&lie, "10.99.0.1:99");
    user.say(&lie, "10.99.0.1:99");
    for wrong in [
        Request { client_id: 1, ..asked },
        Request { client_id: asked.client_id ^ 1, ..asked },
        Request { query_id: 6, ..asked },
        Request { op: Op::Local, ..asked },
    ] {
        node.say(&wrong.answer(only(666)).to_bytes(), "10.99.0.1:99");
    }
    node.say(&lie[..33], "10.99.0.1:99");
    node.say(&[&lie[..], &[0; 4]].concat(), "10.99.0.1:99");
    caller.hears_nothing();
    node.say(&asked.answer(only(1000)).to_bytes(), "10.99.0.1:99");
    node.say(&lie, "10.99.0.1:99");
    let answer = caller.response();
    assert_eq!((answer.client_id, answer.query_id, answer.found), (1, 5, only(1000)));
    caller.hears_nothing();
    // Asked again before it was answered, it is the same question; the next one has another number.
    caller.say(&request.to_bytes());
    caller.say(&request.to_bytes());
    let (second, third) = (node.question().0, node.question().0);
    assert_eq!(second, third);
    assert_ne!(second.client_id, asked.client_id);
    node.say(&second.answer(None).to_bytes(), "10.99.0.1:99");
    node.say(&second.answer(only(666)).to_bytes(), "10.99.0.1:99");
    assert_eq!(caller.response().found, None);
    caller.hears_nothing();
    // Nobody is left to hear it.
    caller.say(&request.to_bytes());
    let (last, _) = node.question();
    drop(caller);
    let next = here.caller();
    let log = here.log();
    for told in ["did not come from the nodes' port", "was not asked for", "could not be understood"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    node.say(&last.answer(only(1)).to_bytes(), "10.99.0.1:99");
    next.hears_nothing();
}

#[test]
fn a_question_is_answered_to_a_peer_and_to_nobody_else() {
    let (Some(alice), Some((one, two))) = (user(), pair()) else { return };
    one.add("10.99.0.9/16");
    two.add("10.99.1.2/16");
    let here = Service::start(PEERS, Some(&one));
    let listener = one.inside(|| listener_of(alice, "0.0.0.0:0"));
    let port = listener.local_addr().unwrap().port();
    let node = two.udp("10.99.0.2:99");
    let request = Request { client_id: 3, ..listens(Op::Remote, 4, at("10.99.0.1", port)) };
    let bytes = request.to_bytes();
    // Not from the nodes' port, and not from a peer's address.
    for stranger in [two.udp("10.99.0.2:98"), two.udp("10.99.0.2:40000"), two.udp("10.99.1.2:99")] {
        stranger.say(&bytes, "10.99.0.1:99");
        stranger.hears_nothing();
    }
    // Not what no node asks another.
    let local = Request { op: Op::Local, ..request };
    for wrong in [
        &local.to_bytes()[..],
        &local.answer(only(1)).to_bytes(),
        &request.answer(only(1)).to_bytes(),
        &bytes[..59],
        &[&bytes[..], &[0]].concat(),
        &[7],
        &[],
        &[0; 200],
        &[3; 20_000],
    ] {
        node.say(wrong, "10.99.0.1:99");
    }
    node.hears_nothing();
    node.say(&bytes, "10.99.0.1:99");
    let (answer, from) = node.hear();
    assert_eq!((response(&answer), from), (request.answer(only(alice)), at("10.99.0.1", 99)));
    // From the very address that was asked, though the other one is nearer.
    node.say(&bytes, "10.99.0.9:99");
    let (answer, from) = node.hear();
    assert_eq!((response(&answer), from), (request.answer(only(alice)), at("10.99.0.9", 99)));
    // About the peer itself, or anybody else, it knows nothing.
    for ip in ["10.99.0.2", "192.0.2.1", "0.0.0.0"] {
        let request = Request { local: at(ip, port), ..request };
        node.say(&request.to_bytes(), "10.99.0.1:99");
        assert_eq!(response(&node.hear().0), request.answer(None), "{ip}");
    }
    let six = two.udp("[fd99::2]:99");
    let request = listens(Op::Remote, 4, at("fd99::1", port));
    six.say(&request.to_bytes(), "[fd99::1]:99");
    assert_eq!(response(&six.hear().0), request.answer(None), "that one listens for IPv4 alone");
    let log = here.log();
    for told in ["did not come from any of the peers", "did not come from the nodes' port", "not this node's"]
    {
        assert!(log.contains(told), "{told}: {log}");
    }
}

#[test]
fn only_peers_are_asked() {
    let Some((one, two)) = pair() else { return };
    two.add("10.99.1.2/16");
    let here = Service::start(PEERS, Some(&one));
    let (caller, outside) = (here.caller(), two.udp("10.99.1.2:99"));
    for ip in ["10.99.1.2", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
        assert_eq!(caller.ask(&listens(Op::Remote, 1, at(ip, 8000))).found, None, "{ip}");
    }
    outside.hears_nothing();
    // What is among the peers is read again, and nothing else.
    here.reconfigure("peers = ['10.99.0.0/16']\nport = 98");
    assert!(here.log().contains("change at the next start only"), "{}", here.log());
    caller.say(&listens(Op::Remote, 2, at("10.99.1.2", 8000)).to_bytes());
    let (asked, _) = outside.question();
    outside.say(&asked.answer(only(5)).to_bytes(), "10.99.0.1:99");
    assert_eq!(caller.response().found, only(5));
    // A node that can't be reached costs the caller nothing but the answer.
    caller.say(&listens(Op::Remote, 3, at("10.99.200.200", 8000)).to_bytes());
    assert_eq!(caller.ask(&listens(Op::Local, 4, at("127.0.0.1", 9))).query_id, 4);
}

#[test]
fn without_other_nodes_there_is_no_port() {
    let Some((one, _two)) = pair() else { return };
    let _here = Service::start("", Some(&one));
    let _free = one.udp("[::]:99");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    std::fs::write(&file, format!("socket = '{}'\n{PEERS}", dir.path().join("s").display())).unwrap();
    let mut command = one.command(env!("CARGO_BIN_EXE_portreeve-agent"));
    let done = command.arg("ident2").arg("--config").arg(&file).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && error.contains("does ident2d still run?"), "{error}");
}
