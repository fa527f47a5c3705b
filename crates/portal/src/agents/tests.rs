//! The portal's side against agents that are played here: right ones, wrong ones, hostile ones.

mod answers;
mod growth;
mod refusals;

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

    /// Greets, and waits for the question of somebody who waited for that.
    async fn greet_and_be_asked(&mut self, node: &str, boot: &str) -> u32 {
        self.hello(VERSION, node, boot).await;
        loop {
            match self.asked().await {
                (id, Question::Owner { .. }) => return id,
                (id, question) => {
                    assert_eq!(question, Question::Ping);
                    self.answer(id, Answer::Pong).await;
                }
            }
        }
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
