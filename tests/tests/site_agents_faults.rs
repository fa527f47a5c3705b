//! Nodes of an installed site are cut off, and their agents die, hang, are flooded or lie, while people use the portal: what they
//! see meanwhile, that nobody gets what is not theirs, and that everything comes back by itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::await_holding_lock,
    reason = "that others wait is what it is held for; each has a thread of its own"
)]

use std::time::Duration;

use portreeve_portal::limits::{self, AGENT_ANSWER, AGENT_HANDSHAKE, LISTENING, LISTENING_FRESH};
use portreeve_tests::world::faults::{assert_fine, is_fine, took};
use portreeve_tests::world::site::{PROGRAMS, Site, SiteApp, outside};
use portreeve_tests::world::traffic::Traffic;
use portreeve_tests::world::{Client, Running};

/// What a machine that is busy with other tests may need in addition to any limit.
const SLACK: Duration = Duration::from_secs(4);
/// The node's second address is tried a little later.
const CONNECT: Duration = limits::CONNECT.saturating_add(limits::CONNECT_NEXT);

/// Begins when no other test runs and everything is all right.
macro_rules! alone {
    ($site:ident) => {
        let _alone = $site.alone();
        $site.settled().await;
    };
}

/// An application that nobody has opened, and its path: asking for it makes a connection, and asks whose that is.
fn unvisited(site: &Site, node: &str, user: &str) -> (SiteApp, String) {
    let app = site.app(node, user, None, "0.0.0.0:0");
    let path = format!("/fw2/{node}:{}/", app.port());
    (app, path)
}

#[test]
fn a_node_that_is_cut_off_costs_its_own_visitors_alone() {
    outside("a_node_that_is_cut_off", |site| async {
        /// The kernel may know that nobody answers there any more.
        const UNREACHED: [&str; 2] = ["connect-timeout", "no-route"];
        alone!(site);
        let (alice, bob) = (site.busy("alice", "c2").await, site.busy("bob", "c1").await);
        let (_app, path) = unvisited(site, "c2", "alice");
        let mut traffic =
            Traffic::begin(vec![alice.asks(), alice.tunnels().await, bob.asks(), bob.looks("workspace")]);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let cut = site.breaks(
            "c2",
            "for t in iptables ip6tables; do $t -w -I INPUT ! -i lo -j DROP; $t -w -I OUTPUT ! -o lo -j DROP; done",
            "for t in iptables ip6tables; do $t -w -D INPUT ! -i lo -j DROP; $t -w -D OUTPUT ! -o lo -j DROP; done",
        );
        let began = traffic.time();
        // What the portal heard just before is shown again.
        let page = loop {
            let page = bob.client.get("/").await;
            page.assert_status(200);
            if page.text().contains("the agent on c2") || traffic.time() > began + LISTENING_FRESH + SLACK {
                break page;
            }
        };
        assert!(page.text().contains("the agent on c2 did not answer in time"), "{}", page.text());
        took("a node is cut off; others' workspace says so", began, traffic.time());
        let answer = alice.client.clone().browser().try_get(&path, CONNECT + SLACK).await.unwrap();
        took("a node is cut off; who wants to open something there was told", began, traffic.time());
        assert!(UNREACHED.contains(&answer.error()), "{answer:?}");
        let mended = traffic.time();
        cut.mend();
        let back = traffic.until("alice", mended, SLACK * 2, is_fine).await;
        took("the node is back; its pages are there", mended, back.answered());
        alice.client.get(&path).await.assert_status(200);
        took("the node is back; its agent answers", mended, traffic.time());
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["bob", "workspace"]);
        let slowest = traffic.of("workspace").iter().map(|seen| seen.took).max().unwrap();
        assert!(slowest < LISTENING + SLACK / 4, "{slowest:?}");
        // On a connection that was open before, they waited until the node was back.
        for seen in traffic.of("alice") {
            assert!(is_fine(&seen) || UNREACHED.contains(&seen.code.as_str()), "{}", traffic.story());
            assert!(seen.took < CONNECT + SLACK, "{}", traffic.story());
        }
    });
}

#[test]
fn an_agent_that_dies_is_waited_for_and_one_that_hangs_is_not() {
    outside("an_agent_that_dies", |site| async {
        alone!(site);
        let (alice, bob) = (site.busy("alice", "c1").await, site.busy("bob", "c2").await);
        let unvisited: Vec<_> = (0..4).map(|_| unvisited(site, "c1", "alice")).collect();
        let mut traffic =
            Traffic::begin(vec![alice.asks(), alice.tunnels().await, bob.asks(), bob.looks("workspace")]);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let agent = site.main_pid("c1", "portreeve-agent");
        let began = traffic.time();
        site.root("c1", &format!("kill -KILL {agent}"));
        // Most often the request waits for it to be back; on a busy machine it is asked for once more.
        site.until_status(&alice.client, &unvisited[0].1, 200).await;
        took("an agent was killed; something new on its node was opened", began, traffic.time());
        let agent = site.main_pid("c1", "portreeve-agent");
        let stopped = site.breaks("c1", &format!("kill -STOP {agent}"), &format!("kill -CONT {agent}"));
        let began = traffic.time();
        let answer = alice.client.get(&unvisited[1].1).await;
        took("an agent hangs; who wants to open something new was told", began, traffic.time());
        answer.assert_refused(503, "unknown-owner");
        assert!(traffic.time() - began < AGENT_ANSWER + SLACK);
        assert!(answer.text().contains("the agent on c1 did not answer in time"), "{}", answer.text());
        let began = traffic.time();
        stopped.mend();
        alice.client.get(&unvisited[2].1).await.assert_status(200);
        took("the agent goes on; something new was opened", began, traffic.time());
        // Stopped on purpose: nobody starts it.
        let stopped = site.breaks("c1", "systemctl stop portreeve-agent", "systemctl start portreeve-agent");
        let began = traffic.time();
        let answer = alice.client.get(&unvisited[3].1).await;
        took("there is no agent; who wants to open something new was told", began, traffic.time());
        answer.assert_refused(503, "unknown-owner");
        stopped.mend();
        alice.client.get(&unvisited[3].1).await.assert_status(200);
        traffic.stop().await;
        println!("{}", traffic.story());
        // What is open goes on.
        assert_fine(&traffic, &["alice", "bob", "workspace"]);
        assert_eq!(traffic.tunnel_ended("alice"), None);
    });
}

/// Connects again and again, and says half of something or nonsense.
const FLOOD: &str = r#"
import os, socket, time
beginnings = [b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01" + os.urandom(600), b"\x00\x00\x10\x00{\"hello\"", os.urandom(64), b""]
until, kept, count = time.monotonic() + 3, [], 0
while time.monotonic() < until:
    one = socket.create_connection(("portal.cluster.example", 8499), 5)
    try:
        one.sendall(beginnings[count % len(beginnings)])
    except OSError:
        pass
    kept.append(one)
    count += 1
    if len(kept) > 500:
        kept.pop(0).close()
print(count, flush=True)
"#;

#[test]
fn whoever_floods_the_agents_socket_or_has_another_key_is_nobody() {
    outside("whoever_floods_the_agents_socket", |site| async {
        alone!(site);
        let _quick = site.configured("[limits]\npool_idle = \"1s\"");
        let alice = site.busy("alice", "c2").await;
        let unvisited: Vec<_> = (0..4).map(|_| unvisited(site, "c2", "alice")).collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = site.portal_descriptors();
        let mut traffic = Traffic::begin(vec![alice.asks(), alice.looks("workspace")]);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let floods: Vec<Running> =
            ["c1", "c2"].map(|node| site.start(node, "bob", &format!("exec python3 -c '{FLOOD}'"))).into();
        let half = Liar::start(site, "c2", "half");
        for (_, path) in &unvisited {
            alice.client.get(path).await.assert_status(200);
        }
        for flood in &floods {
            let connections: u32 = flood.line(AGENT_HANDSHAKE + SLACK).unwrap().parse().unwrap();
            println!("    {connections} connections");
            assert!(connections > 100);
        }
        drop((floods, half));
        // A key of its own, in c2's name.
        site.root(
            "c2",
            "openssl genpkey -algorithm ed25519 -out /root/other.pem 2>/dev/null
            python3 - <<'END'
text = open('/etc/portreeve/agent-key.toml').read()
begin, end = text.index('-----BEGIN'), text.index('-----END PRIVATE KEY-----')
other = open('/root/other.pem').read()
other = other[:other.index('-----END PRIVATE KEY-----')]
open('/root/other.toml', 'w').write(text[:begin] + other + text[end:])
END
            chmod 600 /root/other.toml; rm /root/other.pem",
        );
        let stranger = Liar::start(site, "c2", "--key /root/other.toml owns");
        let said = stranger.last();
        assert!(said.starts_with("ended: ") || said.is_empty(), "{said}");
        site.root("c2", "rm /root/other.toml");
        site.settled().await;
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "workspace"]);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let most = before + 2 * (threads - 1);
        let pid = site.main_pid("login", "portreeve-portal");
        site.until("login", &format!("[ $(ls /proc/{pid}/fd | wc -l) -le {most} ] && echo so"), "so");
    });
}

/// `portreeve-test-agent` on a node, as root, with that node's own key.
struct Liar {
    running: Running,
}

impl Liar {
    fn start(site: &Site, node: &str, arguments: &str) -> Self {
        Self {
            running: site.start(node, "root", &format!("exec {PROGRAMS}/portreeve-test-agent {arguments}")),
        }
    }

    /// Starts in the place of the node's agent, and waits until the portal takes it for that.
    fn instead(site: &Site, node: &str, arguments: &str) -> Self {
        let liar = Self::start(site, node, arguments);
        assert_eq!(liar.running.line(SLACK).as_deref(), Some("greeted"), "{}", liar.running.stderr());
        site.wait_for_agents(&[node]);
        liar
    }

    /// What it was asked so far.
    fn asked(&self) -> Vec<String> {
        let mut asked = Vec::new();
        while let Some(line) = self.running.line(Duration::from_millis(50)) {
            asked.push(line);
        }
        asked
    }

    /// How it ended.
    fn last(&self) -> String {
        let mut last = String::new();
        while let Some(line) = self.running.line(SLACK) {
            last = line;
        }
        last
    }
}

#[test]
fn an_agent_that_lies_is_believed_about_its_own_node_and_nothing_else() {
    outside("an_agent_that_lies", |site| async {
        alone!(site);
        let (alice, uid) = (site.busy("alice", "c1").await, site.root("c2", "id -u alice"));
        let bobs: Vec<_> = (0..6).map(|_| unvisited(site, "c1", "bob")).collect();
        let mut traffic = Traffic::begin(vec![alice.asks(), alice.tunnels().await, alice.looks("workspace")]);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let stopped = site.breaks("c2", "systemctl stop portreeve-agent", "systemctl start portreeve-agent");
        let mut bobs = bobs.iter();
        // What holds whatever the agent of c2 does: bob's applications on c1 are closed to alice, her own are open.
        let mut nothing_else = async |client: &Client| {
            let (_, path) = bobs.next().unwrap();
            client.get(path).await.assert_refused(403, "not-yours");
            let (_own, path) = unvisited(site, "c1", "alice");
            client.get(&path).await.assert_status(200);
        };

        // Its key says who it is, not its greeting.
        let liar = Liar::instead(site, "c2", &format!("--name c1 --uid {uid} owns"));
        nothing_else(&alice.client).await;
        // On its own node root can do this anyway: read what the application reads.
        let (_bobs, path) = unvisited(site, "c2", "bob");
        alice.client.get(&path).await.assert_status(200);
        let asked = liar.asked();
        let about: Vec<&String> = asked.iter().filter(|line| line.contains("server")).collect();
        assert!(!about.is_empty(), "{asked:?}");
        for line in about {
            assert!(
                line.contains("\"server\":\"10.77.0.12:") || line.contains("\"server\":\"[fd77::12]:"),
                "{line}"
            );
        }
        let said = site.root("login", "journalctl --unit portreeve-portal --lines 60 --output cat");
        assert!(said.contains("an agent has another name for its node than the node map"), "{said}");
        drop(liar);

        // It may not ask for sign-in addresses: its key has not the role.
        let liar = Liar::start(site, "c2", &format!("--uid {uid} login"));
        assert!(
            liar.last().contains("goodbye: it asks for sign-in addresses"),
            "{:?}",
            liar.running.stderr()
        );
        // What nobody asked, and what does not fit, ends it, and the page says that nobody knows whose it is.
        for (mode, because) in [
            ("others", "it answered what nobody asked"),
            ("unfitting", "its answer does not fit the question"),
        ] {
            let liar = Liar::instead(site, "c2", &format!("--uid {uid} {mode}"));
            let (_own, path) = unvisited(site, "c2", "alice");
            alice.client.get(&path).await.assert_refused(503, "unknown-owner");
            assert_eq!(liar.last(), format!("goodbye: {because}"));
            nothing_else(&alice.client).await;
        }
        // Late is never: neither for the request that waited, nor for the next one.
        for mode in ["late", "mute"] {
            let liar = Liar::instead(site, "c2", &format!("--uid {uid} {mode}"));
            let (_bobs, path) = unvisited(site, "c2", "bob");
            let began = traffic.time();
            alice.client.get(&path).await.assert_refused(503, "unknown-owner");
            took(&format!("an agent is {mode}; who waited was told"), began, traffic.time());
            assert!(traffic.time() - began < AGENT_ANSWER + SLACK);
            nothing_else(&alice.client).await;
            drop(liar);
        }

        // The truth again.
        let began = traffic.time();
        stopped.mend();
        site.settled().await;
        took("the node's own agent is back", began, traffic.time());
        let (_bobs, path) = unvisited(site, "c2", "bob");
        alice.client.get(&path).await.assert_refused(403, "not-yours");
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "workspace"]);
        assert_eq!(traffic.tunnel_ended("alice"), None);
    });
}
