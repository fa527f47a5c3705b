use super::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portreeve_model::wire::ident2::QUESTION;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

fn question(port: u16) -> Question {
    Question {
        op: Op::Remote,
        flags: Flags::GID,
        protocol: Protocol::Tcp,
        states: TcpStates::LISTEN,
        local: ([10, 0, 0, 1], port).into(),
        remote: ([0, 0, 0, 0], 0).into(),
    }
}

fn found(uid: u32) -> Found {
    Found { uid, gid: Some(uid + 1), pid: None, groups: None }
}

/// A service that does what a test wants.
struct Service(UnixListener);

impl Service {
    fn at(path: &Path) -> Self {
        let listening = crate::seqpacket::listen_at(path, 8, 0o600, None).unwrap();
        Self(UnixListener::from_std(listening).unwrap())
    }

    async fn accept(&self) -> Peer {
        Peer(self.0.accept().await.unwrap().0)
    }

    /// For one connection after the other, each answer as `answer` makes it.
    fn answering(self, answer: impl Fn(Request) -> Option<Vec<u8>> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                let peer = self.accept().await;
                while let Some(request) = peer.question().await {
                    if let Some(bytes) = answer(request) {
                        peer.say(&bytes);
                    }
                }
            }
        })
    }
}

struct Peer(UnixStream);

impl Peer {
    async fn question(&self) -> Option<Request> {
        let mut buffer = [0; QUESTION + 1];
        loop {
            self.0.readable().await.unwrap();
            match self.0.try_read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => match parse(&buffer[..length]) {
                    Ok(Message::Question(request)) => return Some(request),
                    other => panic!("{other:?}"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    fn say(&self, bytes: &[u8]) {
        // Whoever asked may have gone.
        let _ = self.0.try_write(bytes);
    }
}

#[tokio::test]
async fn many_questions_at_once_over_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let service = Service::at(&path);
    let client = Arc::new(Ident2::new(&path));
    let asked: Vec<_> = (1..=100)
        .map(|port| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { (port, client.ask(question(port), PATIENCE).await) })
        })
        .collect();
    let peer = service.accept().await;
    let mut questions = Vec::new();
    for _ in 0..100 {
        questions.push(peer.question().await.unwrap());
    }
    assert!(questions.iter().all(|q| q.client_id == 0 && q.flags == Flags::GID && q.op == Op::Remote));
    // In another order, one twice, one for nobody, and one without an owner.
    questions.reverse();
    for question in &questions {
        let port = question.local.port();
        let answer = question.answer((port != 50).then(|| found(port.into()))).to_bytes();
        peer.say(&answer);
        peer.say(&answer);
    }
    let nobodys = Request { query_id: 1_000_000, ..questions[0] };
    peer.say(&nobodys.answer(Some(found(1))).to_bytes());
    for one in asked {
        let (port, answer) = one.await.unwrap();
        assert_eq!(answer.unwrap(), (port != 50).then(|| found(port.into())));
    }
    let again = tokio::spawn(async move { client.ask(question(7), PATIENCE).await });
    let last = peer.question().await.unwrap();
    peer.say(&last.answer(Some(found(7))).to_bytes());
    assert_eq!(again.await.unwrap().unwrap(), Some(found(7)));
    assert!(peer.question().await.is_none(), "the connection ends with the client");
}

#[tokio::test]
async fn no_answer_is_none_and_a_late_one_is_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let client = Ident2::new(&path);
    let nobody = client.ask(question(1), PATIENCE).await.unwrap_err();
    assert!(matches!(&nobody, AskError::Io(error) if error.kind() == io::ErrorKind::NotFound), "{nobody:?}");
    let service = Service::at(&path);
    let (answer, peer) = tokio::join!(client.ask(question(1), Duration::from_millis(200)), service.accept());
    assert!(matches!(answer, Err(AskError::Late)));
    let first = peer.question().await.unwrap();
    let asked = client.ask(question(2), PATIENCE);
    let answered = async {
        let second = peer.question().await.unwrap();
        assert_ne!(second.query_id, first.query_id);
        peer.say(&first.answer(Some(found(1))).to_bytes());
        peer.say(&second.answer(Some(found(2))).to_bytes());
        peer
    };
    let (asked, _peer) = tokio::join!(asked, answered);
    assert_eq!(asked.unwrap(), Some(found(2)));
    assert_eq!(locked(&client.line).as_ref().map(|line| locked(&line.open.waiting).len()), Some(0));
}

#[tokio::test]
async fn after_the_connections_end_it_asks_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let service = Service::at(&path);
    let client = Ident2::new(&path);
    let serve = async {
        // The first connection ends with the question unanswered, as if another one had been at fault.
        let peer = service.accept().await;
        peer.question().await.unwrap();
        drop(peer);
        let peer = service.accept().await;
        let request = peer.question().await.unwrap();
        peer.say(&request.answer(Some(found(9))).to_bytes());
        drop(peer);
    };
    let (answer, ()) = tokio::join!(client.ask(question(1), PATIENCE), serve);
    assert_eq!(answer.unwrap(), Some(found(9)));
    // And not for ever.
    let serve = async {
        for _ in 0..limits::TRIES {
            service.accept().await.question().await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(client.ask(question(1), PATIENCE), serve);
    assert!(matches!(answer, Err(AskError::Ended)), "{answer:?}");
    // The service starts anew.
    drop(service);
    std::fs::remove_file(&path).unwrap();
    let serving = Service::at(&path).answering(|request| Some(request.answer(Some(found(3))).to_bytes()));
    assert_eq!(client.ask(question(1), PATIENCE).await.unwrap(), Some(found(3)));
    serving.abort();
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let answers: [fn(Request) -> Vec<u8>; 5] = [
        // To another kind of question.
        |request| Response { op: Op::Local, ..request.answer(Some(found(1))) }.to_bytes(),
        |request| request.to_bytes(),
        |_| vec![0],
        |request| request.answer(Some(found(1))).to_bytes()[..33].to_vec(),
        |request| [&request.answer(Some(found(1))).to_bytes()[..], &[0; 10_000]].concat(),
    ];
    for answer in answers {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let serving = Service::at(&path).answering(move |request| Some(answer(request)));
        let answer = Ident2::new(&path).ask(question(1), PATIENCE).await;
        assert!(matches!(answer, Err(AskError::Ended)), "{answer:?}");
        serving.abort();
    }
}

#[tokio::test]
async fn only_so_many_questions_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let service = Service::at(&path);
    let client = Ident2::new(&path);
    let (_line, _peer) = (client.line().await.unwrap(), service.accept().await);
    let open = Arc::clone(&locked(&client.line).as_ref().unwrap().open);
    for id in 0..limits::OPEN as u64 {
        locked(&open.waiting).insert(u64::MAX - id, (Op::Local, oneshot::channel().0));
    }
    assert!(matches!(client.ask(question(1), PATIENCE).await, Err(AskError::Busy)));
}

#[tokio::test]
async fn a_connection_that_is_given_is_waited_for_and_replaced() {
    let pair = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let theirs = StdUnixStream::from(theirs);
        theirs.set_nonblocking(true).unwrap();
        (ours, Peer(UnixStream::from_std(theirs).unwrap()))
    };
    let client = Arc::new(Ident2::given());
    let late = client.ask(question(1), Duration::from_millis(50)).await;
    assert!(matches!(late, Err(AskError::Late)), "{late:?}");
    let ask = |port| {
        let client = Arc::clone(&client);
        // As from another thread of a program: on a runtime of its own.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(client.ask(question(port), PATIENCE))
        });
        async move { tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap() }
    };
    for (round, ends) in [(1, false), (2, true), (3, false)] {
        let asked = ask(round);
        let (ours, peer) = pair();
        let serving = {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.serve(ours).await })
        };
        let first = peer.question().await.unwrap();
        if ends {
            // The question stays, and goes to the next one.
            drop(peer);
            serving.await.unwrap().unwrap();
            let (ours, peer) = pair();
            let client = Arc::clone(&client);
            let serving = tokio::spawn(async move { client.serve(ours).await });
            let again = peer.question().await.unwrap();
            assert_ne!(again.query_id, first.query_id);
            peer.say(&again.answer(Some(found(7))).to_bytes());
            assert_eq!(asked.await.unwrap(), Some(found(7)));
            drop(peer);
            serving.await.unwrap().unwrap();
        } else {
            peer.say(&first.answer(Some(found(round.into()))).to_bytes());
            assert_eq!(asked.await.unwrap(), Some(found(round.into())));
            serving.abort();
            assert!(serving.await.is_err() && live(&locked(&client.line)).is_none());
        }
    }
}

/// By hand, against any such service: `PORTREEVE_IDENT2="/run/ident2d.sock remote 172.16.0.2:8888 0.0.0.0:0 1024 1000"`,
/// the last two being states and how often. `cargo test -p portreeve-agent -- --ignored --nocapture a_service_that_runs`
#[tokio::test]
#[ignore = "needs a service"]
async fn a_service_that_runs() {
    let Ok(told) = std::env::var("PORTREEVE_IDENT2") else { return println!("SKIPPED: no service is named") };
    let words: Vec<&str> = told.split_whitespace().collect();
    let [path, op, local, remote, states, times] = words[..] else { panic!("{told}") };
    let question = Question {
        op: if op == "local" { Op::Local } else { Op::Remote },
        flags: Flags::PROCESS.and(Flags::GROUPS),
        protocol: Protocol::Tcp,
        states: TcpStates(states.parse().unwrap()),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    };
    let client = Arc::new(Ident2::new(path));
    println!("{:?}", client.ask(question, Duration::from_secs(1)).await);
    let start = std::time::Instant::now();
    let all: Vec<_> = (0..times.parse().unwrap())
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.ask(question, Duration::from_secs(2)).await })
        })
        .collect();
    let (mut answered, mut other) = (0, 0);
    for one in all {
        if matches!(one.await.unwrap(), Ok(Some(_))) { answered += 1 } else { other += 1 }
    }
    println!("{answered} answered, {other} not, in {:?}", start.elapsed());
}
