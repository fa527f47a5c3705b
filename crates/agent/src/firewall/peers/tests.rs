//! A node that lies, talks nonsense or says nothing, with its own key and at its own address, in a network namespace: what
//! it says lets nobody through that was not asked about, and its connection is given up.

use super::*;
use crate::channel::tls::server_config_for;
use crate::firewall::tests::{ALICE, BOB, alone, identity, settings};
use portreeve_model::wire::MAX_FRAME;
use portreeve_model::wire::firewall::Groups;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server;

/// What must come, comes within this.
const LONG: Duration = Duration::from_secs(20);
/// What the firewall waits for an answer, where none comes.
const SHORT: Duration = Duration::from_millis(50);

/// c2, at 10.9.0.2.
struct Node {
    listening: TcpListener,
    tls: TlsAcceptor,
}

/// One connection that c1's firewall has made to it.
struct Heard(FrameReader<server::TlsStream<TcpStream>>);

impl Node {
    async fn accepts(&self) -> Heard {
        let (stream, _) = timeout(LONG, self.listening.accept()).await.unwrap().unwrap();
        Heard(FrameReader::new(timeout(LONG, self.tls.accept(stream)).await.unwrap().unwrap()))
    }
}

impl Heard {
    async fn question(&mut self) -> Ask {
        self.0.next(LONG, LONG).await.unwrap()
    }

    async fn says(&mut self, bytes: &[u8]) {
        let stream = self.0.stream();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
    }

    async fn answers(&mut self, id: u32, uid: u32) {
        self.says(&answer(id, uid)).await;
    }

    /// The other end has closed it, and asked nothing more.
    async fn is_given_up(&mut self) {
        let ended = self.0.next::<Ask>(LONG, LONG).await.unwrap_err();
        assert!(matches!(ended, FrameError::Ended | FrameError::Io(_)), "{ended}");
    }
}

fn answer(id: u32, uid: u32) -> Vec<u8> {
    let found = Ok(Connector { uid, groups: ConnectorGroups::NotLooked });
    wire::encode(&Answer { id, found }).unwrap()
}

/// What is asked, and what becomes of it.
struct Asking {
    peers: Peers,
    key: AgentKey,
    replies: mpsc::UnboundedReceiver<Reply>,
    settings: Arc<Settings>,
}

fn flow() -> Flow {
    let [from, to] = ["10.9.0.2:2000", "10.9.0.1:5000"].map(|end| end.parse().unwrap());
    Flow { transport: Transport::Tcp, from, to }
}

impl Asking {
    fn asks(&mut self, of: u64) {
        self.peers.ask_by(Asked::ByKey(self.key), of, flow(), Groups::No);
    }

    /// The next reply: to which question, and which user it names.
    async fn hears(&mut self) -> (u64, Option<u32>) {
        let reply = timeout(LONG, self.replies.recv()).await.unwrap().unwrap();
        (reply.of, reply.found.ok().map(|connector| connector.uid))
    }

    fn hears_nothing_more(&mut self) {
        assert!(self.replies.try_recv().is_err());
    }
}

/// Runs the test on a node c1 that asks c2, with this patience. What listens there shows a key: c2's, or another one.
fn between<T: Future<Output = ()>>(
    patience: Duration,
    is_c2: bool,
    test: impl FnOnce(Asking, Node) -> T + Send,
) {
    alone(&["10.9.0.1/32", "10.9.0.2/32"], || {
        let [own, c2, other] = [(); 3].map(|()| identity());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listening = TcpListener::bind("10.9.0.2:0").await.unwrap();
            let mut settings = settings(&own, &[("c2", c2.public(), &["10.9.0.2"])]);
            settings.config.port = listening.local_addr().unwrap().port();
            settings.config.patience = patience;
            let settings = Arc::new(settings);
            let c1 = own.public();
            let shown = if is_c2 { &c2 } else { &other };
            let tls = server_config_for(PROTOCOL, shown, move |key| *key == c1).unwrap();
            let (sender, replies) = mpsc::unbounded_channel();
            let peers = Peers::new(Arc::clone(&settings), sender);
            let asking = Asking { peers, key: c2.public(), replies, settings };
            test(asking, Node { listening, tls: TlsAcceptor::from(Arc::new(tls)) }).await;
        });
    });
}

#[test]
fn an_answer_that_was_not_asked_for_ends_the_connection_and_answers_nothing() {
    between(LONG, true, |mut asking, node| async move {
        // Too high, the next one, and the last one that there is.
        for (of, wrong) in [(1, 7), (2, 1), (3, u32::MAX)] {
            asking.asks(of);
            let mut heard = node.accepts().await;
            assert_eq!(heard.question().await, Ask { id: 0, flow: flow(), groups: Groups::No });
            heard.answers(wrong, ALICE).await;
            assert_eq!(asking.hears().await, (of, None), "{wrong}");
            heard.is_given_up().await;
        }
        asking.hears_nothing_more();
        // The next connection is as good as the first.
        asking.asks(4);
        let mut heard = node.accepts().await;
        let id = heard.question().await.id;
        heard.answers(id, ALICE).await;
        assert_eq!(asking.hears().await, (4, Some(ALICE)));
    });
}

#[test]
fn a_second_answer_to_one_question_is_taken_for_no_other() {
    between(LONG, true, |mut asking, node| async move {
        asking.asks(1);
        let mut heard = node.accepts().await;
        let first = heard.question().await.id;
        heard.answers(first, ALICE).await;
        assert_eq!(asking.hears().await, (1, Some(ALICE)));
        asking.asks(2);
        let second = heard.question().await.id;
        assert_ne!(first, second);
        heard.answers(first, BOB).await;
        assert_eq!(asking.hears().await, (2, None));
        heard.is_given_up().await;
        // Both in one go, and nothing else is open.
        asking.asks(3);
        let mut heard = node.accepts().await;
        let id = heard.question().await.id;
        heard.says(&[answer(id, ALICE), answer(id, BOB)].concat()).await;
        assert_eq!(asking.hears().await, (3, Some(ALICE)));
        heard.is_given_up().await;
        asking.hears_nothing_more();
    });
}

#[test]
fn nonsense_ends_the_connection_and_answers_nothing() {
    let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    let too_long = u32::try_from(MAX_FRAME).unwrap() + 1;
    let nonsense = [
        framed(b"x"),
        framed(b"{}"),
        framed(br#"{"id":0,"found":{"Ok":{"uid":-1,"groups":"not-looked"}}}"#),
        framed(br#"{"id":0,"found":{"Ok":{"uid":0,"groups":"not-looked"}},"more":1}"#),
        framed(&vec![b' '; MAX_FRAME]),
        // An answer, and something after it in its frame.
        framed(&[&answer(0, ALICE)[4..], b"x"].concat()),
        // Lengths: none, one too many, the longest.
        0u32.to_be_bytes().to_vec(),
        [&too_long.to_be_bytes()[..], &vec![b' '; MAX_FRAME]].concat(),
        vec![0xff; 64],
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
    ];
    between(LONG, true, |mut asking, node| async move {
        for (of, bytes) in (1..).zip(&nonsense) {
            asking.asks(of);
            let mut heard = node.accepts().await;
            heard.question().await;
            // It may be given up before all of it was written.
            let _ = heard.0.stream().write_all(bytes).await;
            let _ = heard.0.stream().flush().await;
            assert_eq!(asking.hears().await, (of, None), "{:?}", &bytes[..bytes.len().min(80)]);
            heard.is_given_up().await;
        }
        asking.hears_nothing_more();
    });
}

#[test]
fn a_node_that_says_nothing_or_half_an_answer_is_given_up_and_is_then_too_late() {
    between(SHORT, true, |mut asking, node| async move {
        for (of, begun) in [(1, 0), (2, 1), (3, 20)] {
            asking.asks(of);
            let mut heard = node.accepts().await;
            let id = heard.question().await.id;
            let (now, late) = (&answer(id, ALICE)[..begun], &answer(id, ALICE)[begun..]);
            // On a busy machine it may be given up already; what is late, goes to the connection that is no more.
            let _ = heard.0.stream().write_all(now).await;
            let _ = heard.0.stream().flush().await;
            assert_eq!(asking.hears().await, (of, None), "{begun}");
            let _ = heard.0.stream().write_all(late).await;
            let _ = heard.0.stream().flush().await;
            heard.is_given_up().await;
        }
        asking.hears_nothing_more();
    });
}

#[test]
fn who_has_a_nodes_address_and_not_its_key_is_not_believed() {
    between(LONG, false, |mut asking, node| async move {
        asking.asks(1);
        let (stream, _) = timeout(LONG, node.listening.accept()).await.unwrap().unwrap();
        let shaken = async {
            let stream = node.tls.accept(stream).await?;
            let mut heard = Heard(FrameReader::new(stream));
            heard.0.next::<Ask>(LONG, LONG).await.map_err(io::Error::other)
        };
        let (shaken, heard) = tokio::join!(timeout(LONG, shaken), asking.hears());
        assert!(shaken.unwrap().is_err(), "it was asked");
        assert_eq!(heard, (1, None));
    });
}

#[test]
fn an_answer_to_a_question_asked_once_must_be_to_that_question() {
    between(LONG, true, |asking, node| async move {
        for (id, named) in [(0, Some(ALICE)), (1, None)] {
            let answers = async {
                let mut heard = node.accepts().await;
                heard.question().await;
                heard.answers(id, ALICE).await;
                heard
            };
            let asked = ask_once(&asking.settings, Asked::ByKey(asking.key), flow(), Groups::No);
            let (_heard, found) = tokio::join!(answers, asked);
            assert_eq!(found.ok().map(|connector| connector.uid), named, "{id}");
        }
    });
}
