//! What is asked, what is answered, and what becomes of connections.

use super::*;

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
async fn the_newest_connection_speaks() {
    let site = Site::new().await;
    let mut older = site.c1().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:80"), false).await });
    older.asked().await;
    // What the older one was asked and has not answered is asked of the newer one.
    let mut newer = site.fake(&site.c1).await;
    let id = newer.greet_and_be_asked("c1", BOOT).await;
    assert!(older.ended().await.contains("newer connection"));
    newer.answer(id, owned(3)).await;
    let heard = asking.await.unwrap().unwrap();
    assert_eq!((heard.said.owner.uid, heard.generation), (3, 1), "the same boot");
    drop(newer);
    // Reset where it had not read everything, which may be met by what is written.
    let why = site.down("c1").await;
    assert!(["closed", "reset", "failed"].iter().any(|word| why.contains(word)), "{why}");
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

#[tokio::test]
async fn a_question_about_a_connection_waits_a_little_for_an_agent_that_is_being_restarted() {
    let site = Site::new().await;
    let agents = Arc::clone(&site.agents);
    let asking = tokio::spawn(async move { agents.owner(&tuple("127.0.0.11:8888"), false).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut first = site.fake(&site.c1).await;
    first.greet_and_be_asked("c1", BOOT).await;
    // It dies with the question; its successor is asked.
    drop(first);
    let mut second = site.fake(&site.c1).await;
    let id = second.greet_and_be_asked("c1", BOOT).await;
    second.answer(id, owned(1234)).await;
    assert_eq!(asking.await.unwrap().unwrap().said.owner.uid, 1234);
    drop(second);
    site.down("c1").await;
    // For show nobody waits, and otherwise not for long.
    let began = Instant::now();
    assert!(site.agents.listening(&name("c1"), 1).await.is_err());
    assert!(began.elapsed() < limits::AGENT_BACK / 2, "{:?}", began.elapsed());
    let error = site.owner("127.0.0.11:8888").await.unwrap_err();
    assert!(matches!(error, NoOwner::Agent(AgentError::Unreachable { .. })), "{error:?}");
    assert!(began.elapsed() >= limits::AGENT_BACK && began.elapsed() < limits::AGENT_BACK * 2);
}
