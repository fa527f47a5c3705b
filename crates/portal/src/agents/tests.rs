//! The portal's side against agents that are played here: right ones, wrong ones, hostile ones.

use super::*;
use portreeve_agent::channel::tls::client_config;
use portreeve_agent::channel::{FrameError, FrameReader};
use portreeve_model::wire::agent::{FromAgent, MAX_ROWS, ToAgent, VERSION};
use portreeve_model::wire::{self, MAX_FRAME};
use portreeve_model::{AgentKey, OwnerGroups, Secret};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(10);
const BOOT: &str = "11111111-1111-1111-1111-111111111111";
const REBOOT: &str = "22222222-2222-2222-2222-222222222222";

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}

fn identity() -> Identity {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Identity::from_pem(&Secret::new(pair.serialize_pem())).unwrap()
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

/// A portal with the nodes c1 (127.0.0.11 and 127.0.1.11, role login), c2 (127.0.0.12) and p1 (127.0.0.13, plain).
struct Site {
    agents: Arc<Agents>,
    at: SocketAddr,
    portal: Identity,
    c1: Identity,
    c2: Identity,
    logins: mpsc::Receiver<LoginAsked>,
}

fn map(c1: AgentKey, c2: AgentKey) -> NodeMap {
    let text = format!(
        "[[node]]\nname = 'c1'\naddresses = ['127.0.0.11', '127.0.1.11']\nkey = '{c1}'\nroles = ['login']\non_portal = true\n\
         [[node]]\nname = 'c2'\naddresses = ['127.0.0.12']\nkey = '{c2}'\non_portal = true\n\
         [[node]]\nname = 'p1'\naddresses = ['127.0.0.13']\nplain = true\non_portal = true\n"
    );
    NodeMap::parse(&text, "nodes.toml").unwrap()
}

impl Site {
    async fn new() -> Self {
        Self::with_plain(&["127.0.0.13"]).await
    }

    async fn with_plain(networks: &[&str]) -> Self {
        let (portal, c1, c2) = (identity(), identity(), identity());
        let (asked, logins) = mpsc::channel(8);
        let rules = Rules {
            key: Some(portal.clone()),
            nodes: map(c1.public(), c2.public()),
            plain_networks: networks.iter().map(|network| Network::parse(network).unwrap()).collect(),
        };
        let agents = Arc::new(Agents::new(rules, asked).unwrap());
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let accepting = Arc::clone(&agents);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let agents = Arc::clone(&accepting);
                tokio::spawn(async move { agents.accept(stream).await });
            }
        });
        Self { agents, at, portal, c1, c2, logins }
    }

    async fn fake(&self, own: &Identity) -> Fake {
        self.fake_from(own, None).await.unwrap()
    }

    async fn fake_from(&self, own: &Identity, from: Option<&str>) -> std::io::Result<Fake> {
        let stream = self.tcp(from).await?;
        let tls = client_config(own, vec![self.portal.public()]).unwrap();
        let name = ServerName::try_from("portal").unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        Ok(Fake::new(Box::new(stream)))
    }

    async fn tcp(&self, from: Option<&str>) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = from {
            socket.set_reuseaddr(true)?;
            socket.bind(from.parse().unwrap())?;
        }
        socket.connect(self.at).await
    }

    /// The agent of c1, known to the portal.
    async fn c1(&self) -> Fake {
        let mut fake = self.fake(&self.c1).await;
        fake.greet("c1", BOOT).await;
        fake
    }

    async fn owner(&self, server: &str) -> Result<Heard<Owned>, NoOwner> {
        self.agents.owner(&tuple(server), false).await
    }

    fn state(&self, node: &str) -> NodeState {
        self.agents.states().into_iter().find(|state| state.node.as_str() == node).unwrap()
    }

    async fn down(&self, node: &str) -> String {
        let start = Instant::now();
        loop {
            if let Connection::Down { why } = self.state(node).connection {
                return why;
            }
            assert!(start.elapsed() < 4 * PATIENCE, "{node} stays connected");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Fake {
    reader: FrameReader<ReadHalf<Box<dyn Both>>>,
    writer: WriteHalf<Box<dyn Both>>,
}

impl Fake {
    fn new(stream: Box<dyn Both>) -> Self {
        let (reading, writer) = tokio::io::split(stream);
        Self { reader: FrameReader::new(reading), writer }
    }

    async fn say(&mut self, message: FromAgent) {
        self.raw(&wire::encode(&message).unwrap()).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        // The portal may have ended it already, which is what the test will see.
        let _ = self.writer.write_all(bytes).await;
        let _ = self.writer.flush().await;
    }

    async fn hello(&mut self, version: u32, node: &str, boot: &str) {
        self.say(FromAgent::Hello { version, node: name(node), boot: boot.to_owned() }).await;
    }

    /// Greets, and answers the sign of life that is the portal's welcome.
    async fn greet(&mut self, node: &str, boot: &str) {
        self.hello(VERSION, node, boot).await;
        let (id, question) = self.asked().await;
        assert_eq!(question, Question::Ping);
        self.answer(id, Answer::Pong).await;
    }

    async fn heard(&mut self) -> Result<ToAgent, FrameError> {
        self.reader.next(4 * PATIENCE, PATIENCE).await
    }

    async fn asked(&mut self) -> (u32, Question) {
        match self.heard().await {
            Ok(ToAgent::Ask { id, question }) => (id, question),
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self, id: u32, answer: Answer) {
        self.say(FromAgent::Answer { id, answer }).await;
    }

    /// Waits until the portal ends it, and returns what it said then.
    async fn ended(&mut self) -> String {
        let mut said = String::new();
        loop {
            match self.heard().await {
                Ok(ToAgent::Goodbye { why }) => said = why,
                Ok(_) => {}
                Err(_) => return said,
            }
        }
    }
}

fn tuple(server: &str) -> Tuple {
    Tuple { client: "127.0.0.1:40000".parse().unwrap(), server: server.parse().unwrap() }
}

fn owned(uid: u32) -> Answer {
    let owner = Owner { uid, groups: OwnerGroups::NotLooked, listener: ListenerId(5), accepted: true };
    Answer::Owner(Ok(Owned { owner, job: Some(7) }))
}

#[tokio::test]
async fn an_agent_is_asked_about_its_node() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.1.11:8888"), false).await });
    let (id, question) = fake.asked().await;
    assert_eq!(question, Question::Owner { tuple: tuple("127.0.1.11:8888"), group: false });
    fake.answer(id, owned(1234)).await;
    let heard = asking.await.unwrap().unwrap();
    assert_eq!((heard.said.owner.uid, heard.said.job), (1234, Some(7)));
    assert_eq!((heard.node.as_str(), heard.generation), ("c1", 1));
    let Connection::Up { from, boot, latency, plain, calls_itself, .. } = site.state("c1").connection else {
        panic!()
    };
    assert_eq!(
        (from.ip().to_string(), boot, plain, calls_itself),
        ("127.0.0.1".into(), BOOT.into(), false, None)
    );
    assert!(latency.is_some());
}

#[tokio::test]
async fn questions_from_other_threads_are_pipelined_and_answered_in_any_order() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let threads: Vec<_> = (0..4u16)
        .map(|thread| {
            let agents = Arc::clone(&site.agents);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut asking = tokio::task::JoinSet::new();
                    for number in 0..25 {
                        let (agents, port) = (Arc::clone(&agents), 10_000 + thread * 100 + number);
                        asking.spawn(async move {
                            let server = format!("127.0.0.11:{port}");
                            let heard = agents.owner(&tuple(&server), false).await.unwrap();
                            assert_eq!(heard.said.owner.uid, u32::from(port));
                        });
                    }
                    asking.join_all().await;
                });
            })
        })
        .collect();
    let mut open = Vec::new();
    while open.len() < 100 {
        let (id, Question::Owner { tuple, .. }) = fake.asked().await else { panic!() };
        open.push((id, tuple.server.port()));
    }
    for (id, port) in open.into_iter().rev() {
        fake.answer(id, owned(port.into())).await;
    }
    tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_is_not_there_is_an_error() {
    let site = Site::new().await;
    let unreachable = site.owner("127.0.0.11:80").await.unwrap_err();
    let NoOwner::Agent(error) = &unreachable else { panic!("{unreachable:?}") };
    assert_eq!(error.code(), "agent-unreachable");
    assert!(matches!(Unowned::from(unreachable), Unowned::Lookup(_)));
    let none = site.owner("127.0.0.99:80").await.unwrap_err();
    assert_eq!(none, NoOwner::Agent(AgentError::NoNode("127.0.0.99".parse().unwrap())));
    let unknown = site.agents.ask(&name("c9"), Question::Ping, PATIENCE).await.unwrap_err();
    assert_eq!(unknown, AgentError::UnknownNode(name("c9")));
    assert_eq!(site.agents.generation(&name("c1")), 0);
}

#[tokio::test]
async fn an_agent_is_never_asked_about_another_nodes_address() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    for server in ["127.0.0.12:80", "127.0.0.1:80", "[::ffff:127.0.0.12]:80", "[::1]:80"] {
        let question = Question::Owner { tuple: tuple(server), group: false };
        let refused = site.agents.ask(&name("c1"), question, PATIENCE).await.unwrap_err();
        assert_eq!(refused.code(), "not-its-address", "{server}");
    }
    // Nothing of that was sent.
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.ask(&name("c1"), Question::Ping, PATIENCE).await });
    let (id, question) = fake.asked().await;
    assert_eq!(question, Question::Ping);
    fake.answer(id, Answer::Pong).await;
    asking.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_late_answer_is_none_and_harms_nothing() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let question = Question::Owner { tuple: tuple("127.0.0.11:80"), group: false };
    let late = site.agents.ask(&name("c1"), question, Duration::from_millis(50)).await;
    assert_eq!(late, Err(AgentError::Late(name("c1"))));
    let (first, _) = fake.asked().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:81"), false).await });
    let (second, _) = fake.asked().await;
    fake.answer(first, owned(1)).await;
    fake.answer(second, owned(2)).await;
    assert_eq!(asking.await.unwrap().unwrap().said.owner.uid, 2);
    assert!(matches!(site.state("c1").connection, Connection::Up { .. }));
}

#[tokio::test]
async fn an_agent_that_refuses_says_why() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:80"), false).await });
    let (id, _) = fake.asked().await;
    fake.answer(id, Answer::Refused { why: "busy".to_owned() }).await;
    let NoOwner::Agent(error) = asking.await.unwrap().unwrap_err() else { panic!() };
    assert_eq!((error.code(), error.to_string().ends_with("refused: busy")), ("agent-refused", true));
}

#[tokio::test]
async fn wrong_keys_are_refused() {
    let site = Site::new().await;
    let mut stranger = site.fake(&identity()).await;
    stranger.hello(VERSION, "c1", BOOT).await;
    assert!(matches!(stranger.heard().await, Err(FrameError::Io(_) | FrameError::Ended)));
    // Another portal's key: the agent ends it.
    let tls = client_config(&site.c1, vec![identity().public()]).unwrap();
    let connector = TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from("portal").unwrap();
    assert!(connector.connect(name, site.tcp(None).await.unwrap()).await.is_err());
    for state in site.agents.states() {
        assert!(matches!(state.connection, Connection::Down { .. }), "{state:?}");
    }
}

#[tokio::test]
async fn the_key_decides_which_node_it_is() {
    let site = Site::new().await;
    let mut fake = site.fake(&site.c2).await;
    fake.greet("c1", BOOT).await;
    assert!(matches!(site.state("c1").connection, Connection::Down { .. }));
    let Connection::Up { calls_itself, .. } = site.state("c2").connection else { panic!() };
    assert_eq!(calls_itself, Some(name("c1")));
    assert!(site.owner("127.0.0.11:80").await.is_err());
}

/// Whatever an agent says wrongly ends its connection, and the question that is open with it is no yes.
#[tokio::test]
async fn nonsense_ends_the_connection() {
    let refused = |id, why: &str| FromAgent::Answer { id, answer: Answer::Refused { why: why.to_owned() } };
    let (id, other) = (1, 77);
    let frame = |message: &FromAgent| wire::encode(message).unwrap();
    let long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
    for (what, bytes, why) in [
        (
            "an unknown number",
            frame(&FromAgent::Answer { id: other, answer: owned(1) }),
            "answered what nobody asked",
        ),
        ("another kind", frame(&FromAgent::Answer { id, answer: Answer::Pong }), "does not fit"),
        (
            "a yes to something else",
            frame(&FromAgent::Answer { id, answer: Answer::ListensStill(true) }),
            "does not fit",
        ),
        ("control characters", frame(&refused(id, "\u{1b}[2J")), "does not fit"),
        (
            "a list",
            frame(&FromAgent::Answer { id, answer: Answer::Listening { rows: Vec::new(), more: false } }),
            "does not fit",
        ),
        (
            "a second greeting",
            frame(&FromAgent::Hello { version: VERSION, node: name("c1"), boot: BOOT.into() }),
            "greeted twice",
        ),
        ("too long a frame", long.to_vec(), "65537 bytes"),
        ("an empty frame", vec![0; 4], "empty"),
        ("no JSON", b"\0\0\0\x03abc".to_vec(), "expected form"),
        ("an unknown verb", b"\0\0\0\x0b{\"root\":{}}".to_vec(), "expected form"),
        ("a verb of the portal's", b"\0\0\0\x18{\"goodbye\":{\"why\":\"bye\"}}".to_vec(), "expected form"),
    ] {
        let site = Site::new().await;
        let mut fake = site.c1().await;
        let agents = Arc::clone(&site.agents);
        let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:80"), false).await });
        assert_eq!(fake.asked().await.0, id, "{what}");
        fake.raw(&bytes).await;
        let error = asking.await.unwrap().unwrap_err();
        assert!(matches!(&error, NoOwner::Agent(AgentError::Unreachable { .. })), "{what}: {error:?}");
        assert!(fake.ended().await.contains(why), "{what}");
        assert!(site.down("c1").await.contains(why), "{what}");
    }
}

#[tokio::test]
async fn an_answer_is_taken_once() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:80"), false).await });
    let (id, _) = fake.asked().await;
    fake.answer(id, owned(1)).await;
    asking.await.unwrap().unwrap();
    fake.answer(id, owned(2)).await;
    assert!(fake.ended().await.contains("answered what nobody asked"));
}

#[tokio::test]
async fn half_a_frame_ends_the_connection() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let frame = wire::encode(&FromAgent::Answer { id: 0, answer: Answer::Pong }).unwrap();
    fake.raw(&frame[..frame.len() - 1]).await;
    assert!(fake.ended().await.contains("begun and not finished"));
    let mut fake = site.c1().await;
    fake.raw(&frame[..3]).await;
    drop(fake);
    assert!(site.down("c1").await.contains("in the middle of a message"));
}

#[tokio::test]
async fn another_version_is_refused_and_told() {
    let site = Site::new().await;
    let mut fake = site.fake(&site.c1).await;
    fake.hello(VERSION + 1, "c1", BOOT).await;
    assert!(fake.ended().await.contains(&format!("version {}", VERSION + 1)));
    for (node, boot) in [("c1", ""), ("c1", "not a boot id")] {
        let mut fake = site.fake(&site.c1).await;
        fake.hello(VERSION, node, boot).await;
        fake.ended().await;
    }
    // Whoever begins with anything but a greeting.
    let mut fake = site.fake(&site.c1).await;
    fake.answer(0, Answer::Pong).await;
    fake.ended().await;
    assert!(matches!(site.state("c1").connection, Connection::Down { .. }));
}

#[tokio::test]
async fn the_newest_connection_speaks() {
    let site = Site::new().await;
    let mut older = site.c1().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:80"), false).await });
    older.asked().await;
    let mut newer = site.c1().await;
    assert!(older.ended().await.contains("newer connection"));
    // What the older one was asked has no answer; what comes now goes to the newer one.
    assert!(asking.await.unwrap().is_err());
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:80"), false).await });
    let (id, _) = newer.asked().await;
    newer.answer(id, owned(3)).await;
    let heard = asking.await.unwrap().unwrap();
    assert_eq!((heard.said.owner.uid, heard.generation), (3, 1), "the same boot");
    drop(newer);
    assert!(site.down("c1").await.contains("closed"));
}

#[tokio::test]
async fn another_boot_is_another_generation_and_an_old_one_does_not_come_back() {
    let site = Site::new().await;
    let _first = site.c1().await;
    assert_eq!(site.agents.generation(&name("c1")), 1);
    let mut second = site.fake(&site.c1).await;
    second.greet("c1", REBOOT).await;
    assert_eq!(site.agents.generation(&name("c1")), 2);
    let mut old = site.fake(&site.c1).await;
    old.hello(VERSION, "c1", BOOT).await;
    assert!(old.ended().await.contains("two machines"));
    assert_eq!(site.agents.generation(&name("c1")), 2);
    // With nobody there it may: the machine was set back to what it was.
    drop(second);
    site.down("c1").await;
    let _again = site.c1().await;
    assert_eq!(site.agents.generation(&name("c1")), 3);
}

#[tokio::test]
async fn new_rules_take_effect_at_once() {
    let site = Site::new().await;
    let (mut c1, mut c2) = (site.c1().await, site.fake(&site.c2).await);
    c2.greet("c2", BOOT).await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.1.11:80"), false).await });
    let (id, _) = c1.asked().await;
    // c1 keeps its key, and loses an address while it is asked about it; c2 gets another key.
    let nodes = format!(
        "[[node]]\nname = 'c1'\naddresses = ['127.0.0.11']\nkey = '{}'\non_portal = true\n\
         [[node]]\nname = 'c2'\naddresses = ['127.0.0.12', '127.0.1.11']\nkey = '{}'\non_portal = true\n",
        site.c1.public(),
        identity().public(),
    );
    let nodes = NodeMap::parse(&nodes, "-").unwrap();
    let rules = Rules { key: Some(site.portal.clone()), nodes, plain_networks: Vec::new() };
    site.agents.reload(rules).unwrap();
    c1.answer(id, owned(1)).await;
    let error = asking.await.unwrap().unwrap_err();
    assert!(matches!(error, NoOwner::Agent(AgentError::NotItsAddress { .. })), "{error:?}");
    assert!(c2.ended().await.contains("node map"));
    assert!(matches!(site.state("c1").connection, Connection::Up { .. }));
    // The revoked key opens nothing.
    let mut revoked = site.fake(&site.c2).await;
    revoked.hello(VERSION, "c2", BOOT).await;
    revoked.ended().await;
    assert!(matches!(site.state("c2").connection, Connection::Down { .. }));
    assert_eq!(site.agents.states().len(), 2);
}

#[tokio::test]
async fn too_many_questions_are_refused_at_once() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let most = wire::agent::AT_ONCE + limits::AGENT_QUEUE;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..most + 500 {
        let agents = Arc::clone(&site.agents);
        asking.spawn(async move { agents.ask(&name("c1"), Question::Ping, PATIENCE).await });
        if asking.len() % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // The agent takes everything in, and answers nothing yet: the rest must hear of it now.
    let mut ids = Vec::new();
    while ids.len() < wire::agent::AT_ONCE {
        ids.push(fake.asked().await.0);
    }
    let mut busy = 0;
    while asking.len() > wire::agent::AT_ONCE {
        assert_eq!(asking.join_next().await.unwrap().unwrap(), Err(AgentError::Busy(name("c1"))));
        busy += 1;
    }
    assert_eq!(busy, most + 500 - wire::agent::AT_ONCE);
    for id in ids {
        fake.answer(id, Answer::Pong).await;
    }
    while let Some(answered) = asking.join_next().await {
        answered.unwrap().unwrap();
    }
}

#[tokio::test]
async fn whoever_says_nothing_gives_way_and_is_ended() {
    let site = Site::new().await;
    let started = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..limits::AGENT_HANDSHAKES_OF_ONE + 3 {
        silent.push(site.tcp(None).await.unwrap());
    }
    // They took all places of this address, and yet the genuine agent gets in.
    let _fake = site.c1().await;
    assert!(started.elapsed() < limits::AGENT_HANDSHAKE);
    for (number, stream) in silent.iter_mut().enumerate() {
        let mut byte = [0];
        let read = timeout_at(Instant::now() + 2 * limits::AGENT_HANDSHAKE, stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "{number}");
    }
    assert!(matches!(site.state("c1").connection, Connection::Up { .. }));
}

#[tokio::test]
async fn without_a_key_only_from_a_privileged_port_of_a_plain_node() {
    let privileged = |site: &Site, from: &'static str| {
        let at = site.at;
        async move {
            for port in (700..1000).rev() {
                let socket = TcpSocket::new_v4().unwrap();
                match socket.bind(format!("{from}:{port}").parse().unwrap()) {
                    Ok(()) => {
                        if let Ok(stream) = socket.connect(at).await {
                            return Some(Fake::new(Box::new(stream)));
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
                    Err(_) => {}
                }
            }
            None
        }
    };
    let site = Site::with_plain(&["127.0.0.8/29"]).await;
    let Some(mut plain) = privileged(&site, "127.0.0.13").await else {
        return println!("SKIPPED: needs root");
    };
    plain.greet("p1", BOOT).await;
    let Connection::Up { plain: true, .. } = site.state("p1").connection else { panic!() };
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.13:80"), false).await });
    let (id, _) = plain.asked().await;
    plain.answer(id, owned(9)).await;
    assert_eq!(asking.await.unwrap().unwrap().said.owner.uid, 9);

    let refused = async |mut fake: Fake, site: &Site, node: &str, why: &str| {
        fake.hello(VERSION, node, BOOT).await;
        fake.ended().await;
        let Connection::Down { why: noted } = site.state(node).connection else { panic!("{why}") };
        assert!(noted.contains(why), "{noted}");
    };
    // Who has a key is not believed without it, from wherever.
    let fake = privileged(&site, "127.0.0.11").await.unwrap();
    refused(fake, &site, "c1", "a node that is not plain").await;
    let other = Site::with_plain(&["127.0.0.8/29"]).await;
    let fake = Fake::new(Box::new(other.tcp(Some("127.0.0.13:0")).await.unwrap()));
    refused(fake, &other, "p1", "unprivileged port").await;
    let outside = Site::with_plain(&["127.0.1.0/24"]).await;
    let fake = privileged(&outside, "127.0.0.13").await.unwrap();
    refused(fake, &outside, "p1", "outside agents.plain_networks").await;
    let nowhere = Site::with_plain(&[]).await;
    let fake = privileged(&nowhere, "127.0.0.13").await.unwrap();
    refused(fake, &nowhere, "p1", "outside agents.plain_networks").await;
    // No node's address, though the network is listed.
    let mut nobody = privileged(&site, "127.0.0.14").await.unwrap();
    nobody.hello(VERSION, "p1", BOOT).await;
    nobody.ended().await;

    // The network is taken off the list: so is the connection.
    let nodes = map(site.c1.public(), site.c2.public());
    site.agents.reload(Rules { key: Some(site.portal.clone()), nodes, plain_networks: Vec::new() }).unwrap();
    assert!(plain.ended().await.contains("node map"));
}

#[tokio::test]
async fn login_nodes_ask_for_sign_in_addresses() {
    let mut site = Site::new().await;
    let mut fake = site.c1().await;
    fake.say(FromAgent::Login { id: 4, uid: 1234 }).await;
    let asked = site.logins.recv().await.unwrap();
    assert_eq!((asked.node.as_str(), asked.uid), ("c1", 1234));
    let reply = ControlReply::Address { url: "https://portal/".to_owned() };
    asked.reply.send(reply.clone()).unwrap();
    let Ok(ToAgent::Login { id: 4, reply: replied }) = fake.heard().await else { panic!() };
    assert_eq!(replied, reply);
    // Nobody answers: that is a refusal.
    fake.say(FromAgent::Login { id: 5, uid: 1234 }).await;
    drop(site.logins.recv().await.unwrap());
    let Ok(ToAgent::Login { id: 5, reply: ControlReply::Refused { .. } }) = fake.heard().await else {
        panic!()
    };
    // More than there are places for.
    for id in 0..100 {
        fake.say(FromAgent::Login { id, uid: 1234 }).await;
    }
    let Ok(ToAgent::Login { reply: ControlReply::Refused { .. }, .. }) = fake.heard().await else { panic!() };
    // A node without the role.
    let mut other = site.fake(&site.c2).await;
    other.greet("c2", BOOT).await;
    other.say(FromAgent::Login { id: 1, uid: 0 }).await;
    assert!(other.ended().await.contains("role login"));
}

#[tokio::test]
async fn lists_come_through() {
    let site = Site::new().await;
    let mut fake = site.c1().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.listening(&name("c1"), 5).await });
    let (id, question) = fake.asked().await;
    assert_eq!(question, Question::Listening { uid: 5 });
    let address = "0.0.0.0".parse().unwrap();
    let rows = vec![Row { address, port: 8888, command: Some("jupyter-lab".into()), job: None }; MAX_ROWS];
    fake.answer(id, Answer::Listening { rows: rows.clone(), more: true }).await;
    assert_eq!(asking.await.unwrap(), Ok((rows, true)));
    let agents = Arc::clone(&site.agents);
    let asking =
        tokio::spawn(async move { agents.listens_still(&tuple("127.0.0.11:80"), ListenerId(5)).await });
    let (id, _) = fake.asked().await;
    fake.answer(id, Answer::ListensStill(false)).await;
    assert!(!asking.await.unwrap().unwrap().said);
}
