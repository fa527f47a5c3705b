//! Wrong keys, wrong answers, floods: nobody is believed who should not be.

use super::*;

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
