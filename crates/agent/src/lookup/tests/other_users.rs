//! What only root can set up: sockets and processes of other users. Without root these tests say so and pass.

use super::*;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(super) const PROJECT: u32 = 20_002;
pub(super) const OTHER_PROJECT: u32 = 20_003;
/// Tells a copy of this test program what to do as another user.
const ROLE: &str = "PORTREEVE_TEST_ROLE";

/// Says aloud that the test which runs in this thread does not run here.
pub(super) fn skip(why: &str) {
    println!("SKIPPED: {}: {why}", std::thread::current().name().unwrap_or_default());
}

/// Uids of this test's own. Tests run side by side, and between fork and exec a child of one test holds the sockets
/// of all: a uid in common would make it a holder.
pub(super) fn users() -> Option<(u32, u32)> {
    static NEXT: AtomicU32 = AtomicU32::new(20_100);
    if !nix::unistd::geteuid().is_root() {
        skip("needs root");
        return None;
    }
    let alice = NEXT.fetch_add(2, Ordering::Relaxed);
    Some((alice, alice + 1))
}

/// A process of another user, ended with the test.
pub(crate) struct Other(pub(super) Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    /// Runs `play` in a copy of this program, as this user.
    pub(super) fn plays(role: &str, uid: u32, gid: u32, stdin: Stdio) -> Self {
        let _alone = FORKS.write().unwrap();
        let name = "lookup::tests::other_users::play";
        // Not by its path, which the other user may not be able to reach.
        let mut command = Command::new("/proc/self/exe");
        command.args([name, "--exact", "--ignored", "--nocapture"]).env(ROLE, role).current_dir("/");
        Self(command.uid(uid).gid(gid).stdin(stdin).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Holds the socket as its standard input, and does nothing.
    pub(crate) fn holds(socket: &impl AsFd, uid: u32, gid: u32) -> Self {
        let _alone = FORKS.write().unwrap();
        let socket = Stdio::from(socket.as_fd().try_clone_to_owned().unwrap());
        let mut command = Command::new("sleep");
        Self(command.arg("300").uid(uid).gid(gid).stdin(socket).spawn().unwrap())
    }

    pub(super) fn says(&mut self) -> String {
        let out = self.0.stdout.as_mut().unwrap();
        let mut lines = BufReader::new(out).lines();
        lines.find_map(|line| Some(line.unwrap().split_once('@')?.1.to_owned())).unwrap()
    }
}

#[test]
#[ignore = "the part of the tests below that runs as another user"]
fn play() {
    let stay = || std::thread::park_timeout(Duration::from_secs(300));
    let inherited = || TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let role = std::env::var(ROLE).unwrap_or_default();
    match role.split_whitespace().collect::<Vec<_>>()[..] {
        ["listen"] => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            println!("@{}", listener.local_addr().unwrap());
            let _accepted = listener.accept().unwrap();
            stay();
        }
        ["accept"] => {
            let _accepted = inherited().accept().unwrap();
            println!("@accepted");
            stay();
        }
        ["hold", sockets] => {
            let _held = super::growth::hold(sockets.parse().unwrap());
            println!("@holds");
            stay();
        }
        ["hold-datagrams", sockets, at] => {
            let _held = super::growth::hold_datagrams(sockets.parse().unwrap(), at);
            println!("@holds");
            stay();
        }
        ["look", client, server] => {
            let tuple = Tuple { client: client.parse().unwrap(), server: server.parse().unwrap() };
            let lookup = Lookup::open().unwrap();
            println!("@{:?}", lookup.with_group(&tuple, lookup.owner(&tuple).unwrap()));
        }
        _ => {}
    }
}

/// A listener of alice's that nobody has to accept from: the test holds it, as root.
pub(super) fn listener_of(uid: u32) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fchown(&listener, Some(uid), None).unwrap();
    listener
}

fn eventually(lookup: &Lookup, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
    for _ in 0..500 {
        match lookup.confirm(tuple, before) {
            Err(Unowned::NotAccepted) => std::thread::park_timeout(Duration::from_millis(10)),
            known => return known,
        }
    }
    panic!("not accepted in time");
}

#[test]
fn another_users_server() {
    let Some((alice, _)) = users() else { return };
    let mut server = Other::plays("listen", alice, PROJECT, Stdio::null());
    let at: SocketAddr = server.says().parse().unwrap();
    let client = TcpStream::connect(at).unwrap();
    let tuple = Tuple { client: client.local_addr().unwrap(), server: at };
    let lookup = Lookup::open().unwrap();
    let before = lookup.owner(&tuple).unwrap();
    assert_eq!(before.uid, alice);
    let after = eventually(&lookup, &tuple, &before).unwrap();
    assert_eq!((after.uid, after.accepted), (alice, true));
    assert_eq!(lookup.with_group(&tuple, after).groups, OwnerGroups::Egid(PROJECT));
}

#[test]
fn a_socket_that_root_made_stays_roots() {
    let Some((alice, _)) = users() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, tuple) = connect(&listener);
    let lookup = Lookup::open().unwrap();
    let before = lookup.owner(&tuple).unwrap();
    assert_eq!(before.uid, 0);
    // Handed to alice, who accepts: now two uids have a part in it.
    let mut acceptor = Other::plays("accept", alice, PROJECT, Stdio::from(OwnedFd::from(listener)));
    acceptor.says();
    let differ = Unowned::OwnersDiffer { listener: 0, accepted: alice };
    assert_eq!(lookup.owner(&tuple), Err(differ.clone()));
    assert_eq!(lookup.confirm(&tuple, &before), Err(differ));
}

#[test]
fn a_waiting_connections_own_uid() {
    let Some((alice, bob)) = users() else { return };
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, tuple) = connect(&listener);
    // The waiting connection keeps uid 0, as older kernels and SYN_RECV show it: no claim, the listener's counts.
    fchown(&listener, Some(alice), None).unwrap();
    let owner = lookup.owner(&tuple).unwrap();
    assert_eq!((owner.uid, owner.accepted), (alice, false));
    // This one keeps alice's, and that is a claim.
    let (_client, tuple) = connect(&listener);
    assert_eq!(lookup.owner(&tuple).unwrap().uid, alice);
    fchown(&listener, Some(bob), None).unwrap();
    assert_eq!(lookup.owner(&tuple), Err(Unowned::OwnersDiffer { listener: bob, accepted: alice }));
}

#[test]
fn a_listener_handed_to_somebody_else() {
    let Some((alice, bob)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let lookup = Lookup::open().unwrap();
    let before = lookup.owner(&tuple).unwrap();
    assert_eq!((before.uid, before.accepted), (alice, false));
    let mut acceptor = Other::plays("accept", bob, PROJECT, Stdio::from(OwnedFd::from(listener)));
    acceptor.says();
    let differ = Unowned::OwnersDiffer { listener: alice, accepted: bob };
    assert_eq!(lookup.owner(&tuple), Err(differ.clone()));
    assert_eq!(lookup.confirm(&tuple, &before), Err(differ));
    let groups = lookup.with_group(&tuple, before).groups;
    assert_eq!(groups, OwnerGroups::Unknown(UnknownGroup::NoHolderSeen));
}

#[test]
fn a_port_that_went_to_somebody_else_after_accept() {
    let _quiet = FORKS.read().unwrap();
    let Some((alice, bob)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let lookup = Lookup::open().unwrap();
    let before = lookup.owner(&tuple).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    fchown(&accepted, Some(alice), None).unwrap();
    drop(listener);
    assert_eq!(lookup.confirm(&tuple, &before), Ok(Owner { accepted: true, ..before }));
    let bobs = TcpListener::bind(tuple.server).unwrap();
    fchown(&bobs, Some(bob), None).unwrap();
    let differ = Unowned::OwnersDiffer { listener: bob, accepted: alice };
    assert_eq!(lookup.owner(&tuple), Err(differ.clone()));
    assert_eq!(lookup.confirm(&tuple, &before), Err(differ));
}

#[test]
fn the_kernels_stand_in_for_unknown_uids_owns_nothing() {
    let Some(_) = users() else { return };
    let lookup = Lookup::open().unwrap();
    let listener = listener_of(lookup.nobody);
    let (_client, tuple) = connect(&listener);
    assert!(matches!(lookup.owner(&tuple), Err(Unowned::Lookup(_))));
}
