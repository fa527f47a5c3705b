//! What becomes of real packets.

use super::queue::AcceptsAll;
use super::{alone, rules, shell, skip};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

const INSTALL: &str = "install --backend iptables --without-daemon --protect 9000";
/// How long a packet is waited for that is not to come. On the loopback interface one that comes is there at once.
const NEVER: Duration = Duration::from_millis(250);
/// The same for one that is to come, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(10);
const BOTH: [&str; 2] = ["127.0.0.1", "[::1]"];

fn at(host: &str, port: u16) -> SocketAddr {
    format!("{host}:{port}").parse().unwrap()
}

fn connects(to: SocketAddr) {
    TcpStream::connect_timeout(&to, SOON).unwrap_or_else(|error| panic!("{to}: {error}"));
}

/// No connection comes about, and nobody says why.
fn is_silent(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, NEVER).is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

/// Whether a datagram of this many bytes arrives.
fn arrives(host: &str, length: usize, patience: Duration) -> bool {
    let there = UdpSocket::bind(at(host, 0)).unwrap();
    there.set_read_timeout(Some(patience)).unwrap();
    let from = UdpSocket::bind(at(host, 0)).unwrap();
    from.send_to(&vec![1; length], there.local_addr().unwrap()).unwrap();
    let mut buffer = vec![0; length + 1];
    match there.recv(&mut buffer) {
        Ok(read) => read == length,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

/// Data goes both ways.
fn lives(one: &mut TcpStream, other: &mut TcpStream) {
    for _ in 0..3 {
        one.write_all(b"a").unwrap();
        other.read_exact(&mut [0]).unwrap();
        other.write_all(b"b").unwrap();
        one.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn what_is_open_goes_on_and_nothing_new_begins() {
    alone("packets::what_is_open_goes_on_and_nothing_new_begins", || {
        for host in BOTH {
            let listeners = [5000, 9000, 6818, 900].map(|port| TcpListener::bind(at(host, port)).unwrap());
            // Nothing has needed conntrack so far: of this connection it knows nothing when the rules come.
            let mut one = TcpStream::connect(at(host, 5000)).unwrap();
            let mut other = listeners[0].accept().unwrap().0;
            for end in [&one, &other] {
                end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            }
            lives(&mut one, &mut other);
            assert!(arrives(host, 100, SOON));

            rules(INSTALL).well();
            lives(&mut one, &mut other);
            assert!(is_silent(at(host, 5000)), "a new connection");
            assert!(!arrives(host, 100, NEVER), "a datagram");
            for protected in [9000, 6818, 900] {
                connects(at(host, protected));
            }
            lives(&mut one, &mut other);
            // Put in place again, with another rule: the same.
            rules(&format!("{INSTALL},9001")).well();
            lives(&mut one, &mut other);
            assert!(is_silent(at(host, 5000)));

            rules("remove").well();
            lives(&mut one, &mut other);
            connects(at(host, 5000));
            assert!(arrives(host, 100, SOON));
        }
    });
}

#[test]
fn what_the_queue_accepts_the_sites_rules_still_decide() {
    alone("packets::what_the_queue_accepts_the_sites_rules_still_decide", || {
        for program in ["iptables", "ip6tables"] {
            shell(&format!("{program} -A INPUT -p tcp --dport 5001 -j DROP"));
        }
        let queue = AcceptsAll::of(0);
        rules("install --backend iptables --queues 0-1").refused("nobody serves queue 1:");
        rules("install --backend iptables").well();
        let other = AcceptsAll::of(1);
        for host in BOTH {
            let _listeners = [5000, 5001].map(|port| TcpListener::bind(at(host, port)).unwrap());
            let before = queue.accepted();
            connects(at(host, 5000));
            assert_eq!(queue.accepted(), before + 1, "one packet of a connection is asked about");
            assert!(is_silent(at(host, 5001)), "the site's own rule");
            assert!(queue.accepted() > before + 1);
            // Datagrams, until there is an answer.
            let [one, two] = [0; 2].map(|port| UdpSocket::bind(at(host, port)).unwrap());
            for end in [&one, &two] {
                end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            }
            let (here, there) = (one.local_addr().unwrap(), two.local_addr().unwrap());
            let before = queue.accepted();
            for _ in 0..3 {
                one.send_to(b"x", there).unwrap();
                two.recv(&mut [0; 9]).unwrap();
            }
            assert_eq!(queue.accepted(), before + 6, "when it leaves, and when it is there");
            for _ in 0..3 {
                two.send_to(b"x", here).unwrap();
                one.recv(&mut [0; 9]).unwrap();
                one.send_to(b"x", there).unwrap();
                two.recv(&mut [0; 9]).unwrap();
            }
            assert_eq!(queue.accepted(), before + 6, "an established flow");
        }
        rules("install --backend iptables --queues 0-1").well();
        let _listener = TcpListener::bind(at("127.0.0.1", 5000)).unwrap();
        connects(at("127.0.0.1", 5000));
        drop((queue, other));
        assert!(is_silent(at("127.0.0.1", 5000)), "with nobody to ask");
    });
}

#[test]
fn fragments_and_other_protocols_are_no_way_around() {
    let name = "packets::fragments_and_other_protocols_are_no_way_around";
    alone(name, || {
        shell("ip link set lo mtu 1500");
        for host in BOTH {
            assert!(arrives(host, 9000, SOON), "in fragments");
        }
        rules(INSTALL).well();
        for host in BOTH {
            assert!(!arrives(host, 9000, NEVER), "in fragments");
        }
        for (family, host) in [(AddressFamily::INET, BOTH[0]), (AddressFamily::INET6, BOTH[1])] {
            let udp_lite = || {
                let made =
                    socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(ipproto::UDPLITE))
                        .ok()?;
                rustix::net::bind(&made, &at(host, 0)).unwrap();
                Some(UdpSocket::from(made))
            };
            let (Some(one), Some(other)) = (udp_lite(), udp_lite()) else {
                return skip(name, "UDP-Lite: not in this kernel");
            };
            let patience = |patience| other.set_read_timeout(Some(patience)).unwrap();
            let to = other.local_addr().unwrap();
            patience(NEVER);
            one.send_to(b"x", to).unwrap();
            assert!(other.recv(&mut [0; 9]).is_err(), "UDP-Lite");
            patience(SOON);
            rules(&format!("{INSTALL} --other-protocols allow")).well();
            one.send_to(b"x", to).unwrap();
            assert!(other.recv(&mut [0; 9]).is_ok(), "UDP-Lite");
            rules(INSTALL).well();
        }
    });
}

#[test]
fn a_port_that_was_reset_is_asked_about_for_its_next_owner() {
    alone("packets::a_port_that_was_reset_is_asked_about_for_its_next_owner", || {
        // So that conntrack is there before, keeps what was closed for long enough, and tells what it thinks of a SYN.
        shell(
            "iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
             iptables -t mangle -A PREROUTING -p tcp --syn --dport 5000 -m conntrack --ctstate ESTABLISHED
             echo 60 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close",
        );
        let connect = || {
            let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
            let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
            setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
            setsockopt(&socket, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(1, 0)).unwrap();
            rustix::net::bind(&socket, &at("127.0.0.1", 40_000)).unwrap();
            rustix::net::connect(&socket, &at("127.0.0.1", 5000)).map(|()| socket)
        };
        let listener = TcpListener::bind(at("127.0.0.1", 5000)).unwrap();
        let mine = connect().unwrap();
        let accepted = listener.accept().unwrap().0;
        setsockopt(&accepted, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop((accepted, listener, mine));

        rules(INSTALL).well();
        let _victim = TcpListener::bind(at("127.0.0.1", 5000)).unwrap();
        assert!(connect().is_err(), "it got past the queue");
        let counted = shell("iptables -t mangle -L PREROUTING -v -n -x");
        let packets = counted.lines().last().unwrap().split_ascii_whitespace().next().unwrap();
        assert_ne!(packets, "0", "the kernel took it for established: {counted}");
        rules("remove").well();
        assert!(connect().is_ok(), "it would get past, without");
    });
}
