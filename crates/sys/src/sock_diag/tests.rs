use super::*;
use crate::socket_record::Family;
use nix::libc;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

fn pair(address: &str) -> (TcpListener, TcpStream, SocketAddr, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let mut at = listener.local_addr().unwrap();
    if at.ip().is_unspecified() {
        at.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let client = TcpStream::connect(at).unwrap();
    let (local, remote) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    (listener, client, local, remote)
}

fn inode(socket: impl std::os::fd::AsFd) -> u32 {
    let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap());
    u32::try_from(file.metadata().unwrap().ino()).unwrap()
}

#[test]
fn a_connection_before_and_after_accept() {
    let me = nix::unistd::geteuid().as_raw();
    let mut diag = SockDiag::open().unwrap();
    for (address, family) in [("127.0.0.1:0", Family::V4), ("[::1]:0", Family::V6), ("[::]:0", Family::V6)] {
        let (listener, _client, local, remote) = pair(address);
        let waiting = diag.exact(local, remote).unwrap().unwrap();
        assert_eq!((waiting.state, waiting.inode), (TcpState::Established, 0), "{address}");
        assert_eq!((waiting.local, waiting.remote), (local, remote), "{address}");

        let listening = diag.listener(local).unwrap().unwrap();
        assert_eq!((listening.state, listening.uid), (TcpState::Listen, me), "{address}");
        assert_eq!((listening.inode, listening.family), (inode(&listener), family), "{address}");

        let (accepted, _) = listener.accept().unwrap();
        let record = diag.exact(local, remote).unwrap().unwrap();
        assert_eq!((record.state, record.uid), (TcpState::Established, me), "{address}");
        assert_eq!((record.inode, record.cookie), (inode(&accepted), waiting.cookie), "{address}");
        assert_ne!(record.cookie, listening.cookie, "{address}");
    }
}

#[test]
fn the_other_end_is_another_socket() {
    let mut diag = SockDiag::open().unwrap();
    let (_listener, client, local, remote) = pair("127.0.0.1:0");
    let record = diag.exact(remote, local).unwrap().unwrap();
    assert_eq!((record.local, record.remote, record.inode), (remote, local, inode(&client)));
}

#[test]
fn mapped_addresses_ask_for_ipv4() {
    let mut diag = SockDiag::open().unwrap();
    let (_listener, _client, local, remote) = pair("127.0.0.1:0");
    let mapped = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), end.port())),
        IpAddr::V6(_) => end,
    };
    assert_eq!(diag.exact(mapped(local), mapped(remote)).unwrap(), diag.exact(local, remote).unwrap());
    assert_eq!(diag.exact(mapped(local), remote).unwrap(), diag.exact(local, remote).unwrap());
}

#[test]
fn what_is_not_there_is_none_and_the_socket_stays_usable() {
    let mut diag = SockDiag::open().unwrap();
    let (listener, _client, local, remote) = pair("127.0.0.1:0");
    let silent = SocketAddr::from(([127, 0, 0, 9], local.port()));
    for _ in 0..3 {
        assert_eq!(diag.exact(silent, remote).unwrap(), None);
        assert_eq!(diag.listener(silent).unwrap(), None);
        assert_eq!(diag.listener(SocketAddr::from((Ipv6Addr::LOCALHOST, local.port()))).unwrap(), None);
    }
    // Where only a listener fits, the kernel answers with that: the caller has to look.
    let stranger = SocketAddr::from(([127, 0, 0, 7], 9));
    let fallback = diag.exact(local, stranger).unwrap().unwrap();
    assert_eq!(fallback.state, TcpState::Listen);
    assert_ne!(fallback.remote, stranger);
    drop(listener);
    assert_eq!(diag.exact(local, stranger).unwrap(), None);
}

#[test]
fn mixed_families_are_refused() {
    let mut diag = SockDiag::open().unwrap();
    let error = diag.exact("127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_connection_that_has_ended_names_nobody() {
    let mut diag = SockDiag::open().unwrap();
    let (listener, client, local, remote) = pair("127.0.0.1:0");
    drop(listener.accept().unwrap());
    let closing = diag.exact(local, remote).unwrap().unwrap();
    // Which of the two depends on whether the client's ACK was delayed.
    assert!(matches!(closing.state, TcpState::FinWait1 | TcpState::FinWait2), "{closing:?}");
    assert_eq!(closing.inode, 0);
    drop(client);
    let ended = diag.exact(local, remote).unwrap().unwrap();
    assert_eq!((ended.state, ended.uid, ended.inode), (TcpState::TimeWait, 0, 0));
}

#[test]
fn a_listener_that_defers_shows_connections_as_syn_recv() {
    let mut diag = SockDiag::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (seconds, size) = (5u32, 4);
    // SAFETY: the descriptor is open, and the value is `size` bytes of a live u32 that is only read (tcp(7)).
    let set = unsafe {
        let value = std::ptr::from_ref(&seconds).cast();
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, size)
    };
    assert_eq!(set, 0);
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (local, remote) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let waiting = diag.exact(local, remote).unwrap().unwrap();
    assert_eq!((waiting.state, waiting.uid, waiting.inode), (TcpState::SynRecv, 0, 0));
    assert_eq!((waiting.local, waiting.remote), (local, remote));
    assert_eq!(diag.exact(local, remote).unwrap().unwrap().cookie, waiting.cookie);
}

#[test]
fn listening_sockets_of_one_uid_and_of_one_port() {
    let mut diag = SockDiag::open().unwrap();
    let me = nix::unistd::geteuid().as_raw();
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    let six = TcpListener::bind("[::]:0").unwrap();
    let mine = diag.listening(me).unwrap();
    assert!(mine.iter().all(|record| record.uid == me && record.state == TcpState::Listen));
    for listener in [&four, &six] {
        let at = listener.local_addr().unwrap();
        assert!(mine.iter().any(|record| record.local == at && record.inode == inode(listener)), "{at}");
        let on_port = diag.listening_on(at.port()).unwrap();
        assert!(on_port.iter().all(|record| record.local.port() == at.port()));
        assert!(on_port.iter().any(|record| record.inode == inode(listener)));
    }
    assert_eq!(diag.listening(3_999_999_999).unwrap(), []);
}

#[test]
fn how_long_ones_own_port_was_silent() {
    use std::io::{Read, Write};
    let me = nix::unistd::geteuid().as_raw();
    let mut diag = SockDiag::open().unwrap();
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let (listener, mut client, local, _) = pair(address);
        let (mut accepted, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        let silent_for = diag.silent_for(local.port(), me).unwrap().unwrap();
        assert!(silent_for < Duration::from_secs(60), "{address}: {silent_for:?}");
        // What others have there is not looked at.
        assert_eq!(diag.silent_for(local.port(), me + 1).unwrap(), None, "{address}");
        drop((client, accepted));
    }
    let (listener, client, local, _) = pair("127.0.0.1:0");
    drop(client);
    drop(listener);
    assert_eq!(diag.silent_for(local.port(), me).unwrap(), None, "nobody is connected");
}

#[test]
fn a_listener_must_take_the_very_address() {
    let listening = |text: &str, v6only| SocketRecord {
        state: TcpState::Listen,
        family: Family::V6,
        local: text.parse().unwrap(),
        remote: "[::]:0".parse().unwrap(),
        uid: 0,
        inode: 1,
        cookie: 1,
        v6only,
        cgroup: None,
        silent_for: None,
    };
    for (listener, v6only, asked, fits) in [
        ("[::]:80", Some(false), "127.0.0.1:80", true),
        ("[::]:80", Some(true), "127.0.0.1:80", false),
        ("[::]:80", None, "127.0.0.1:80", false),
        ("[::]:80", Some(true), "[::1]:80", true),
        ("0.0.0.0:80", None, "127.0.0.1:80", true),
        ("0.0.0.0:80", None, "[::1]:80", false),
        ("127.0.0.1:80", None, "127.0.0.1:80", true),
        ("127.0.0.1:80", None, "127.0.0.2:80", false),
        ("127.0.0.1:80", None, "127.0.0.1:81", false),
    ] {
        assert_eq!(takes(&listening(listener, v6only), asked.parse().unwrap()), fits, "{listener} {asked}");
    }
}

#[test]
fn answers_to_earlier_questions_are_skipped_and_broken_ones_refused() {
    let done = |sequence: u32, code: i32| {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&20u32.to_ne_bytes());
        bytes.extend_from_slice(&3u16.to_ne_bytes());
        bytes.extend_from_slice(&0u16.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes
    };
    let read = |bytes: &[u8]| read_datagram(bytes, 7, true, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(read(&done(6, 0)), Ok(None)));
    assert!(matches!(read(&done(7, 0)), Ok(Some(Finished::Whole))));
    assert!(matches!(read(&[done(6, 0), done(7, 0)].concat()), Ok(Some(Finished::Whole))));
    assert!(matches!(read(&done(7, -13)), Err(Failure::Refused(_))));
    let whole = done(7, 0);
    for cut in 1..whole.len() {
        assert!(matches!(read(&whole[..cut]), Err(Failure::Broken(_))), "{cut}");
    }
}

/// A figure, not a check: `cargo test -p portreeve-sys --release -- --ignored --nocapture how_long`.
#[test]
#[ignore = "measures"]
fn how_long_a_question_takes() {
    let mut diag = SockDiag::open().unwrap();
    let (_listener, _client, local, remote) = pair("127.0.0.1:0");
    let mut times: Vec<Duration> = (0..20_000)
        .map(|_| {
            let started = Instant::now();
            diag.exact(local, remote).unwrap().unwrap();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("exact: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}

#[test]
fn who_gets_a_datagram() {
    use std::net::UdpSocket;
    let mut diag = SockDiag::open().unwrap();
    let me = nix::unistd::geteuid().as_raw();
    let anybody: SocketAddr = "0.0.0.0:0".parse().unwrap();
    for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let open = UdpSocket::bind(bound).unwrap();
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, open.local_addr().unwrap().port()));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let remote = sender.local_addr().unwrap();
        for from in [remote, anybody] {
            let found = diag.udp(local, from).unwrap().unwrap();
            assert_eq!((found.uid, found.inode), (me, inode(&open)), "{bound}");
        }
        let on_port = diag.udp_on(local.port(), 64).unwrap().unwrap();
        assert!(on_port.iter().any(|record| record.inode == inode(&open)));
        assert_eq!(diag.udp_on(local.port(), 0).unwrap(), None, "more than none");
        // The other way round it is the sender's.
        sender.connect(local).unwrap();
        assert_eq!(diag.udp(remote, local).unwrap().unwrap().inode, inode(&sender), "{bound}");
        // Connected to somebody, it takes nothing of others'.
        let stranger: SocketAddr = "127.0.0.1:9".parse().unwrap();
        assert_eq!(diag.udp(remote, stranger).unwrap(), None, "{bound}");
        drop(open);
        assert_eq!(diag.udp(local, remote).unwrap(), None, "{bound}");
    }
    let six = UdpSocket::bind("[::1]:0").unwrap();
    let found = diag.udp(six.local_addr().unwrap(), "[::1]:9".parse().unwrap()).unwrap().unwrap();
    assert_eq!(found.inode, inode(&six));
}
