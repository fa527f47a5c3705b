//! A connection of their own: new sockets, and those that they hold.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_tests::hostile::{Denied, Lead, Order};
use portreeve_tests::world::hostile::Taken;
use portreeve_tests::world::site::{ADDRESS, SiteApp, outside};

/// Of c1.
const NODE: &str = "10.77.0.11";

fn on_c1(app: &SiteApp) -> SocketAddr {
    SocketAddr::new(NODE.parse().unwrap(), app.port())
}

#[track_caller]
fn denied(result: &Result<String, Denied>, errno: Errno, what: &str) {
    let found = result.as_ref().err().and_then(|denied| denied.errno).map(Errno::from_raw);
    assert_eq!(found, Some(errno), "{what}: {result:?}");
}

/// A browser's connection, which the attacker accepted as `into`.
fn browser(taken: &Taken<'_>, into: &str) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect((ADDRESS, 443)).unwrap();
    taken.done(&Order::Accept { listener: "https".to_owned(), into: into.to_owned() });
    stream
}

/// Waits until the victim has had so many connections.
fn reached(victim: &mut SiteApp, times: usize) {
    let started = Instant::now();
    while victim.report().taken < times {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the attack does not even work where nothing holds it"
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(victim.report().taken, times);
}

fn new_sockets(taken: &Taken<'_>, victim: SocketAddr) {
    let refused = [Errno::EPERM, Errno::EAFNOSUPPORT];
    for family in 0..46 {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET, libc::SOCK_RAW] {
            let is_channel =
                family == libc::AF_UNIX && [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].contains(&kind);
            for pair in [false, true] {
                let made = taken.try_to(&Order::Socket { family, kind, pair });
                if is_channel && pair {
                    assert!(made.is_ok(), "its channels: {made:?}");
                    continue;
                }
                let errno = made.as_ref().err().and_then(|denied| denied.errno).map(Errno::from_raw);
                assert!(
                    errno.is_some_and(|errno| refused.contains(&errno)),
                    "{family} {kind} {pair}: {made:?}"
                );
            }
        }
    }
    for listen in [false, true] {
        assert!(taken.try_to(&Order::Tcp { to: victim, listen }).is_err());
    }
    for path in [
        "/run/portreeve/login.sock",
        "/run/portreeve/portal.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/notify",
        "/run/systemd/journal/socket",
        "/run/systemd/journal/stdout",
        "@anything",
    ] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            denied(&taken.try_to(&Order::ConnectUnix { kind, path: path.to_owned() }), Errno::EPERM, path);
        }
        denied(&taken.try_to(&Order::SendUnix { path: path.to_owned() }), Errno::EPERM, path);
    }
}

#[test]
fn no_connection_of_its_own() {
    outside("no_connection_of_its_own", |site| async {
        let mut victim = site.app("c1", "bob", None, "0.0.0.0:0");
        let mut own = site.app("c1", "alice", None, "0.0.0.0:0");
        let taken = site.taken_over();
        let to = on_c1(&victim);

        // Where the unit alone holds it: no new socket to the network or to anything on this machine, but what it was given belongs to the
        // machine's network, and can be led anywhere. That is what the portal locks itself up for.
        for path in [
            "/run/portreeve/login.sock",
            "/run/dbus/system_bus_socket",
            "/run/systemd/notify",
            "/run/systemd/journal/stdout",
        ] {
            for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
                denied(
                    &taken.try_to(&Order::ConnectUnix { kind, path: path.to_owned() }),
                    Errno::ENOENT,
                    path,
                );
            }
            denied(&taken.try_to(&Order::SendUnix { path: path.to_owned() }), Errno::ENOENT, path);
        }
        let _visitor = browser(&taken, "browser");
        taken.done(&Order::Lead { socket: "browser".to_owned(), how: Lead::Reconnect, to });
        reached(&mut victim, 1);
        // A listener that was shut down could be led as well (`sys/src/sandbox/tests.rs`). Not here: systemd, which listens on it, too,
        // would be woken by it without end, and do nothing else.
        let _shut_down = browser(&taken, "shut down");
        taken.done(&Order::Lead { socket: "shut down".to_owned(), how: Lead::ShutDown, to });

        taken.done(&Order::LockUp);
        new_sockets(&taken, to);
        // What it holds: a browser's connection, one that alice's dialer made, a listener, and what was shut down before.
        taken.take_line("line");
        let (_, ticket) = taken.sign_in("alice");
        taken.pair(libc::SOCK_SEQPACKET, "dialer");
        assert_eq!(
            taken.ask_with("line", Question::Dialer { ticket }, &["dialer-there"]).0,
            Some(Answer::Done)
        );
        taken.done(&Order::Dial { channel: "dialer".to_owned(), to: on_c1(&own), into: "dialed".to_owned() });
        reached(&mut own, 1);
        let _another = browser(&taken, "another");
        for socket in ["another", "dialed", "https", "shut down"] {
            for (how, result) in taken.lead_everywhere(socket, to) {
                let what = format!("{socket}, {how:?}");
                match (how, socket) {
                    // TCP looks at no address here (tcp(7)): it goes to whom it is connected with, if it is.
                    (Lead::AddressedMessage, "another" | "dialed") => assert!(result.is_ok(), "{what}"),
                    (Lead::AddressedMessage, _) => denied(&result, Errno::EPIPE, &what),
                    _ => denied(&result, Errno::EPERM, &what),
                }
            }
        }
        denied(
            &taken.try_to(&Order::NamespaceOf("another".to_owned())),
            Errno::EPERM,
            "the machine's network",
        );
        assert_eq!((victim.report().taken, own.report().taken), (1, 1), "somebody was reached");
    });
}
