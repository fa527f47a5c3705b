//! What a question costs as a node fills with other people's sockets and processes. `benches/micro` runs this on a node of its own,
//! a network and a pid namespace, so that what is there is what was put there.

use super::other_users::{Other, PROJECT, listener_of, users};
use super::*;
use crate::firewall::tests::alone;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::ClockId;
use portreeve_model::wire::firewall::{Flow, Transport};
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

const PROCESSES: [usize; 3] = [100, 1_000, 5_000];
const SOCKETS: [usize; 4] = [100, 1_000, 10_000, 50_000];
/// Of one process: far below what a process may open.
const SOCKETS_EACH: usize = 10_000;
const OWN_PROCESSES: usize = 1_000;

#[test]
#[ignore = "measures, with 50,000 sockets and 5,000 processes"]
fn how_the_cost_grows() {
    let Some((alice, _)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let _holder = Other::holds(&listener, alice, PROJECT);
    let stranger = |number: usize| 30_000 + u32::try_from(number % 50).unwrap();
    println!("\n| other people's | owner | group, first look | remembered |\n| --- | --- | --- | --- |");

    let nothing = std::fs::File::open("/dev/null").unwrap();
    let mut crowd = Vec::new();
    let by_processes = PROCESSES.map(|processes| {
        for number in crowd.len()..processes {
            crowd.push(Other::holds(&nothing, stranger(number), PROJECT));
        }
        row(&tuple, &format!("{processes} processes"))
    });
    drop(crowd);

    let (mut crowd, mut count) = (Vec::new(), 0);
    let by_sockets = SOCKETS.map(|sockets| {
        while count < sockets {
            let more = (sockets - count).min(SOCKETS_EACH);
            let mut holder =
                Other::plays(&format!("hold {more}"), stranger(crowd.len()), PROJECT, Stdio::null());
            assert_eq!(holder.says(), "holds");
            crowd.push(holder);
            count += more;
        }
        row(&tuple, &format!("{sockets} sockets"))
    });
    drop(crowd);

    let _own: Vec<Other> = (0..OWN_PROCESSES).map(|_| Other::holds(&nothing, alice, PROJECT)).collect();
    row(&tuple, &format!("none; {OWN_PROCESSES} processes of the owner's own"));
    for costs in [&by_processes[..], &by_sockets[..]] {
        let (first, last) = (costs[0], costs[costs.len() - 1]);
        assert!(last < 2 * first, "the owner's look-up grows with the node: {costs:?}");
    }
}

/// Prints what questions cost now. Returns what the owner's does.
fn row(tuple: &Tuple, what: &str) -> Duration {
    // A new one remembers nothing.
    let lookup = Lookup::open().unwrap();
    let owner = lookup.owner(tuple).unwrap();
    let start = Instant::now();
    let group_at = |seconds| {
        let seen = lookup.with_group_at(tuple, owner, start + Duration::from_secs(seconds));
        assert_eq!(seen.groups, OwnerGroups::Egid(PROJECT));
    };
    let (of_owner, of_first, of_remembered) = (
        cost(5_000, |_| assert_eq!(lookup.owner(tuple), Ok(owner))),
        // Each as late as if nothing was remembered any more.
        cost(30, |time| group_at(1 + 10 * time)),
        cost(1_000, |_| group_at(1 + 10 * 29)),
    );
    let [owner, first, remembered] = [of_owner, of_first, of_remembered].map(|cost| cost.as_secs_f64() * 1e6);
    println!("| {what} | {owner:.1} us | {first:.0} us | {remembered:.0} us |");
    of_owner
}

/// The mean time that this thread had a processor, in user space and in the kernel: it moves less than the time that passes.
fn cost(times: u64, mut ask: impl FnMut(u64)) -> Duration {
    let spent = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
    let before = spent();
    (0..times).for_each(&mut ask);
    (spent() - before) / u32::try_from(times).unwrap()
}

/// Holds so many sockets, both ends of each connection. It is who plays `hold`.
pub(super) fn hold(sockets: usize) -> Vec<(TcpStream, TcpStream)> {
    may_hold_many();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pair =
        |_| (TcpStream::connect(listener.local_addr().unwrap()).unwrap(), listener.accept().unwrap().0);
    (0..sockets / 2).map(pair).collect()
}

/// The same of UDP, all at one address, which has no more than some 28,000 ports to give.
pub(super) fn hold_datagrams(sockets: usize, at: &str) -> Vec<UdpSocket> {
    may_hold_many();
    (0..sockets).map(|_| UdpSocket::bind(at).unwrap()).collect()
}

fn may_hold_many() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[test]
#[ignore = "measures, with 50,000 sockets"]
fn how_the_cost_of_datagrams_grows() {
    alone(&[], || {
        let on = |address: &str| UdpSocket::bind(address).unwrap();
        // On ports that are given to nobody by themselves.
        let (one, other) = (on("127.0.0.1:2001"), on("0.0.0.0:2002"));
        let (from, to) = (one.local_addr().unwrap(), other.local_addr().unwrap().port());
        let flow = Flow { transport: Transport::Udp, from, to: ([127, 0, 0, 1], to).into() };
        let lookup = Lookup::open().unwrap();
        println!("\n| UDP sockets | one by its ends | all that may get it | who sent it | all there are |");
        println!("| --- | --- | --- | --- | --- |");
        let (mut crowd, mut count) = (Vec::new(), 0);
        for sockets in SOCKETS {
            while count < sockets {
                let more = (sockets - count).min(SOCKETS_EACH);
                let holder = format!("hold-datagrams {more} 127.0.{}.1:0", 1 + crowd.len());
                let mut holder = Other::plays(&holder, 30_000, PROJECT, Stdio::null());
                assert_eq!(holder.says(), "holds");
                crowd.push(holder);
                count += more;
            }
            let costs = [
                cost(1_000, |_| assert!(lookup.diag().udp(flow.to, flow.from).unwrap().is_some())),
                cost(200, |_| assert_eq!(lookup.goes_to(&flow, 0).unwrap().len(), 1)),
                cost(200, |_| assert!(lookup.comes_from(&flow).is_ok())),
                cost(20, |_| assert!(lookup.takers((to..).take(100)).unwrap().user(&flow).is_some())),
            ];
            let [one, all, sender, takers] = costs.map(|cost| cost.as_secs_f64() * 1e6);
            println!("| {sockets} | {one:.1} us | {all:.0} us | {sender:.0} us | {takers:.0} us |");
        }
    });
}
