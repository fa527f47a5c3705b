use super::*;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, listen, socket,
};
use portreeve_model::wire::ident2::Op;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const NOBODY: &str = "0.0.0.0:0";

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp(states: TcpStates, local: SocketAddr, remote: SocketAddr) -> Request {
    let flags = Flags::default();
    let (op, protocol) = (Op::Local, Protocol::Tcp);
    Request { op, client_id: 1, query_id: 2, flags, protocol, states, local, remote }
}

/// The uid that is answered.
fn uid(answerer: &Answerer, request: &Request) -> Option<u32> {
    let found = match answerer.answer(request) {
        Reply::Now(found) => found,
        Reply::Later(look) => look.make(),
    };
    found.map(|found| {
        assert_eq!(found, only(found.uid), "nothing else was asked for");
        found.uid
    })
}

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[test]
fn what_can_be_asked_and_how_it_is_meant() {
    use TcpStates as S;
    let (l, r) = (end("127.0.0.1:80"), end("127.0.0.1:40000"));
    let nobody = end(NOBODY);
    let mixed = S(S::LISTEN.0 | S::SYN_SENT.0);
    for (states, local, remote, expected) in [
        // A firewall's, and the web server's modules'.
        (S::LISTEN, l, nobody, Some(Form::Listening(l))),
        (S::SYN_SENT, l, r, Some(Form::Connection(l, r, S::SYN_SENT))),
        (S::CONNECTED, l, nobody, Some(Form::Connections(l, S::CONNECTED))),
        (S::CONNECTED, l, r, Some(Form::Connection(l, r, S::CONNECTED))),
        // Others.
        (S::ANY, l, nobody, Some(Form::Listening(l))),
        (S::ANY, l, r, Some(Form::Connection(l, r, S::ANY))),
        (mixed, l, nobody, Some(Form::Listening(l))),
        (mixed, l, r, Some(Form::Connection(l, r, mixed))),
        (S::LISTEN, l, r, None),
        // Half an end, or no local one.
        (S::ANY, l, end("127.0.0.1:0"), None),
        (S::ANY, l, end("0.0.0.0:40000"), None),
        (S::LISTEN, end("0.0.0.0:80"), nobody, None),
        (S::LISTEN, end("[::ffff:0.0.0.0]:80"), end("[::]:0"), None),
        (S::LISTEN, end("127.0.0.1:0"), nobody, None),
    ] {
        assert_eq!(Form::of(&tcp(states, local, remote)), expected, "{states:?} {local} {remote}");
    }
    let six = tcp(S::LISTEN, end("[::1]:80"), end("[::]:0"));
    assert_eq!(Form::of(&six), Some(Form::Listening(six.local)));
    let udp = |states, remote| Form::of(&Request { protocol: Protocol::Udp, ..tcp(states, l, remote) });
    assert_eq!(udp(S::ANY, r), Some(Form::Datagrams(l, r)));
    assert_eq!(udp(S::ANY, nobody), Some(Form::Datagrams(l, nobody)));
    assert_eq!(udp(S::LISTEN, nobody), None);
}

#[test]
fn who_listens() {
    let answerer = Answerer::open().unwrap();
    for at in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let listener = TcpListener::bind(at).unwrap();
        let port = listener.local_addr().unwrap().port();
        for (asked, of) in [
            ("127.0.0.1", "0.0.0.0:0"),
            ("::ffff:127.0.0.1", "[::]:0"),
            ("::1", "[::]:0"),
            // Not this node's, though the listener would take connections to any address.
            ("192.0.2.1", "0.0.0.0:0"),
        ] {
            let local = SocketAddr::new(asked.parse().unwrap(), port);
            let takes = match at {
                "127.0.0.1:0" | "0.0.0.0:0" => asked.ends_with("127.0.0.1"),
                "[::1]:0" => asked == "::1",
                _ => asked != "192.0.2.1",
            };
            let expected = takes.then(me);
            assert_eq!(uid(&answerer, &tcp(TcpStates::LISTEN, local, end(of))), expected, "{at} {asked}");
            assert_eq!(uid(&answerer, &tcp(TcpStates::SYN_SENT, local, end(of))), None, "{at} {asked}");
        }
        drop(listener);
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let request = tcp(TcpStates::LISTEN, local, end(NOBODY));
        // A process that another test starts has a copy for a moment.
        let is_gone = (0..500).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            uid(&answerer, &request).is_none()
        });
        assert!(is_gone, "{at}");
    }
}

#[test]
fn who_is_connected() {
    let answerer = Answerer::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (here, there) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let asked = |states, local, remote| uid(&answerer, &tcp(states, local, remote));
    let (connected, nobody) = (TcpStates::CONNECTED, end(NOBODY));
    assert_eq!(asked(connected, here, there), Some(me()));
    assert_eq!(asked(TcpStates::ANY, here, there), Some(me()));
    assert_eq!(asked(connected, here, nobody), Some(me()));
    assert_eq!(asked(TcpStates::SYN_SENT, here, there), None, "it is past that");
    assert_eq!(asked(TcpStates::SYN_SENT, here, nobody), None);
    let elsewhere = SocketAddr::new(there.ip(), there.port() ^ 1);
    assert_eq!(asked(connected, here, elsewhere), None);
    // Nobody holds the server's end yet.
    assert_eq!(asked(connected, there, here), None);
    assert_eq!(asked(connected, there, nobody), None);
    let (_accepted, _) = listener.accept().unwrap();
    assert_eq!(asked(connected, there, here), Some(me()));
    assert_eq!(asked(connected, there, nobody), Some(me()));
    // A process that has to be looked at is looked at elsewhere, and all connections of the node are, too.
    let request = Request { flags: Flags::GID.and(Flags::OF_ROOT), ..tcp(connected, here, there) };
    assert!(matches!(answerer.answer(&request), Reply::Later(_)));
    assert!(matches!(answerer.answer(&tcp(connected, here, nobody)), Reply::Later(_)));
    let request = Request { flags: Flags::GID, ..request };
    assert_eq!(matches!(answerer.answer(&request), Reply::Now(Some(_))), me() == 0);
}

/// A connection whose first packet was not answered yet, as a firewall at the other end asks about it.
#[test]
fn who_connects() {
    let tcp_socket = || -> OwnedFd {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap()
    };
    let address = |socket: &OwnedFd| -> SocketAddr {
        let name: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
        SocketAddrV4::from(name).into()
    };
    // One place in its queue: from the third on they wait.
    let full = tcp_socket();
    bind(full.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))).unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let at: SockaddrIn = getsockname(full.as_raw_fd()).unwrap();
    let clients: Vec<OwnedFd> = (0..4)
        .map(|_| {
            let client = tcp_socket();
            let _ = connect(client.as_raw_fd(), &at);
            client
        })
        .collect();
    let answerer = Answerer::open().unwrap();
    let last = address(&clients[3]);
    let request = tcp(TcpStates::SYN_SENT, last, address(&full));
    assert_eq!(uid(&answerer, &request), Some(me()));
    assert_eq!(uid(&answerer, &Request { states: TcpStates::LISTEN, ..request }), None);
    let first = Request { local: address(&clients[0]), ..request };
    assert_eq!(uid(&answerer, &first), None, "that one is through");
}

#[test]
fn datagrams_have_an_owner_if_one_user_has_the_port() {
    let answerer = Answerer::open().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let request = tcp(TcpStates::ANY, socket.local_addr().unwrap(), end(NOBODY));
    let request = Request { protocol: Protocol::Udp, ..request };
    assert_eq!(uid(&answerer, &request), Some(me()));
    let from = Request { remote: end("127.0.0.1:9"), ..request };
    assert_eq!(uid(&answerer, &from), Some(me()));
    drop(socket);
    assert_eq!(uid(&answerer, &request), None);
}
