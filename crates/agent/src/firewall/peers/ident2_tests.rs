//! What is asked and believed by ident2, of nodes that have no key of ours.

use nix::sys::socket::{MsgFlags, recv};
use portreeve_model::wire::firewall::Groups;
use portreeve_model::wire::ident2::{Message, Request, parse};
use std::os::fd::AsRawFd;

use super::*;
use crate::firewall::tests::{ALICE, identity, settings};

const GROUPS: [u32; 2] = [20_950, 20_951];

fn found(uid: u32) -> Found {
    Found { uid, gid: Some(20_960), pid: Some(77), groups: Some(GROUPS.to_vec()) }
}

#[test]
fn an_answer_by_ident2_never_names_root_nor_anybody_who_stands_for_none() {
    for groups in [false, true] {
        for uid in [0, 65_534, 65_535, u32::MAX] {
            let made = connector(Some(found(uid)), groups);
            assert!(matches!(made, Err(Failure::NoConnector(NoConnector::NoSuchSocket))), "{uid}: {made:?}");
        }
        let made = connector(None, groups);
        assert!(matches!(made, Err(Failure::NoConnector(NoConnector::NoSuchSocket))), "{made:?}");
    }
}

#[test]
fn groups_by_ident2_count_only_with_a_process_that_has_them() {
    let unknown = ConnectorGroups::Unknown(UnknownGroup::NoHolderSeen);
    let all = ConnectorGroups::Gids(vec![GROUPS[0], GROUPS[1], 20_960]);
    for (case, said, groups) in [
        ("all", found(ALICE), all),
        ("no others", Found { groups: None, ..found(ALICE) }, ConnectorGroups::Gids(vec![20_960])),
        ("no gid", Found { gid: None, ..found(ALICE) }, unknown.clone()),
        ("no such gid", Found { gid: Some(u32::MAX), ..found(ALICE) }, unknown.clone()),
        ("no process", Found { pid: None, ..found(ALICE) }, unknown.clone()),
        ("process 0", Found { pid: Some(0), ..found(ALICE) }, unknown),
    ] {
        let made = connector(Some(said.clone()), true).unwrap();
        assert_eq!((made.uid, made.groups), (ALICE, groups), "{case}");
        let made = connector(Some(said), false).unwrap();
        assert_eq!((made.uid, made.groups), (ALICE, ConnectorGroups::NotLooked), "{case}");
    }
}

/// Reads questions and answers them, each on what connection it comes, until there were so many.
fn serve(listening: &std::os::unix::net::UnixListener, mut answers: Vec<Option<Found>>) -> Vec<Request> {
    let mut questions = Vec::new();
    while !answers.is_empty() {
        let (stream, _) = listening.accept().unwrap();
        let mut buffer = [0; 512];
        let read = recv(stream.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let Ok(Message::Question(question)) = parse(&buffer[..read]) else { panic!("no question") };
        let bytes = question.answer(answers.remove(0)).to_bytes();
        nix::sys::socket::send(stream.as_raw_fd(), &bytes, MsgFlags::empty()).unwrap();
        questions.push(question);
    }
    questions
}

#[tokio::test]
async fn ident2_is_asked_about_the_socket_at_the_other_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listening = crate::seqpacket::listen_at(&path, 8, 0o600, None).unwrap();
    listening.set_nonblocking(false).unwrap();
    let answers = vec![Some(found(ALICE)), Some(found(0)), None];
    // A thread that the test need not outlive where it fails.
    let service = std::thread::spawn(move || serve(&listening, answers));
    let own = identity();
    let mut told = settings(&own, &[]);
    let (from, to) = ("192.0.2.2:40000".parse().unwrap(), "192.0.2.1:5000".parse().unwrap());
    let tcp = Flow { transport: Transport::Tcp, from, to };
    let udp = Flow { transport: Transport::Udp, ..tcp };
    // Without a socket in the configuration nothing is asked.
    let none = ask_once(&told, Asked::ByIdent2, tcp, Groups::Yes).await;
    assert!(matches!(none, Err(Failure::NoAnswer)), "{none:?}");
    told.config.ident2_socket = Some(path);
    let alice = ask_once(&told, Asked::ByIdent2, tcp, Groups::Yes).await.unwrap();
    assert_eq!(alice.uid, ALICE);
    for flow in [tcp, udp] {
        let nobody = ask_once(&told, Asked::ByIdent2, flow, Groups::No).await;
        assert!(matches!(nobody, Err(Failure::NoConnector(_))), "{nobody:?}");
    }
    let asked = service.join().unwrap();
    let about: Vec<_> = asked.iter().map(|one| (one.op, one.protocol, one.local, one.remote)).collect();
    let over = |protocol| (Op::Remote, protocol, from, to);
    assert_eq!(about, [over(Protocol::Tcp), over(Protocol::Tcp), over(Protocol::Udp)]);
    assert!(asked[0].flags.has(Flags::GROUPS) && !asked[1].flags.has(Flags::GROUPS));
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_node_that_does_not_answer_by_ident2_is_named_in_the_log_and_not_for_each_packet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    // It hears all questions and answers none.
    let _listening = crate::seqpacket::listen_at(&path, 8, 0o600, None).unwrap();
    let mut told = settings(&identity(), &[]);
    let plain = |name, at| {
        format!("[[node]]\nname = '{name}'\naddresses = ['192.0.2.{at}', '192.0.2.1{at}']\nplain = true\n")
    };
    let map = [("quiet", 2), ("dumb", 3)].map(|(name, at)| plain(name, at)).concat();
    told.nodes = portreeve_model::NodeMap::parse(&map, "nodes.toml").unwrap();
    (told.config.ident2_socket, told.config.patience) = (Some(path), Duration::from_millis(50));
    let log = Log::default();
    let writer = log.clone();
    let logging = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all_asked = async {
        let (replies, mut replied) = mpsc::unbounded_channel();
        let mut peers = Peers::new(Arc::new(told), replies);
        let froms = ["192.0.2.2:40000", "192.0.2.2:40001", "192.0.2.12:40000", "192.0.2.3:40000"];
        for (of, from) in (0..).zip(froms) {
            let (from, to) = (from.parse().unwrap(), "192.0.2.1:5000".parse().unwrap());
            let flow = Flow { transport: Transport::Tcp, from, to };
            peers.ask_by(Asked::ByIdent2, of, flow, Groups::No);
        }
        for _ in froms {
            let reply = replied.recv().await.unwrap();
            assert!(matches!(reply.found, Err(Failure::NoAnswer)));
        }
    };
    tracing::subscriber::with_default(logging, || {
        tokio::task::LocalSet::new().block_on(&runtime, all_asked);
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for name in ["quiet", "dumb"] {
        let lines = log.lines().filter(|line| line.contains(&format!("node=\"{name}\"")));
        assert_eq!(
            lines.filter(|line| line.contains("WARN") && line.contains("in time")).count(),
            1,
            "{log}"
        );
    }
    assert_eq!(log.lines().count(), 2, "{log}");
}
