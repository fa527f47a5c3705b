//! The portal's lookup by a site's ident2 service: real services between two machines, the broker that hands a connection
//! with one over, and services that lie. As root, with the people whom `tests/run` makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect as connect_to, listen, socket,
};
use portreeve_model::config::LookupConfig;
use portreeve_model::wire::broker::{Answer, Ident2Line, Question};
use portreeve_model::wire::ident2::{Found, Message, QUESTION, Request, TcpStates, parse};
use portreeve_model::{NodeMap, Owner, OwnerGroups, Tuple, UnknownGroup, Unowned};
use portreeve_portal::agents::{Agents, Rules};
use portreeve_portal::lookup::Lookup;
use portreeve_tests::world::chain::{Cluster, SERVICE, Workers, pair, with_cluster};
use portreeve_tests::world::spawner::{eventually, hear, signal};
use portreeve_tests::world::{
    ForeignApp, Node, at, built_if_possible, connect, gid, in_a_network, people, until,
};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// `portreeve-agent ident2`, killed with its value.
struct Service {
    program: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Service {
    /// In this thread's network, or that of a node; it believes these.
    async fn start(on: Option<&Node>, peers: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        Self::at(dir, socket, on, peers).await
    }

    async fn at(dir: tempfile::TempDir, socket: PathBuf, on: Option<&Node>, peers: &[&str]) -> Self {
        let config = dir.path().join("ident2.toml");
        std::fs::write(&config, format!("socket = {socket:?}\npeers = {peers:?}\n")).unwrap();
        let mut command = Command::new("nsenter");
        let namespace = on.map_or(Path::new("/proc/thread-self/ns/net"), Node::namespace);
        command.arg(format!("--net={}", namespace.display()));
        command
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(built_if_possible("portreeve-agent").unwrap());
        command.arg("ident2").arg("--config").arg(&config);
        let program = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let service = Self { program, socket, _dir: dir };
        until("the service begins", PATIENCE, async || connected(&service.socket)).await;
        service
    }
}

fn connected(path: &Path) -> Option<OwnedFd> {
    let line = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect_to(line.as_raw_fd(), &UnixAddr::new(path).unwrap()).ok().map(|()| line)
}

/// The portal's lookup, for a node of these addresses.
fn lookup(addresses: &[&str]) -> Arc<Lookup> {
    let nodes = format!("[[node]]\nname = 'c1'\naddresses = {addresses:?}\non_portal = true\n");
    let nodes = NodeMap::parse(&nodes, "nodes.toml").unwrap();
    let rules = Rules { key: None, nodes, plain_networks: Vec::new() };
    let agents = Arc::new(Agents::new(rules, tokio::sync::mpsc::channel(1).0).unwrap());
    Arc::new(Lookup::new(&LookupConfig::Ident2("/unused".into()), agents))
}

/// Gives it this connection.
fn serve(lookup: &Arc<Lookup>, line: OwnedFd) -> JoinHandle<String> {
    let lookup = Arc::clone(lookup);
    tokio::spawn(async move {
        let Lookup::Ident2(ident2) = &*lookup else { panic!() };
        ident2.client().serve(line).await.unwrap()
    })
}

fn is_unknown(owner: &Result<Owner, Unowned>) -> bool {
    matches!(owner, Err(Unowned::Lookup(_)))
}

#[test]
fn the_owner_is_found_by_the_services_of_two_machines() {
    let test = "the_owner_is_found_by_the_services_of_two_machines";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    in_a_network(test, async move |lan| {
        let node = lan.node("c1").await;
        lan.cable(&node, &["10.77.1.1/24", "fd77:1::1/64"], &["10.77.1.2/24", "fd77:1::2/64"]);
        let both = ["10.77.1.0/24", "fd77:1::/64"];
        let (ours, theirs) = (Service::start(None, &both).await, Service::start(Some(&node), &both).await);
        let lookup = lookup(&["10.77.1.2", "fd77:1::2"]);
        let serving = serve(&lookup, connected(&ours.socket).unwrap());

        for (listen, person, reached_at) in
            [("0.0.0.0:9001", &alice, &["10.77.1.2"][..]), ("[::]:9002", &bob, &["10.77.1.2", "fd77:1::2"])]
        {
            let app = node.app(person, listen, &[]);
            for address in reached_at {
                let (_stream, tuple) = connect(at(address, app.port())).await;
                let owner = lookup.owner(&tuple).await.unwrap();
                assert_eq!((owner.uid, owner.groups), (person.uid, OwnerGroups::NotLooked), "{address}");
                assert!(!owner.accepted, "it is to be judged again");
                let confirmed =
                    until("it is accepted", PATIENCE, async || lookup.confirm(&tuple, &owner).await.ok());
                let confirmed = confirmed.await;
                assert_eq!((confirmed.uid, confirmed.accepted), (person.uid, true));
                // As if somebody else had been seen before.
                let other = Owner { uid: 20_009, ..owner };
                let differs = Unowned::OwnersDiffer { listener: 20_009, accepted: person.uid };
                assert_eq!(lookup.confirm(&tuple, &other).await, Err(differs));
            }
        }
        // By the group.
        let app = node.app(&alice.clone().under("proj"), "10.77.1.2:9003", &[]);
        let (_stream, tuple) = connect(at("10.77.1.2", app.port())).await;
        let owner = lookup.owner(&tuple).await.unwrap();
        let shared = until("its group", PATIENCE, async || {
            let owner = lookup.with_group(&tuple, owner).await.unwrap();
            owner.accepted.then_some(owner)
        })
        .await;
        assert_eq!(shared.groups, OwnerGroups::Egid(gid("proj").as_raw()));
        // One that nobody accepts: it may be alice's, and never is by evidence.
        let deaf = node.app(&alice, "10.77.1.2:9004", &["--deaf"]);
        let (_stream, tuple) = connect(at("10.77.1.2", deaf.port())).await;
        let waiting = lookup.owner(&tuple).await.unwrap();
        assert_eq!((waiting.uid, waiting.accepted), (alice.uid, false));
        assert_eq!(lookup.confirm(&tuple, &waiting).await, Err(Unowned::ListenerOnly));
        assert!(!lookup.listens_still(&tuple, waiting.listener).await);
        // Root's; nobody's; an address that is of no node.
        let roots = node.app(&portreeve_tests::world::Person::root().unwrap(), "10.77.1.2:9005", &[]);
        let (_stream, tuple) = connect(at("10.77.1.2", roots.port())).await;
        assert_eq!(lookup.owner(&tuple).await, Err(Unowned::NoSuchConnection));
        let nothing = Tuple { server: at("10.77.1.2", 9999), ..tuple };
        assert_eq!(lookup.owner(&nothing).await, Err(Unowned::NoSuchConnection));
        assert!(is_unknown(&lookup.owner(&Tuple { server: at("10.77.1.7", 9001), ..tuple }).await));
        // The node's service dies, and then our own.
        drop(theirs);
        assert!(is_unknown(&lookup.owner(&tuple).await));
        drop(ours);
        serving.await.unwrap();
        assert!(is_unknown(&lookup.owner(&tuple).await));
    });
}

/// Asks the broker for a connection, as the portal does.
async fn handed(portal: &mut portreeve_tests::world::chain::Portal) -> Result<OwnedFd, Answer> {
    let (ours, theirs) = pair(SockType::SeqPacket);
    match portal.ask_with(Question::Ident2, Some(theirs)).await {
        Answer::Done => Ok(hear::<Ident2Line>(&ours).1.pop().unwrap()),
        answer => Err(answer),
    }
}

/// Has the broker read that ident2 is asked, and there.
async fn configured(cluster: &Cluster, portal: &mut portreeve_tests::world::chain::Portal) -> PathBuf {
    let path = cluster.etc.path("ident2.sock");
    cluster.configure(&format!("[agents]\nlookup = \"ident2\"\nident2_socket = {path:?}\n"));
    signal(cluster.pid(), Signal::SIGHUP);
    let began = Instant::now();
    loop {
        match handed(portal).await {
            Err(Answer::Failed { why }) if why.contains("can't be reached") => return path,
            Err(Answer::Failed { .. }) if began.elapsed() < PATIENCE => {}
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_broker_hands_a_connection_over_again_and_again() {
    let test = "the_broker_hands_a_connection_over_again_and_again";
    let Some([alice]) = people(test, ["alice"]) else { return };
    with_cluster(test, SERVICE, Workers::StandIn, async |mut cluster| {
        let mut portal = cluster.portal().await;
        let refused = handed(&mut portal).await.unwrap_err();
        assert!(matches!(&refused, Answer::Failed { why } if why.contains("configuration")), "{refused:?}");
        let path = configured(&cluster, &mut portal).await;
        let (lookup, app) = (lookup(&["127.0.0.1"]), ForeignApp::of(&alice));
        let (_stream, tuple) = connect(at("127.0.0.1", app.port())).await;
        for round in 0..2 {
            let service = Service::at(tempfile::tempdir().unwrap(), path.clone(), None, &[]).await;
            let serving = serve(&lookup, handed(&mut portal).await.unwrap());
            assert_eq!(lookup.owner(&tuple).await.unwrap().uid, alice.uid, "{round}");
            // The one that is handed over takes the place of the one before.
            let next = handed(&mut portal).await.unwrap();
            serving.await.unwrap();
            let serving = serve(&lookup, next);
            assert_eq!(lookup.owner(&tuple).await.unwrap().uid, alice.uid, "{round}");
            drop(service);
            serving.await.unwrap();
            assert!(is_unknown(&lookup.owner(&tuple).await), "{round}");
            eventually("nobody is there", || connected(&path).is_none().then_some(()));
            let refused = handed(&mut portal).await.unwrap_err();
            assert!(matches!(refused, Answer::Failed { .. }), "{refused:?}");
        }
    })
    .await;
}

/// What a service that lies does with each question.
enum Does {
    Says(u32),
    SaysLate(u32),
    Sends(&'static [u8]),
    Closes,
}

/// Runs such a service there.
fn lying(path: &Path, does: impl Fn(&Request) -> Does + Send + 'static) -> JoinHandle<()> {
    let _ = std::fs::remove_file(path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listening = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    bind(listening.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listening, Backlog::new(8).unwrap()).unwrap();
    let listening = UnixListener::from_std(StdUnixListener::from(listening)).unwrap();
    tokio::spawn(async move {
        loop {
            let (peer, _) = listening.accept().await.unwrap();
            let mut buffer = [0; QUESTION + 1];
            loop {
                peer.readable().await.unwrap();
                let request = match peer.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => match parse(&buffer[..length]) {
                        Ok(Message::Question(request)) => request,
                        other => panic!("{other:?}"),
                    },
                    Err(_) => continue,
                };
                let says = |uid| {
                    let found = Found { uid, gid: Some(uid), pid: Some(1), groups: None };
                    request.answer(Some(found)).to_bytes()
                };
                let answer = match does(&request) {
                    Does::Says(uid) => says(uid),
                    Does::SaysLate(uid) => {
                        tokio::time::sleep(Duration::from_secs(3)).await;
                        says(uid)
                    }
                    Does::Sends(bytes) => bytes.to_vec(),
                    Does::Closes => break,
                };
                let _ = peer.try_write(&answer);
            }
        }
    })
}

#[tokio::test]
async fn a_service_that_lies_is_late_or_mad_lets_nobody_in() {
    let test = "a_service_that_lies_is_late_or_mad_lets_nobody_in";
    with_cluster(test, SERVICE, Workers::StandIn, async |mut cluster| {
        let mut portal = cluster.portal().await;
        let path = configured(&cluster, &mut portal).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_stream, tuple) = connect(listener.local_addr().unwrap()).await;
        // Late, mad, closing: no owner, and no confirmation of one.
        let unknown: [fn(&Request) -> Does; 4] = [
            |_| Does::SaysLate(20_001),
            |_| Does::Sends(&[4; 33]),
            |request| Does::Sends(if request.query_id == 0 { &[0] } else { &[9; 60] }),
            |_| Does::Closes,
        ];
        for does in unknown {
            let (service, lookup) = (lying(&path, does), lookup(&["127.0.0.1"]));
            let serving = serve(&lookup, handed(&mut portal).await.unwrap());
            assert!(is_unknown(&lookup.owner(&tuple).await));
            serving.abort();
            service.abort();
            let _ = service.await;
        }
        // Uid 0 everywhere; somebody else once it is accepted; somebody else than who listens.
        let service = lying(&path, |_| Does::Says(0));
        let by_root = lookup(&["127.0.0.1"]);
        let serving = serve(&by_root, handed(&mut portal).await.unwrap());
        assert_eq!(by_root.owner(&tuple).await, Err(Unowned::NoSuchConnection));
        serving.abort();
        service.abort();
        let _ = service.await;

        let asked = std::sync::atomic::AtomicU32::new(0);
        let service = lying(&path, move |_| {
            Does::Says(20_001 + asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        });
        let fickle = lookup(&["127.0.0.1"]);
        let _serving = serve(&fickle, handed(&mut portal).await.unwrap());
        let owner = fickle.owner(&tuple).await.unwrap();
        assert_eq!((owner.uid, owner.groups, owner.accepted), (20_001, OwnerGroups::NotLooked, false));
        let differs = |accepted| Err(Unowned::OwnersDiffer { listener: 20_001, accepted });
        assert_eq!(fickle.confirm(&tuple, &owner).await, differs(20_002));
        assert_eq!(fickle.with_group(&tuple, owner).await, differs(20_003));
        service.abort();
        let _ = service.await;

        let service = lying(&path, |request| match request.states {
            TcpStates::LISTEN => Does::Says(20_001),
            _ => Does::Says(0),
        });
        let listening = lookup(&["127.0.0.1"]);
        let _serving = serve(&listening, handed(&mut portal).await.unwrap());
        let owner = listening.owner(&tuple).await.unwrap();
        assert_eq!(listening.confirm(&tuple, &owner).await, Err(Unowned::ListenerOnly));
        let owner = Owner { groups: OwnerGroups::Unknown(UnknownGroup::NoHolderSeen), ..owner };
        assert_eq!(listening.confirm(&tuple, &owner).await, Err(Unowned::ListenerOnly));
        service.abort();
    })
    .await;
}
