//! What a question to an agent costs as there are more of them. `benches/growth` runs this. The agents are played by a process of
//! their own, so that its time and memory are not the portal's.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::growth::{resident, say, spent};

const NODES: [usize; 4] = [1, 10, 100, 1_000];
const QUESTIONS: usize = 20_000;
const PLAYS: &str = "PORTREEVE_GROWTH_PLAYS";
/// A new connection's buffers have their size by then.
const SETTLED: Duration = Duration::from_secs(1);

#[tokio::test]
#[ignore = "is measured by benches/growth, and says nothing by itself"]
async fn of_nodes() {
    let portal = identity();
    let pairs: Vec<_> = (0..NODES[NODES.len() - 1])
        .map(|_| rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem())
        .collect();
    let public: Vec<AgentKey> = pairs.iter().map(|pem| own(pem).public()).collect();
    let (asked, _logins) = mpsc::channel(8);
    let rules = |count| Rules {
        key: Some(portal.clone()),
        nodes: map_of(&public[..count]),
        plain_networks: Vec::new(),
    };
    let agents = Arc::new(Agents::new(rules(1), asked).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepting = Arc::clone(&agents);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let agents = Arc::clone(&accepting);
            tokio::spawn(async move { agents.accept(stream).await });
        }
    });

    let (mut players, mut known) = (Vec::new(), 0);
    for count in NODES {
        agents.reload(rules(count)).unwrap();
        let before = resident();
        players.push(play(&(at, portal.public().to_string(), known, pairs[known..count].to_vec())));
        let is_up = |state: &NodeState| matches!(state.connection, Connection::Up { .. });
        while !agents.states().iter().all(is_up) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(SETTLED).await;
        let grown = resident() - before;
        let (mut took, begun) = (Vec::with_capacity(QUESTIONS), spent());
        for question in 0..QUESTIONS {
            let asked = std::time::Instant::now();
            let heard =
                agents.owner(&tuple(&format!("{}:8888", address(question % count))), false).await.unwrap();
            took.push(asked.elapsed());
            assert_eq!(heard.said.owner.uid as usize, question % count);
        }
        say(count, count - known, grown, (spent() - begun) / u32::try_from(QUESTIONS).unwrap(), &took);
        known = count;
    }
    for mut player in players {
        player.kill().unwrap();
        player.wait().unwrap();
    }
}

/// Where they connect; the portal's key; the first one's number; their keys.
type Part = (SocketAddr, String, usize, Vec<String>);

/// Starts the process that plays these agents.
fn play(part: &Part) -> Child {
    let mut player = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "agents::tests::growth::plays_agents", "--ignored"])
        .env(PLAYS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    player.stdin.take().unwrap().write_all(&serde_json::to_vec(part).unwrap()).unwrap();
    player
}

#[tokio::test]
#[ignore = "is started by `of_nodes`"]
async fn plays_agents() {
    if std::env::var_os(PLAYS).is_none() {
        return;
    }
    let (at, portal, first, pems): Part = serde_json::from_reader(std::io::stdin()).unwrap();
    let mut playing = tokio::task::JoinSet::new();
    // One after the other: the portal lets few of one address wait at once.
    for (number, pem) in (first..).zip(pems) {
        let tls = client_config(&own(&pem), vec![AgentKey::parse(&portal).unwrap()]).unwrap();
        let stream = TcpStream::connect(at).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let portal = ServerName::try_from("portal").unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(portal, stream).await.unwrap();
        let mut fake = Fake::new(Box::new(stream));
        fake.greet(&format!("n{number}"), BOOT).await;
        playing.spawn(async move {
            loop {
                match fake.heard().await {
                    Ok(ToAgent::Ask { id, question: Question::Ping }) => fake.answer(id, Answer::Pong).await,
                    Ok(ToAgent::Ask { id, .. }) => {
                        fake.answer(id, owned(u32::try_from(number).unwrap())).await
                    }
                    _ => return,
                }
            }
        });
    }
    playing.join_all().await;
}

fn own(pem: &str) -> Identity {
    Identity::from_pem(&Secret::new(pem.to_owned())).unwrap()
}

fn address(number: usize) -> String {
    format!("10.0.{}.{}", number / 250, 1 + number % 250)
}

fn map_of(keys: &[AgentKey]) -> NodeMap {
    let node = |(number, key): (usize, &AgentKey)| {
        format!("[[node]]\nname = 'n{number}'\naddresses = ['{}']\nkey = '{key}'\n", address(number))
    };
    NodeMap::parse(&keys.iter().enumerate().map(node).collect::<String>(), "nodes.toml").unwrap()
}
