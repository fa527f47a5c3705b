//! The real worker at the end of the real chain: who it is, whom it answers, when it leaves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::SockType;
use portreeve_model::wire::agent::Row;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::worker::{NodeView, Nodes, Reader, Rows, TICKET, VISIT, Visit, WORKSPACE};
use portreeve_model::wire::{ControlReply, ControlRequest};
use portreeve_model::{NodeName, Secret, UserName};
use portreeve_tests::world::chain::{Cluster, Portal, SERVICE, Workers, pair, signed_in, with_cluster};
use portreeve_tests::world::etc::has_module;
use portreeve_tests::world::skip;
use portreeve_tests::world::spawner::{
    children_of, descriptors_of, eventually, helper, is_alive, signal, status_of,
};
use tokio::time::sleep;

const ALICE: u32 = 20001;
const DAVE: u32 = 20004;
const PATIENCE: Duration = Duration::from_secs(20);
/// A PAM service that says what a session has: its limits, and its environment.
const LIMITED: &str = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n\
    session required pam_limits.so conf=DIR/limits\n\
    session required pam_env.so envfile=DIR/environment conffile=/dev/null\n";

async fn check(name: &str, workers: Workers, test: impl AsyncFnOnce(Cluster)) {
    with_cluster(name, SERVICE, workers, test).await;
}

/// The workers that run, by uid.
fn workers(cluster: &Cluster) -> BTreeMap<u32, u32> {
    fn below(pid: u32, found: &mut BTreeMap<u32, u32>) {
        for child in children_of(pid) {
            let status = status_of(child);
            let is_worker =
                status.get("Name").is_some_and(|name| name == "portreeve-worke" || name == "worker");
            // Before it is the user it is no worker yet.
            if let Some(uid) = status.get("Uid").and_then(|ids| ids.split('\t').next()?.parse().ok())
                && is_worker
                && uid != 0
                && is_alive(child)
            {
                found.insert(uid, child);
            }
            below(child, found);
        }
    }
    let mut found = BTreeMap::new();
    below(cluster.pid(), &mut found);
    found
}

/// One more connection of this session's worker, or why there is none.
async fn try_to_connect(portal: &mut Portal, ticket: &Secret) -> Result<UnixStream, Answer> {
    let (ours, theirs) = pair(SockType::Stream);
    match portal.ask_with(Question::Worker { ticket: ticket.clone() }, Some(theirs)).await {
        Answer::Done => {
            let stream = UnixStream::from(ours);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Ok(stream)
        }
        other => Err(other),
    }
}

async fn connect(portal: &mut Portal, ticket: &Secret) -> UnixStream {
    try_to_connect(portal, ticket).await.unwrap()
}

/// Tries again while the broker lets one that died at once rest.
async fn connect_in_the_end(portal: &mut Portal, ticket: &Secret) -> UnixStream {
    let began = Instant::now();
    loop {
        match try_to_connect(portal, ticket).await {
            Ok(stream) => return stream,
            Err(Answer::Failed { .. }) if began.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(50)).await
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn visit(user: &str) -> String {
    let visit = Visit {
        user: UserName::parse(user).unwrap(),
        origin: "https://portal".to_owned(),
        own_origins: None,
        shared_origin: None,
        modes: BTreeMap::new(),
        page_secret: None,
        reader: Reader::Window,
    };
    data_encoding::BASE64URL_NOPAD.encode(&serde_json::to_vec(&visit).unwrap())
}

fn nodes() -> Nodes {
    let row = Row {
        address: "0.0.0.0".parse().unwrap(),
        port: 8888,
        command: Some("jupyter-lab".to_owned()),
        job: Some(4711),
    };
    let node = NodeView {
        node: NodeName::parse("c1").unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        listening: Ok(Rows { rows: vec![row], more: false }),
    };
    Nodes { own_port: None, not_understood: None, nodes: Some(vec![node]) }
}

/// Asks for the page: status and body; `None` when the connection ends without a byte of an answer.
fn ask(connection: &mut UnixStream, user: &str, ticket: &Secret) -> Option<(u16, String)> {
    let body = serde_json::to_string(&nodes()).unwrap();
    let request = format!(
        "POST {WORKSPACE} HTTP/1.1\r\nhost: worker\r\n{TICKET}: {}\r\n{VISIT}: {}\r\ncontent-length: {}\r\n\r\n{body}",
        ticket.reveal(),
        visit(user),
        body.len()
    );
    let _ = connection.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let (head, length) = loop {
        match connection.read(&mut chunk) {
            Ok(0) if bytes.is_empty() => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset && bytes.is_empty() => return None,
            read => bytes.extend_from_slice(&chunk[..read.unwrap()]),
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            break (end + 4, length.parse::<usize>().unwrap());
        }
    };
    while bytes.len() < head + length {
        let more = connection.read(&mut chunk).unwrap();
        assert!(more > 0, "half an answer");
        bytes.extend_from_slice(&chunk[..more]);
    }
    let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
    Some((status, String::from_utf8(bytes[head..].to_vec()).unwrap()))
}

/// Whether the other end closes it.
fn is_closed(connection: &mut UnixStream) -> bool {
    match connection.read(&mut [0; 16]) {
        Ok(0) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}

fn forward(cluster: &Cluster, name: &str, uid: u32) {
    let file = cluster.etc.path("forwards").join(name);
    std::fs::write(&file, "http://c1:12001/\n").unwrap();
    std::os::unix::fs::chown(&file, Some(uid), Some(uid)).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).unwrap();
}

/// Dave has no password: from an address that the broker gave him.
async fn dave(cluster: &Cluster, portal: &mut Portal) -> Secret {
    let address: ControlReply = cluster.ask(DAVE, &ControlRequest::Login);
    signed_in(portal.enter(address).await).1
}

#[tokio::test]
async fn the_first_page_is_made_as_the_user() {
    let name = "the_first_page_is_made_as_the_user";
    if !has_module("pam_limits.so") || !has_module("pam_env.so") {
        return skip(name, "needs pam_limits and pam_env");
    }
    with_cluster(name, LIMITED, Workers::Real, async |mut cluster| {
        cluster.etc.write("limits", "alice - nofile 777\n");
        cluster.etc.write("environment", "SITE=hpc\n");
        forward(&cluster, "alice-tb", ALICE);
        forward(&cluster, "daves-tb", DAVE);
        let mut portal = cluster.portal().await;
        let (_, ticket) = portal.sign_in("alice").await;
        let began = Instant::now();
        let mut connection = connect(&mut portal, &ticket).await;
        let (status, page) = ask(&mut connection, "alice", &ticket).unwrap();
        let first = began.elapsed();
        assert_eq!(status, 200, "{page}");
        for part in ["/fw/alice-tb/", "http://c1:12001/", "/fw2/c1:8888/", "jupyter-lab", "job 4711"] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("daves-tb"), "another user's forward is not hers");
        let began = Instant::now();
        let mut again = connect(&mut portal, &ticket).await;
        assert_eq!(ask(&mut again, "alice", &ticket).unwrap().0, 200);
        println!("first page {first:?}, with a worker that runs {:?}", began.elapsed());

        // One process for both, and it is hers in everything.
        let running = workers(&cluster);
        assert_eq!(running.keys().collect::<Vec<_>>(), [&ALICE]);
        let pid = running[&ALICE];
        let status = status_of(pid);
        assert_eq!(status["Uid"], "20001\t20001\t20001\t20001");
        assert_eq!(status["Gid"], "20001\t20001\t20001\t20001");
        assert_eq!(status["Groups"], "20001 20100");
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!(status["SigBlk"], "0000000000000000");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["777", "777"]);
        let home = cluster.etc.path("home/alice").display().to_string();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        let mut environment: Vec<&str> = environment.split('\0').filter(|one| !one.is_empty()).collect();
        environment.sort_unstable();
        let home_is = format!("HOME={home}");
        let path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";
        assert_eq!(
            environment,
            [&home_is, "LOGNAME=alice", path, "SHELL=/bin/bash", "SITE=hpc", "USER=alice"]
        );
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap().display().to_string(), home);
        let open = descriptors_of(pid);
        assert_eq!((open[&0].as_str(), open[&1].as_str()), ("/dev/null", "/dev/null"));
        let others = open.range(3..).map(|(_, what)| what.split(':').next().unwrap());
        for what in others {
            // The channel, the connections, and what tokio waits with.
            assert!(matches!(what, "socket" | "anon_inode"), "{open:?}");
        }
        // No core file has her tickets, and no debugger: what a process may be asked belongs to root.
        assert_eq!(std::fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
        assert_eq!(helper(&["spy", &ALICE.to_string(), &pid.to_string()]).unwrap(), "done\n");
    })
    .await;
}

#[tokio::test]
async fn two_users_do_not_reach_each_others() {
    check("two_users_do_not_reach_each_others", Workers::Real, async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (_, alices) = portal.sign_in("alice").await;
        let daves = dave(&cluster, &mut portal).await;
        for (own, other, user, running) in
            [(&alices, &daves, "alice", ALICE), (&daves, &alices, "dave", DAVE)]
        {
            let mut connection = connect(&mut portal, own).await;
            assert_eq!(ask(&mut connection, user, own).unwrap().0, 200);
            assert!(workers(&cluster).contains_key(&running));
            // On the same connection, and on another one: whoever mixes up two users' connections shows nothing.
            for mut connection in [connection, connect(&mut portal, own).await] {
                for shown in [other, &Secret::new(String::new()), &Secret::new("a.b.c".to_owned())] {
                    let (status, said) = ask(&mut connection, user, shown).unwrap();
                    assert_eq!(status, 401, "{said}");
                    assert!(said.contains("No ticket that is good here"), "{said}");
                }
                // A good ticket does not show somebody else's page.
                let somebody = if user == "alice" { "dave" } else { "alice" };
                assert_eq!(ask(&mut connection, somebody, own).unwrap().0, 400);
            }
        }
        let running = workers(&cluster);
        assert_eq!(running.keys().collect::<Vec<_>>(), [&ALICE, &DAVE]);
        assert_ne!(running[&ALICE], running[&DAVE]);
        // The end of all of alice's sessions ends hers at once, and nobody else's.
        let mut open = connect(&mut portal, &alices).await;
        let out = Question::SignOut { ticket: alices.clone(), everywhere: true };
        assert_eq!(portal.ask(out).await, Answer::Done);
        assert!(is_closed(&mut open));
        eventually("alice's worker ends", || (workers(&cluster).keys().eq([&DAVE])).then_some(()));
        assert_eq!(try_to_connect(&mut portal, &alices).await.err(), Some(Answer::NoTicket));
        let mut daves_own = connect(&mut portal, &daves).await;
        assert_eq!(ask(&mut daves_own, "dave", &daves).unwrap().0, 200);
    })
    .await;
}

#[tokio::test]
async fn after_one_that_was_killed_comes_another() {
    check("after_one_that_was_killed_comes_another", Workers::Real, async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (_, ticket) = portal.sign_in("alice").await;
        let mut connection = connect(&mut portal, &ticket).await;
        assert_eq!(ask(&mut connection, "alice", &ticket).unwrap().0, 200);
        let before = workers(&cluster)[&ALICE];
        // Handed over, and not looked at any more.
        signal(before, Signal::SIGSTOP);
        let mut waits = connect(&mut portal, &ticket).await;
        signal(before, Signal::SIGKILL);
        assert!(ask(&mut connection, "alice", &ticket).is_none(), "closed without a byte");
        assert!(ask(&mut waits, "alice", &ticket).is_none(), "closed without a byte");
        let mut connection = connect_in_the_end(&mut portal, &ticket).await;
        assert_eq!(ask(&mut connection, "alice", &ticket).unwrap().0, 200);
        assert_ne!(workers(&cluster)[&ALICE], before);
    })
    .await;
}

#[tokio::test]
async fn after_one_that_left_comes_another() {
    check("after_one_that_left_comes_another", Workers::Idle(1), async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (_, ticket) = portal.sign_in("alice").await;
        let mut connection = connect(&mut portal, &ticket).await;
        // In use: longer than it may be idle.
        sleep(Duration::from_secs(2)).await;
        assert_eq!(ask(&mut connection, "alice", &ticket).unwrap().0, 200);
        let before = workers(&cluster)[&ALICE];
        drop(connection);
        eventually("it leaves", || (!is_alive(before)).then_some(()));
        let mut connection = connect_in_the_end(&mut portal, &ticket).await;
        assert_eq!(ask(&mut connection, "alice", &ticket).unwrap().0, 200);
        assert_ne!(workers(&cluster)[&ALICE], before);
    })
    .await;
}

/// Whenever a connection is handed over, the portal has an answer or a no, or the connection ends without a byte.
#[tokio::test]
async fn what_comes_while_it_leaves_is_not_lost() {
    check("what_comes_while_it_leaves_is_not_lost", Workers::Idle(1), async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (_, ticket) = portal.sign_in("alice").await;
        let mut connection = connect(&mut portal, &ticket).await;
        // So long that its end is no death at once.
        sleep(Duration::from_secs(5)).await;
        assert_eq!(ask(&mut connection, "alice", &ticket).unwrap().0, 200);
        let before = workers(&cluster)[&ALICE];
        drop(connection);
        sleep(Duration::from_millis(980)).await;
        let began = Instant::now();
        while is_alive(before) {
            let mut connection = connect(&mut portal, &ticket).await;
            assert_eq!(ask(&mut connection, "alice", &ticket).unwrap().0, 200);
            drop(connection);
            assert!(began.elapsed() < PATIENCE);
            // About when it leaves.
            sleep(Duration::from_micros(999_000 + u64::from(began.elapsed().subsec_micros() % 2000))).await;
        }
        // The next one may have been idle as long by now, and then it counts as one that died at once.
        let mut connection = connect_in_the_end(&mut portal, &ticket).await;
        assert_eq!(ask(&mut connection, "alice", &ticket).unwrap().0, 200);
    })
    .await;
}
