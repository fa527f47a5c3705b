//! The agents of nodes: the real program, in network namespaces of its own, towards the portal's real other end. As root,
//! with the people whom `tests/run` makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, socket};
use portreeve_agent::channel::tls::server_config;
use portreeve_agent::channel::{FrameReader, Identity};
use portreeve_model::wire::agent::{Answer, FromAgent, Question, ToAgent, VERSION};
use portreeve_model::wire::{self, ControlReply, ControlRequest, MAX_FRAME};
use portreeve_model::{NodeName, OwnerGroups, Secret, Tuple, UnknownGroup, Unowned};
use portreeve_portal::agents::{AgentError, Connection, NoOwner};
use portreeve_tests::world::{
    AgentsEnd, Lan, Node, Rights, at, connect, gid, in_a_network, people, skip, until,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(10);

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

/// A node c1 with two cables, IPv4 and IPv6 on the first one.
async fn c1(lan: &Lan) -> Node {
    let node = lan.node("c1").await;
    lan.cable(&node, &["10.77.1.1/24", "fd77:1::1/64"], &["10.77.1.2/24", "fd77:1::2/64"]);
    lan.cable(&node, &["10.77.2.1/24"], &["10.77.2.2/24"]);
    node
}

const C1: [&str; 3] = ["10.77.1.2", "fd77:1::2", "10.77.2.2"];
const PORTAL: &str = "10.77.1.1:8499";

#[test]
fn the_owner_is_found_on_every_interface_and_in_both_families() {
    let test = "the_owner_is_found_on_every_interface_and_in_both_families";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    in_a_network(test, async move |lan| {
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let agent = node.agent(&portal.add("c1", &C1, &[]), Rights::Least);
        portal.connected("c1").await;
        for (listen, person, reached_at) in [
            ("0.0.0.0:9001", &alice, &["10.77.1.2", "10.77.2.2"][..]),
            ("[::]:9002", &bob, &["10.77.1.2", "10.77.2.2", "fd77:1::2"]),
            ("[fd77:1::2]:9003", &alice, &["fd77:1::2"]),
            // One port, three owners, by address.
            ("10.77.1.2:9004", &alice, &["10.77.1.2"]),
            ("10.77.2.2:9004", &bob, &["10.77.2.2"]),
            ("[fd77:1::2]:9004", &bob, &["fd77:1::2"]),
        ] {
            let app = node.app(person, listen, &[]);
            for address in reached_at {
                let heard = portal.owner(at(address, app.port()), false).await.unwrap();
                assert_eq!(heard.said.owner.uid, person.uid, "{listen} at {address}");
                assert_eq!(heard.said.owner.groups, OwnerGroups::NotLooked);
                assert_eq!(heard.node, name("c1"));
            }
            // Kept for the ones that share the port.
            std::mem::forget(app);
        }
        // Not yet accepted, and then confirmed.
        let deaf = node.app(&alice, "10.77.1.2:9005", &["--deaf"]);
        let (_stream, tuple) = connect(at("10.77.1.2", deaf.port())).await;
        let waiting = portal.agents.owner(&tuple, false).await.unwrap().said.owner;
        assert_eq!((waiting.uid, waiting.accepted), (alice.uid, false));
        let early = portal.agents.confirm(&tuple, &waiting).await.unwrap_err();
        assert_eq!(early, NoOwner::Unowned(Unowned::NotAccepted));
        assert!(portal.agents.listens_still(&tuple, waiting.listener).await.unwrap().said);
        drop(deaf);
        until("the listener's end", PATIENCE, async || {
            (!portal.agents.listens_still(&tuple, waiting.listener).await.unwrap().said).then_some(())
        })
        .await;

        let app = node.app(&alice, "10.77.1.2:9006", &[]);
        let (_stream, tuple) = connect(at("10.77.1.2", app.port())).await;
        let owner = until("the application to accept", PATIENCE, async || {
            let owner = portal.agents.owner(&tuple, false).await.unwrap().said.owner;
            owner.accepted.then_some(owner)
        })
        .await;
        let before = portreeve_model::Owner { accepted: false, ..owner };
        assert_eq!(portal.agents.confirm(&tuple, &before).await.unwrap().said.owner, owner);
        // A connection that nobody made; one of root's.
        let nobodys = Tuple { client: "10.77.1.1:1".parse().unwrap(), ..tuple };
        assert!(matches!(
            portal.agents.owner(&nobodys, false).await,
            Err(NoOwner::Unowned(Unowned::ListenerOnly))
        ));
        let (rows, more) = portal.agents.listening(&name("c1"), alice.uid).await.unwrap();
        let ports: Vec<u16> = rows.iter().map(|row| row.port).collect();
        assert!(!more && ports.contains(&9006) && !ports.contains(&9002), "{rows:?}");
        assert_eq!(rows[0].command.as_deref(), Some("portreeve-test-"));
        assert!(agent.0.stderr().contains("connected"));
    });
}

#[test]
fn the_group_rule_needs_two_capabilities_and_no_more() {
    let test = "the_group_rule_needs_two_capabilities_and_no_more";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    in_a_network(test, async move |lan| {
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &[]);
        let app = node.app(&alice.clone().under("proj"), "10.77.1.2:9001", &[]);
        let server = at("10.77.1.2", app.port());
        let group = async || portal.owner(server, true).await.unwrap().said.owner;
        for rights in [Rights::Root, Rights::Least, Rights::None] {
            // Without a capability the key file must be its own.
            if rights == Rights::None {
                std::fs::set_permissions(
                    portal.dir.path().join("agent-keys"),
                    PermissionsExt::from_mode(0o755),
                )
                .unwrap();
                std::os::unix::fs::chown(portal.key_file("c1"), Some(20_990), None).unwrap();
            }
            let agent = node.agent(&config, rights);
            agent.logged(&["connected"]).await;
            portal.connected("c1").await;
            // The first look may find that the connection has not been accepted yet, which is no answer about a group.
            let owner = until("the holders' group", PATIENCE, async || {
                let owner = group().await;
                (owner.groups != OwnerGroups::Unknown(UnknownGroup::NoHolderSeen)).then_some(owner)
            })
            .await;
            let expected = match rights {
                Rights::Root | Rights::Least => OwnerGroups::Egid(gid("proj").as_raw()),
                Rights::None => OwnerGroups::Unknown(UnknownGroup::NotPermitted),
            };
            assert_eq!((owner.uid, owner.groups), (alice.uid, expected), "{rights:?}");
            // CAP_DAC_READ_SEARCH is 2, CAP_SYS_PTRACE 19.
            let two = format!("{:016x}", (1u64 << 2) | (1 << 19));
            let left = if rights == Rights::None { "0".repeat(16) } else { two };
            for set in ["CapEff", "CapPrm"] {
                assert_eq!(agent.status(set), left, "{rights:?} {set}");
            }
            assert_eq!(agent.status("CapInh"), "0".repeat(16));
            assert_eq!(agent.status("CapAmb"), "0".repeat(16));
            assert_eq!((agent.status("NoNewPrivs"), agent.status("Seccomp")), ("1".into(), "2".into()));
            if rights == Rights::None {
                agent.logged(&["CAP_SYS_PTRACE", "no group"]).await;
            }
        }
        let _ = bob;
    });
}

#[test]
fn it_refuses_what_is_not_its_nodes_whatever_the_map_says() {
    let test = "it_refuses_what_is_not_its_nodes_whatever_the_map_says";
    let Some([alice]) = people(test, ["alice"]) else { return };
    in_a_network(test, async move |lan| {
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let other = lan.node("c2").await;
        lan.cable(&other, &["10.77.3.1/24"], &["10.77.3.2/24"]);
        // The sysadmin gave c1 an address of c2's.
        let agent = node.agent(&portal.add("c1", &["10.77.1.2", "10.77.3.2"], &[]), Rights::Least);
        portal.connected("c1").await;
        let app = other.app(&alice, "10.77.3.2:9001", &[]);
        let refused = portal.owner(at("10.77.3.2", app.port()), false).await.unwrap_err();
        assert!(matches!(&refused, NoOwner::Agent(AgentError::Refused { .. })), "{refused:?}");
        agent.logged(&["10.77.3.2:9001", "not this node's"]).await;
        // An address that the node gets later is found.
        lan.cable(&node, &["10.77.4.1/24"], &["10.77.4.2/24"]);
        portal.add("c1", &["10.77.1.2", "10.77.4.2"], &["--replace"]);
        agent.0.signal(Signal::SIGHUP);
        agent.logged(&["reloaded"]).await;
        portal.connected("c1").await;
        let app = node.app(&alice, "10.77.4.2:9001", &[]);
        // The list of addresses is read again a tenth of a second after one was not in it, at the earliest.
        let found = until("the address to be known", PATIENCE, async || {
            portal.owner(at("10.77.4.2", app.port()), false).await.ok()
        })
        .await;
        assert_eq!(found.said.owner.uid, alice.uid);
    });
}

#[test]
fn restarts_under_questions_give_right_answers_or_none() {
    let test = "restarts_under_questions_give_right_answers_or_none";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    in_a_network(test, async move |lan| {
        let (node, mut portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &[]);
        let mut agent = node.agent(&config, Rights::Least);
        portal.connected("c1").await;
        let apps = [
            (node.app(&alice, "10.77.1.2:9001", &[]), alice.uid),
            (node.app(&bob, "10.77.1.2:9002", &[]), bob.uid),
        ];
        let mut asking = tokio::task::JoinSet::new();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for (app, uid) in &apps {
            for _ in 0..8 {
                let (server, uid) = (at("10.77.1.2", app.port()), *uid);
                let (agents, stop) = (Arc::clone(&portal.agents), Arc::clone(&stop));
                asking.spawn(async move {
                    let (mut right, mut none) = (0, 0);
                    let (_stream, tuple) = connect(server).await;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        match agents.owner(&tuple, false).await {
                            Ok(heard) => {
                                assert_eq!(heard.said.owner.uid, uid);
                                right += 1;
                            }
                            Err(NoOwner::Agent(AgentError::Unreachable { .. })) => {
                                none += 1;
                                tokio::time::sleep(Duration::from_millis(1)).await;
                            }
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    (right, none)
                });
            }
        }
        for _ in 0..3 {
            agent.0.signal(Signal::SIGKILL);
            agent.0.wait(PATIENCE).unwrap();
            agent = node.agent(&config, Rights::Least);
            agent.logged(&["connected"]).await;
            portal.connected("c1").await;
        }
        // The portal goes away, and comes back.
        portal.vanish().await;
        agent.logged(&["again_in"]).await;
        let gone = Instant::now();
        portal.come_back().await;
        portal.connected("c1").await;
        assert!(gone.elapsed() < Duration::from_secs(3), "it took {:?} to come back", gone.elapsed());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        while let Some(counts) = asking.join_next().await {
            // Whether any went without an answer depends on how fast it was back: they wait for it a little.
            let (right, none) = counts.unwrap();
            assert!(right > 0, "{right} {none}");
        }
        assert_eq!(portal.agents.generation(&name("c1")), 1, "it is one boot");
    });
}

#[test]
fn a_portal_that_is_not_there_is_asked_for_ever_more_seldom() {
    let test = "a_portal_that_is_not_there_is_asked_for_ever_more_seldom";
    in_a_network(test, async move |lan| {
        let (node, mut portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &[]);
        portal.vanish().await;
        let agent = node.agent(&config, Rights::Least);
        let first = agent.logged(&["no connection", "refused", "again_in"]).await;
        assert!(first.contains("portal=10.77.1.1:8499"), "{first}");
        portal.come_back().await;
        portal.connected("c1").await;
        // One line for a portal that is away, not one for each try.
        let lines = agent.0.stderr().lines().filter(|line| line.contains("again_in")).count();
        assert_eq!(lines, 1, "{}", agent.0.stderr());
    });
}

#[test]
fn wrong_keys_and_revoked_ones_are_refused() {
    let test = "wrong_keys_and_revoked_ones_are_refused";
    in_a_network(test, async move |lan| {
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &[]);
        // Another site's key, towards this portal; and this site's node, towards another portal.
        let elsewhere = AgentsEnd::new("10.77.2.1:8499").await;
        let foreign = elsewhere.add("c1", &C1, &[]);
        std::fs::write(
            &foreign,
            format!("key = '{}'\nportals = ['{PORTAL}']\n", elsewhere.key_file("c1").display()),
        )
        .unwrap();
        let agent = node.agent(&foreign, Rights::Least);
        agent.logged(&["TLS handshake failed"]).await;
        assert!(matches!(portal.connection("c1"), Connection::Down { .. }));
        drop(agent);

        let agent = node.agent(&config, Rights::Least);
        portal.connected("c1").await;
        portal.portreeve(&["keys", "revoke", "c1"]);
        portal.reload(&[]);
        agent.logged(&["ended the connection", "node map"]).await;
        // Not even the weaker way is open to it now.
        portal.reload(&["10.77.0.0/16"]);
        let Connection::Down { why } = portal.connection("c1") else { panic!() };
        assert!(why.contains("no key"), "{why}");
        // A new key, and all is well.
        portal.add("c1", &[], &[]);
        agent.0.signal(Signal::SIGHUP);
        portal.connected("c1").await;
    });
}

#[test]
fn without_a_key_it_comes_from_a_privileged_port_and_is_believed_only_where_that_is_allowed() {
    let test = "without_a_key_it_comes_from_a_privileged_port_and_is_believed_only_where_that_is_allowed";
    let Some([alice]) = people(test, ["alice"]) else { return };
    in_a_network(test, async move |lan| {
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let nodes = portal.dir.path().join("nodes.toml");
        let text = std::fs::read_to_string(&nodes).unwrap();
        std::fs::write(
            &nodes,
            format!("{text}[[node]]\nname = 'c1'\naddresses = ['10.77.1.2', '10.77.2.2']\nplain = true\n"),
        )
        .unwrap();
        let config = portal.dir.path().join("agent.toml");
        std::fs::write(&config, format!("plain = true\nnode = 'c1'\nportals = ['{PORTAL}']\n")).unwrap();
        portal.reload(&[]);
        let agent = node.agent(&config, Rights::Root);
        agent.logged(&["no key is used", "weaker way"]).await;
        until("the refusal", PATIENCE, async || match portal.connection("c1") {
            Connection::Down { why } if why.contains("outside agents.plain_networks") => Some(()),
            _ => None,
        })
        .await;
        portal.reload(&["10.77.1.0/24"]);
        portal.connected("c1").await;
        let Connection::Up { from, plain: true, .. } = portal.connection("c1") else { panic!() };
        assert!(from.port() < 1024, "{from}");
        let app = node.app(&alice, "0.0.0.0:9001", &[]);
        assert_eq!(portal.owner(at("10.77.1.2", 9001), false).await.unwrap().said.owner.uid, alice.uid);
        assert_eq!(portal.owner(at("10.77.2.2", app.port()), false).await.unwrap().said.owner.uid, alice.uid);
        drop(agent);
        // Who may not take a privileged port can't pose as the agent.
        let unprivileged = node.agent(&config, Rights::None);
        unprivileged.logged(&["no privileged port is free"]).await;
        // That the first one has gone may take the portal a moment.
        until("nobody is connected", PATIENCE, async || match portal.connection("c1") {
            Connection::Down { .. } => Some(()),
            _ => None,
        })
        .await;
    });
}

#[test]
fn signals_and_the_check() {
    let test = "signals_and_the_check";
    in_a_network(test, async move |lan| {
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &[]);
        let mut agent = node.agent(&config, Rights::Least);
        portal.connected("c1").await;
        let Connection::Up { since, .. } = portal.connection("c1") else { panic!() };
        // Wrong settings are told, and the old ones stay; the same ones leave the connection alone.
        let good = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, "kee = 1\n").unwrap();
        agent.0.signal(Signal::SIGHUP);
        agent.logged(&["not reloaded", "1 problem"]).await;
        std::fs::write(&config, &good).unwrap();
        agent.0.signal(Signal::SIGHUP);
        agent.logged(&["configuration and key reloaded"]).await;
        assert!(matches!(portal.connection("c1"), Connection::Up { since: now, .. } if now == since));
        agent.0.signal(Signal::SIGTERM);
        assert_eq!(agent.0.wait(PATIENCE), Some(0), "{}", agent.0.stderr());

        let check = |config: &Path| {
            let program = std::env::var_os("PORTREEVE_AGENT_BIN").map_or_else(
                || {
                    std::env::current_exe()
                        .unwrap()
                        .parent()
                        .unwrap()
                        .parent()
                        .unwrap()
                        .join("portreeve-agent")
                },
                Into::into,
            );
            Command::new(program).arg("--check").arg("--config").arg(config).output().unwrap()
        };
        let done = check(&config);
        assert!(
            done.status.success() && String::from_utf8_lossy(&done.stdout).contains("no problems: node c1")
        );
        std::fs::write(&config, "kee = 1\nportals = ['x']\nplain = 'no'\n").unwrap();
        let done = check(&config);
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1));
        for part in ["3 problem(s)", ":1: kee: ", ":2: portals: ", ":3: plain: "] {
            assert!(told.contains(part), "{told}");
        }
    });
}

/// A control group as Slurm's, removed when dropped.
struct SlurmJob(std::path::PathBuf);

impl SlurmJob {
    fn new(job: u32) -> std::io::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let line =
            mounts.lines().find(|line| line.contains(" - cgroup2 ")).ok_or(std::io::ErrorKind::NotFound)?;
        let mount = Path::new(line.split(' ').nth(4).unwrap());
        let scope = mount.join(format!("portreeve-test-{}-slurmstepd.scope", std::process::id()));
        std::fs::create_dir(&scope)?;
        let job = Self(scope.join(format!("job_{job}")));
        std::fs::create_dir(&job.0)?;
        Ok(job)
    }
}

impl Drop for SlurmJob {
    fn drop(&mut self) {
        for dir in [self.0.as_path(), self.0.parent().unwrap()] {
            // It is busy until its last process is gone.
            let start = Instant::now();
            while std::fs::remove_dir(dir).is_err() && start.elapsed() < PATIENCE {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn the_slurm_job_is_named() {
    let test = "the_slurm_job_is_named";
    let Some([alice]) = people(test, ["alice"]) else { return };
    in_a_network(test, async move |lan| {
        let job = match SlurmJob::new(4711) {
            Ok(job) => job,
            Err(error) => return skip(test, &format!("no control group (v2) can be made: {error}")),
        };
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let _agent = node.agent(&portal.add("c1", &C1, &[]), Rights::Least);
        portal.connected("c1").await;
        let app = node.app_in(&job.0, &alice, "10.77.1.2:9001");
        let outside = node.app(&alice, "10.77.1.2:9002", &[]);
        for (port, named) in [(app.port(), Some(4711)), (outside.port(), None)] {
            let heard = portal.owner(at("10.77.1.2", port), false).await.unwrap();
            assert_eq!((heard.said.owner.uid, heard.said.job), (alice.uid, named));
        }
        let (rows, _) = portal.agents.listening(&name("c1"), alice.uid).await.unwrap();
        let jobs: Vec<_> = rows.iter().map(|row| (row.port, row.job)).collect();
        assert_eq!(jobs, [(9001, Some(4711)), (9002, None)]);
        drop(app);
    });
}

/// Asks as `portreeve login` does, as this person.
fn ask_to_sign_in(socket_path: &Path) -> UnixStream {
    let asking = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect_to(asking.as_raw_fd(), &UnixAddr::new(socket_path).unwrap()).unwrap();
    let mut asking = UnixStream::from(asking);
    asking.write_all(&wire::encode_bare(&ControlRequest::Login).unwrap()).unwrap();
    asking
}

/// The same for whoever may be turned away meanwhile.
fn try_to_ask(socket_path: &Path) -> Option<UnixStream> {
    let asking = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect_to(asking.as_raw_fd(), &UnixAddr::new(socket_path).unwrap()).unwrap();
    let mut asking = UnixStream::from(asking);
    let asked = asking.write_all(&wire::encode_bare(&ControlRequest::Login).unwrap());
    asked.is_ok().then_some(asking)
}

async fn replied(mut asking: UnixStream) -> ControlReply {
    // This thread is the portal's, too.
    let reading = tokio::task::spawn_blocking(move || {
        asking.set_read_timeout(Some(2 * PATIENCE)).unwrap();
        let mut reply = vec![0; MAX_FRAME];
        let length = asking.read(&mut reply).unwrap();
        wire::decode(&reply[..length]).unwrap()
    });
    reading.await.unwrap()
}

#[test]
fn people_sign_in_from_login_nodes() {
    let test = "people_sign_in_from_login_nodes";
    in_a_network(test, async move |lan| {
        let (node, mut portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &["--role", "login"]);
        let socket_path = portal.dir.path().join("login.sock");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}login_socket = '{}'\n", socket_path.display())).unwrap();
        let agent = node.agent(&config, Rights::Root);
        portal.connected("c1").await;
        until("the agent to know that", PATIENCE, async || {
            agent.0.stderr().contains("connected").then_some(())
        })
        .await;
        let asking = ask_to_sign_in(&socket_path);
        let asked = portal.logins.recv().await.unwrap();
        assert_eq!((asked.node, asked.uid), (name("c1"), 0));
        asked.reply.send(ControlReply::Address { url: "https://portal/-/enter?code=x".into() }).unwrap();
        assert_eq!(
            replied(asking).await,
            ControlReply::Address { url: "https://portal/-/enter?code=x".into() }
        );
        // The portal refuses; the portal is away; too many at once.
        let asking = ask_to_sign_in(&socket_path);
        drop(portal.logins.recv().await.unwrap());
        assert!(matches!(replied(asking).await, ControlReply::Refused { .. }));
        let waiting: Vec<_> = (0..2).map(|_| ask_to_sign_in(&socket_path)).collect();
        let (one, two) = (portal.logins.recv().await.unwrap(), portal.logins.recv().await.unwrap());
        let third = ask_to_sign_in(&socket_path);
        let ControlReply::Refused { reason } = replied(third).await else { panic!() };
        assert!(reason.contains("too often"), "{reason}");
        portal.vanish().await;
        for asking in waiting {
            let ControlReply::Refused { reason } = replied(asking).await else { panic!() };
            assert!(reason.contains("ended"), "{reason}");
        }
        drop((one, two));
        let ControlReply::Refused { reason } = replied(ask_to_sign_in(&socket_path)).await else { panic!() };
        assert!(reason.contains("no portal"), "{reason}");
    });
}

/// Another user's question carries their uid.
#[test]
fn who_signs_in_is_known_from_the_kernel() {
    let test = "who_signs_in_is_known_from_the_kernel";
    let Some([alice]) = people(test, ["alice"]) else { return };
    in_a_network(test, async move |lan| {
        let (node, mut portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &["--role", "login"]);
        let socket_path = portal.dir.path().join("login.sock");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}login_socket = '{}'\n", socket_path.display())).unwrap();
        let agent = node.agent(&config, Rights::Root);
        agent.logged(&["connected"]).await;
        // Another user who asks as often as they can, and reads nothing, takes no place of hers.
        let others: Vec<UnixStream> = (0..150).filter_map(|_| try_to_ask(&socket_path)).collect();
        let held = [portal.logins.recv().await.unwrap(), portal.logins.recv().await.unwrap()];
        assert!(held.iter().all(|asked| asked.uid == 0));
        let program = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.connect(sys.argv[1]); \
                       s.send(b'\"login\"'); print(s.recv(65536).decode())";
        let options =
            ["--reuid", &alice.uid.to_string(), "--regid", &alice.gid.to_string(), "--clear-groups"]
                .map(str::to_owned);
        let arguments = ["-c".to_owned(), program.to_owned(), socket_path.display().to_string()];
        let asking = node.start(Path::new("/usr/bin/python3"), &options, &arguments);
        let asked = tokio::time::timeout(PATIENCE, portal.logins.recv()).await.unwrap().unwrap();
        assert_eq!(asked.uid, alice.uid);
        asked.reply.send(ControlReply::Refused { reason: "not today".into() }).unwrap();
        let line = tokio::task::spawn_blocking(move || asking.line(PATIENCE)).await.unwrap();
        assert!(line.unwrap().contains("not today"));
        drop((others, held));
    });
}

/// A portal that is played here, to say what a portal does not say.
#[test]
fn an_agent_survives_a_portal_that_makes_no_sense() {
    let test = "an_agent_survives_a_portal_that_makes_no_sense";
    in_a_network(test, async move |lan| {
        let (node, mut portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let config = portal.add("c1", &C1, &[]);
        portal.vanish().await;
        let key = std::fs::read_to_string(portal.dir.path().join("agents-key.pem")).unwrap();
        let own = Identity::from_pem(&Secret::new(key)).unwrap();
        let tls = TlsAcceptor::from(Arc::new(server_config(&own, |_| true).unwrap()));
        let free = async || TcpListener::bind(PORTAL).await.ok();
        let listener = until("the other one's address", PATIENCE, free).await;
        let agent = node.agent(&config, Rights::Least);
        let ask = |id, question| wire::encode(&ToAgent::Ask { id, question }).unwrap();
        let ping = ask(1, Question::Ping);
        let long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
        for (bytes, told) in [
            (&ping[..ping.len() - 1], "begun and not finished"),
            (&long[..], "at most 65536"),
            (b"\0\0\0\x08{\"exec\":}", "expected form"),
            (b"\0\0\0\0", "empty"),
            (
                &wire::encode(&ToAgent::Login {
                    id: 1,
                    reply: ControlReply::Refused { reason: String::new() },
                })
                .unwrap()[..],
                "answered what was not asked",
            ),
            (
                &wire::encode(&ToAgent::Goodbye { why: "go".into() }).unwrap()[..],
                "ended the connection: \\\"go\\\"",
            ),
        ] {
            let (stream, _) = tokio::time::timeout(3 * PATIENCE, listener.accept()).await.unwrap().unwrap();
            let (reading, mut writing) = tokio::io::split(tls.accept(stream).await.unwrap());
            let mut reader = FrameReader::new(reading);
            let hello: FromAgent = reader.next(PATIENCE, PATIENCE).await.unwrap();
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            let boot = boot.trim().to_owned();
            assert_eq!(hello, FromAgent::Hello { version: VERSION, node: name("c1"), boot });
            // First it makes sense: many at once, among them slow ones, and each is answered.
            let mut open: Vec<u32> = (0..200).collect();
            let mut questions = Vec::new();
            for id in &open {
                let question = if id % 10 == 0 { Question::Listening { uid: 0 } } else { Question::Ping };
                questions.extend(ask(*id, question));
            }
            writing.write_all(&questions).await.unwrap();
            while !open.is_empty() {
                let answer: FromAgent = reader.next(PATIENCE, PATIENCE).await.unwrap();
                let FromAgent::Answer { id, answer } = answer else { panic!("{answer:?}") };
                let fits = matches!(
                    (id % 10, &answer),
                    (0, Answer::Listening { .. } | Answer::Refused { .. }) | (1.., Answer::Pong)
                );
                assert!(fits, "{id} {answer:?}");
                open.retain(|other| *other != id);
            }
            writing.write_all(bytes).await.unwrap();
            writing.flush().await.unwrap();
            let ended = reader.next::<FromAgent>(2 * PATIENCE, PATIENCE).await;
            assert!(ended.is_err(), "{told}: {ended:?}");
            until(told, PATIENCE, async || {
                agent.0.stderr().replace('"', "\\\"").contains(told).then_some(())
            })
            .await;
        }
    });
}

/// What makes a node busy: each of these users gets 5,000 sockets in one process, or processes that sleep.
async fn crowd(
    node: &Node,
    sockets: impl IntoIterator<Item = u32>,
    sleepers: impl IntoIterator<Item = (u32, usize)>,
) -> Vec<portreeve_tests::world::Running> {
    let pairs = "import resource,socket,sys
hard=resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE,(hard,hard))
l=socket.socket(); l.bind(('127.0.0.1',0)); l.listen(64); kept=[]
for i in range(2500):
    c=socket.create_connection(l.getsockname()); kept+=[c,l.accept()[0]]
print('ready',flush=True); sys.stdin.read()"
        .to_owned();
    let sleep = |count: usize| {
        format!("for i in $(seq {count}); do setpriv --pdeathsig KILL sleep 3600 & done; echo ready; wait")
    };
    let mut programs: Vec<(u32, &str, String)> =
        sockets.into_iter().map(|uid| (uid, "/usr/bin/python3", pairs.clone())).collect();
    programs.extend(sleepers.into_iter().map(|(uid, count)| (uid, "/bin/sh", sleep(count))));
    let mut crowd = Vec::new();
    for (uid, program, text) in programs {
        let options =
            ["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups"].map(str::to_owned);
        let started = node.start(Path::new(program), &options, &["-c".to_owned(), text]);
        let (started, line) = tokio::task::spawn_blocking(move || {
            let line = started.line(6 * PATIENCE);
            (started, line)
        })
        .await
        .unwrap();
        assert_eq!(line.as_deref(), Some("ready"), "{}", started.stderr());
        crowd.push(started);
    }
    crowd
}

/// The median and the 99th percentile.
fn told(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    println!("{what}: p50 {:?}, p99 {:?}, most {:?} ({} times)", at(0.5), at(0.99), at(1.0), took.len());
    at(0.99)
}

#[test]
#[ignore = "measures, with 20,000 sockets and 2,000 processes"]
fn how_long_an_answer_takes() {
    let test = "how_long_an_answer_takes";
    let Some([alice]) = people(test, ["alice"]) else { return };
    in_a_network(test, async move |lan| {
        let (node, portal) = (c1(&lan).await, AgentsEnd::new(PORTAL).await);
        let agent = node.agent(&portal.add("c1", &C1, &[]), Rights::Least);
        portal.connected("c1").await;
        let app = node.app(&alice, "10.77.1.2:9001", &[]);
        let server = at("10.77.1.2", app.port());
        let (_stream, tuple) = connect(server).await;
        let agents = Arc::clone(&portal.agents);
        let sequential = async || {
            let mut took = Vec::new();
            for _ in 0..3000 {
                let asked = Instant::now();
                agents.owner(&tuple, false).await.unwrap();
                took.push(asked.elapsed());
            }
            took
        };
        let pings = async || {
            let mut took = Vec::new();
            for _ in 0..3000 {
                let asked = Instant::now();
                agents.ask(&name("c1"), Question::Ping, PATIENCE).await.unwrap();
                took.push(asked.elapsed());
            }
            took
        };
        sequential().await;
        told("ping over TLS and veth, empty node", pings().await);
        told("owner over TLS and veth, empty node", sequential().await);
        let others = (0..50).map(|number| (30_000 + number, 39));
        let crowded = crowd(&node, 30_000..30_004, others.chain([(alice.uid, 40)])).await;
        let sockets = std::fs::read_to_string(format!("/proc/{}/net/sockstat", crowded[0].pid())).unwrap();
        println!("{}", sockets.lines().nth(1).unwrap_or_default());
        told("ping over TLS and veth, full node", pings().await);
        told("owner over TLS and veth, full node", sequential().await);

        // The look-up alone, on the node.
        let namespace = std::fs::File::open(node.namespace()).unwrap();
        let alone = std::thread::spawn(move || {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let lookup = portreeve_agent::Lookup::open().unwrap();
            let took = |_| {
                let asked = Instant::now();
                lookup.owner(&tuple).unwrap();
                asked.elapsed()
            };
            (0..20_000).map(took).collect::<Vec<_>>()
        });
        let p99 = told("the look-up alone, full node", alone.join().unwrap());
        assert!(p99 < Duration::from_micros(200), "{p99:?}");

        let flood = async |count: usize| {
            let (begun, mut asking) = (Instant::now(), tokio::task::JoinSet::new());
            for _ in 0..count {
                let agents = Arc::clone(&agents);
                asking.spawn(async move {
                    let mut took = Vec::new();
                    for _ in 0..500 {
                        let asked = Instant::now();
                        agents.owner(&tuple, false).await.unwrap();
                        took.push(asked.elapsed());
                    }
                    took
                });
            }
            let took: Vec<Duration> = asking.join_all().await.into_iter().flatten().collect();
            println!(
                "{} questions at once: {:.0} a second",
                count,
                took.len() as f64 / begun.elapsed().as_secs_f64()
            );
            told("  each", took);
        };
        flood(32).await;

        // A first look at processes, each for a listener that nobody has looked at.
        let first_looks = async |ports: std::ops::Range<u16>| {
            let mut looks = Vec::new();
            for port in ports {
                let app = node.app(&alice, &format!("10.77.1.2:{port}"), &[]);
                let (_stream, tuple) = connect(at("10.77.1.2", app.port())).await;
                until("the application to accept", PATIENCE, async || {
                    agents.owner(&tuple, false).await.unwrap().said.owner.accepted.then_some(())
                })
                .await;
                let asked = Instant::now();
                let owner = agents.owner(&tuple, true).await.unwrap().said.owner;
                looks.push(asked.elapsed());
                assert_eq!(owner.groups, OwnerGroups::Egid(alice.gid));
            }
            looks
        };
        told("the group's first look, of the owner's 40 processes", first_looks(9100..9120).await);
        let _her_crowd = crowd(&node, [alice.uid, alice.uid], [(alice.uid, 1000)]).await;
        told("the same, of 1,000 processes and 10,000 sockets of hers", first_looks(9200..9220).await);

        // Looks at processes all the time, and quick questions beside them.
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut looking = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (agents, stop, alice) = (Arc::clone(&agents), Arc::clone(&stop), alice.clone());
            looking.spawn(async move {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if agents.ask(&name("c1"), Question::Listening { uid: alice.uid }, PATIENCE).await.is_ok()
                    {
                        count += 1;
                    }
                }
                count
            });
        }
        told("owner beside 16 looks at processes at once", sequential().await);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let looked: usize = looking.join_all().await.into_iter().sum();
        println!("  {looked} looks meanwhile; the agent has {}", agent.status("VmRSS"));
    });
}
