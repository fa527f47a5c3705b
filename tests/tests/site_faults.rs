//! Portal, broker, dialers and workers of an installed site die or hang while people use it: what they see meanwhile, that
//! nobody gets what is not theirs, and that everything comes back by itself. Each test prints what people saw, and how long it
//! took. The nodes' side of it is in `site_agents_faults.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::await_holding_lock,
    reason = "that others wait is what it is held for; each has a thread of its own"
)]

use std::time::Duration;

use portreeve_portal::limits::{BROKER_FRESH, CONNECT, DIALER_ANSWER, LISTENING_FRESH, WORKER_ANSWER};
use portreeve_tests::world::SESSION_COOKIE;
use portreeve_tests::world::faults::{assert_fine, is_fine, took};
use portreeve_tests::world::site::outside;
use portreeve_tests::world::traffic::{Seen, Traffic, Use};

/// What a machine that is busy with other tests may need in addition to any limit.
const SLACK: Duration = Duration::from_secs(4);
/// A dialer is tried twice.
const NO_DIALER: Duration = CONNECT.saturating_add(DIALER_ANSWER).saturating_mul(2);

const DIALER: &str = "portreeve-broke";
const WORKER: &str = "portreeve-worke";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Begins when no other test runs and everything is all right.
macro_rules! alone {
    ($site:ident) => {
        let _alone = $site.alone();
        $site.settled().await;
    };
}

#[test]
fn a_broker_that_is_killed_is_not_missed() {
    outside("a_broker_that_is_killed_is_not_missed", |site| async {
        alone!(site);
        let alice = site.busy("alice", "c1").await;
        let gone = site.sign_in("bob").await;
        assert_eq!(gone.post("/-/sign-out", "").await.status, 303);
        for (what, proper) in [("the spawner", false), ("the broker proper", true)] {
            let mut traffic =
                Traffic::begin(vec![alice.asks(), alice.looks("workspace"), alice.tunnels().await]);
            traffic.until("alice", Duration::ZERO, SLACK, is_fine).await;
            let killed = traffic.time();
            site.kills(&[if proper { site.broker() } else { site.spawner() }]);
            let carol = site.signs_in_again("carol").await;
            took(&format!("{what} was killed; somebody signed in"), killed, traffic.time());
            carol.get("/").await.assert_status(200);
            site.settled().await;
            let back = traffic.time();
            traffic.until("workspace", back, SLACK, is_fine).await;
            traffic.stop().await;
            println!("{}", traffic.story());
            assert_fine(&traffic, &["alice", "workspace"]);
            assert_eq!(traffic.tunnel_ended("alice"), None, "{}", traffic.story());
            // What ended before stays over: the broker has it in a file.
            assert!(!gone.is_signed_in().await);
            assert!(alice.client.is_signed_in().await);
        }
    });
}

#[test]
fn without_a_broker_who_signs_out_is_out_and_stays_out() {
    outside("without_a_broker", |site| async {
        alone!(site);
        let (alice, out) = (site.busy("alice", "c1").await, site.sign_in("bob").await);
        let mut traffic = Traffic::begin(vec![alice.asks(), alice.tunnels().await]);
        traffic.until("alice", Duration::ZERO, SLACK, is_fine).await;
        let stopped = traffic.time();
        let away =
            site.breaks("login", "systemctl stop portreeve-broker", "systemctl start portreeve-broker");
        let (said, tried) = tokio::join!(out.post("/-/sign-out", ""), site.tries_to_sign_in("carol"));
        took(
            "the broker is away; who signed out, and who wanted to sign in, was told",
            stopped,
            traffic.time(),
        );
        said.assert_refused(500, "sign-out-not-kept");
        tried.assert_refused(503, "unavailable");
        assert!(!out.is_signed_in().await);
        away.mend();
        let back = traffic.time();
        const WRITTEN: &str = "a sign-out that the broker could not be told of is written down now";
        site.until(
            "login",
            &format!("journalctl --unit portreeve-portal --lines 100 --output cat | grep -o '{WRITTEN}' | tail -n 1"),
            WRITTEN,
        );
        took("the broker is back; the sign-out was written down", back, traffic.time());
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice"]);
        assert_eq!(traffic.tunnel_ended("alice"), None);
        // Without what this portal knew.
        site.kills(&[site.main_pid("login", "portreeve-portal")]);
        site.settled().await;
        assert!(!out.is_signed_in().await && alice.client.is_signed_in().await);
    });
}

#[test]
fn while_the_broker_hangs_nobody_is_answered_and_no_tunnel_lives_on() {
    outside("while_the_broker_hangs", |site| async {
        alone!(site);
        let alice = site.busy("alice", "c1").await;
        let mut traffic = Traffic::begin(vec![alice.asks(), alice.looks("workspace"), alice.tunnels().await]);
        let first = traffic.until("alice", Duration::ZERO, SLACK, is_fine).await;
        let stopped = traffic.time();
        let broken = site.stops(site.broker());
        let refused = traffic.until("alice", first.at, BROKER_FRESH + SLACK, |seen| !is_fine(seen)).await;
        took("the broker hangs; requests were refused", stopped, refused.at);
        assert_eq!((refused.status, refused.code.as_str()), (503, "unavailable"));
        assert!(refused.at + seconds(1) >= stopped + BROKER_FRESH, "as long as the list is fresh they go on");
        // What people see, programs and browsers.
        let said = alice.client.get(&alice.path).await;
        said.assert_refused(503, "unavailable");
        assert_eq!(said.header("retry-after"), "1");
        let page = alice.client.clone().browser().get("/").await.text();
        assert!(page.contains("The portal can&#39;t answer anybody at the moment"), "{page}");
        // Nobody is told that they are signed out who are not.
        alice.client.post("/-/sign-out", "").await.assert_refused(503, "unavailable");
        let (began, tried) = (traffic.time(), site.tries_to_sign_in("bob").await);
        took("somebody who tries to sign in is told", began, traffic.time());
        tried.assert_refused(503, "unavailable");
        let ended = traffic.tunnel_ended("alice").expect("the tunnel has ended");
        took("the tunnel was ended", stopped, ended);
        assert!(ended + seconds(1) >= stopped + BROKER_FRESH && ended <= refused.at + SLACK);
        let resumed = traffic.time();
        broken.mend();
        let back = traffic.until("alice", resumed, SLACK, is_fine).await;
        took("the broker goes on; requests were answered", resumed, back.at);
        traffic.until("workspace", resumed, SLACK, is_fine).await;
        traffic.stop().await;
        println!("{}", traffic.story());
        for who in ["alice", "workspace"] {
            let meanwhile = |seen: &&Seen| seen.at >= refused.at && seen.answered() < resumed;
            let seen = traffic.of(who);
            let wrong: Vec<&Seen> = seen.iter().filter(meanwhile).filter(|seen| is_fine(seen)).collect();
            assert!(wrong.is_empty(), "answered: {wrong:?}");
        }
        assert!(alice.client.is_signed_in().await);
        let said = site.root("login", "journalctl --unit portreeve-portal --lines 200 --output cat");
        assert!(said.contains("ended: the broker is silent"), "{said}");
    });
}

#[test]
fn a_dialer_and_a_worker_that_are_killed_cost_nobody_a_page_unless_it_goes_on_and_on() {
    outside("a_dialer_and_a_worker_that_are_killed", |site| async {
        alone!(site);
        let (alice, bob) = (site.busy("alice", "c1").await, site.busy("bob", "c2").await);
        let people = [("alice", &alice), ("bob", &bob)];
        // Nobody has a connection to it yet.
        let other = site.app("c1", "alice", None, "0.0.0.0:0");
        let (dialer, worker) = (site.grown("alice", DIALER).await, site.grown("alice", WORKER).await);
        let uses = async || {
            let tunnel = alice.tunnels().await;
            let pages = people.map(|(_, one)| one.asks()).into_iter();
            pages.chain([alice.looks("workspace"), bob.looks("workspace of bob"), tunnel]).collect()
        };
        let mut traffic = Traffic::begin(uses().await);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let killed = traffic.time();
        site.kills(&[worker]);
        let next = traffic.until("workspace", killed, SLACK, is_fine).await;
        took("the worker was killed; its user's next page was there", killed, next.answered());
        let killed = traffic.time();
        site.kills(&[dialer]);
        alice.client.get(&format!("/fw2/c1:{}/", other.port())).await.assert_status(200);
        took("the dialer was killed; a new connection was made", killed, traffic.time());
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "workspace", "bob", "workspace of bob"]);
        assert_eq!(traffic.tunnel_ended("alice"), None);
        for (name, old) in [(DIALER, dialer), (WORKER, worker)] {
            let pids = site.pids("alice", name);
            assert!(pids.len() == 1 && pids[0] != old, "{name}: {pids:?}");
        }

        // Again and again, as its own user can: it is started ever more slowly.
        const LASTS: Duration = Duration::from_secs(4);
        let mut traffic = Traffic::begin(uses().await);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let began = traffic.time();
        let killer = site.start(
            "login",
            "alice",
            &format!(
                "while :; do pgrep --uid alice --exact {WORKER} && pkill -KILL --uid alice --exact {WORKER}; sleep 0.02; done"
            ),
        );
        tokio::time::sleep(LASTS).await;
        let mut killed: Vec<String> = std::iter::from_fn(|| killer.line(Duration::from_millis(1))).collect();
        drop(killer);
        killed.sort();
        killed.dedup();
        // The one that was there; then after one second, two, and not yet after four.
        assert!((2..=4).contains(&killed.len()), "{killed:?}");
        let refused = traffic.until("workspace", began, SLACK, |seen| !is_fine(seen)).await;
        assert_eq!((refused.status, refused.code.as_str()), (503, "worker"));
        let stopped = traffic.time();
        let back = traffic.until("workspace", stopped, seconds(4) + SLACK, is_fine).await;
        took("nobody kills the worker any more; its user's next page was there", stopped, back.answered());
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "bob", "workspace of bob"]);
        let strange = |seen: &Seen| !is_fine(seen) && seen.code != "worker";
        assert!(!traffic.of("workspace").iter().any(strange), "{}", traffic.story());
        assert_eq!(traffic.tunnel_ended("alice"), None);
    });
}

#[test]
fn a_worker_or_dialer_that_hangs_holds_up_its_user_alone_and_is_replaced() {
    outside("a_worker_or_dialer_that_hangs", |site| async {
        alone!(site);
        let _quick = site.configured("[limits]\npool_idle = \"1s\"");
        let (alice, bob) = (site.busy("alice", "c1").await, site.busy("bob", "c2").await);
        let carol = site.busy("carol", "c1").await;
        let other = site.app("c1", "bob", None, "0.0.0.0:0");
        let (dialer, worker) = (site.pids("bob", DIALER)[0], site.pids("alice", WORKER)[0]);
        tokio::time::sleep(seconds(2)).await;
        let before = site.portal_descriptors();
        let mut traffic = Traffic::begin(vec![
            Use::Page("alice", alice.client.clone(), alice.path.clone()),
            carol.asks(),
            carol.looks("workspace of carol"),
            bob.looks("workspace of bob"),
        ]);
        traffic.until("workspace of bob", Duration::ZERO, SLACK, is_fine).await;
        let broken = (site.stops(worker), site.stops(dialer));
        let stopped = traffic.time();
        let page = async {
            let page = alice.client.clone().browser().try_get("/", WORKER_ANSWER + SLACK).await.unwrap();
            took("the worker hangs; its user was told", stopped, traffic.time());
            page
        };
        // Many at once, so that what leaks is seen.
        let path = format!("/fw2/c1:{}/", other.port());
        let connections = async {
            let asked = (0..10).map(|_| bob.client.try_get(&path, NO_DIALER + SLACK));
            let all = futures_util::future::join_all(asked).await;
            took("the dialer hangs; its user was told", stopped, traffic.time());
            all
        };
        let (page, connections) = tokio::join!(page, connections);
        page.assert_refused(503, "worker");
        assert!(page.text().contains("Your worker does not answer."), "{}", page.text());
        for answer in connections {
            let answer = answer.unwrap();
            // Some are lucky: another thread has noticed meanwhile.
            assert!(answer.status == 200 || answer.error() == "no-dialer", "{answer:?}");
        }
        // The next one who asks gets another.
        for (client, path) in [(&alice.client, "/"), (&bob.client, path.as_str())] {
            let began = traffic.time();
            client.get(path).await.assert_status(200);
            took(&format!("the next request for {path}"), began, traffic.time());
        }
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "carol", "workspace of carol", "workspace of bob"]);
        drop(broken);
        for (user, name, old) in [("bob", DIALER, dialer), ("alice", WORKER, worker)] {
            let only = format!(
                "pgrep --uid {user} --exact {name} | grep -vx {old} | wc -l; pgrep --uid {user} --exact {name} | wc -l"
            );
            site.until("login", &only, "1\n1");
        }
        // One thread more may have its own channel to each of three dialers and workers now.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let most = before + 6 * (threads - 1);
        let pid = site.main_pid("login", "portreeve-portal");
        site.until("login", &format!("[ $(ls /proc/{pid}/fd | wc -l) -le {most} ] && echo so"), "so");
    });
}

#[test]
fn a_portal_that_is_killed_reloaded_restarted_or_upgraded_keeps_everybody() {
    outside("a_portal_that_is_killed", |site| async {
        alone!(site);
        let _quick = site.configured("[limits]\ndrain = \"2s\"");
        let (alice, bob) = (site.busy("alice", "c1").await, site.busy("bob", "c2").await);
        let uses = async || vec![alice.asks(), alice.looks("workspace"), bob.asks(), alice.tunnels().await];
        let people = ["alice", "workspace", "bob"];

        // Nobody has to do anything: sockets, sessions and agents are there again.
        let mut traffic = Traffic::begin(uses().await);
        traffic.until("bob", Duration::ZERO, SLACK, is_fine).await;
        let before = site.main_pid("login", "portreeve-portal");
        let killed = traffic.time();
        site.kills(&[before]);
        for who in people {
            let next = traffic.until(who, traffic.time(), SLACK, is_fine).await;
            took(
                &format!("the portal was killed; the next page of {who} was there"),
                killed,
                next.answered(),
            );
        }
        site.settled().await;
        took("the portal was killed; all agents were back", killed, traffic.time());
        assert_ne!(site.main_pid("login", "portreeve-portal"), before);
        traffic.stop().await;
        println!("{}", traffic.story());
        assert!(traffic.tunnel_ended("alice").is_some());
        for who in people {
            // What was under way is cut off; what comes later waits in the socket's queue.
            let seen = traffic.of(who);
            let bad: Vec<&Seen> = seen.iter().filter(|seen| !is_fine(seen)).collect();
            assert!(bad.iter().all(|seen| seen.status == 0 && seen.at <= killed + SLACK / 8), "{bad:?}");
        }

        let mut traffic = Traffic::begin(uses().await);
        for _ in 0..3 {
            traffic.until("bob", traffic.time(), SLACK, is_fine).await;
            site.root("login", "systemctl reload portreeve-portal");
        }
        let reloaded = traffic.time();
        traffic.until("bob", reloaded, SLACK, is_fine).await;
        traffic.stop().await;
        assert_fine(&traffic, &people);
        assert_eq!(traffic.tunnel_ended("alice"), None, "{}", traffic.story());

        site.copy(&site.package(), "login", "/root/portreeve.deb");
        // Others' triggers, the index of manual pages above all, take longer than everything else.
        let upgrade =
            "dpkg --install --no-triggers --force-unsafe-io /root/portreeve.deb; rm /root/portreeve.deb";
        for (what, script) in [("a restart", "systemctl restart portreeve-portal"), ("an upgrade", upgrade)] {
            let mut traffic = Traffic::begin(uses().await);
            traffic.until("bob", Duration::ZERO, SLACK, is_fine).await;
            let began = traffic.time();
            site.root("login", script);
            took(what, began, traffic.time());
            site.settled().await;
            traffic.until("bob", traffic.time(), SLACK, is_fine).await;
            traffic.stop().await;
            println!("{}", traffic.story());
            assert_fine(&traffic, &people);
            // It may live on for `limits.drain`.
            assert!(traffic.tunnel_ended("alice").is_some_and(|ended| ended >= began), "{}", traffic.story());
            let waited = traffic.of("alice").iter().map(|seen| seen.took).max().unwrap_or_default();
            took(&format!("{what}: the longest wait"), Duration::ZERO, waited);
        }
    });
}

#[test]
fn a_full_disk_ends_sessions_for_now_and_for_good_as_soon_as_there_is_room() {
    outside("a_full_disk", |site| async {
        const STATE: &str = "/var/lib/portreeve/broker";
        alone!(site);
        let alice = site.busy("alice", "c1").await;
        let bob = site.sign_in("bob").await;
        let mut traffic = Traffic::begin(vec![alice.asks(), alice.looks("workspace"), alice.tunnels().await]);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let sum = format!("cd {STATE} && sha256sum *.json mark-key");
        let before = site.root("login", &sum);
        let full = site.breaks(
            "login",
            &format!(
                "mount -t tmpfs -o size=4k,mode=0700 tmpfs {STATE} && head -c 4096 /dev/zero >{STATE}/full"
            ),
            &format!("umount {STATE}"),
        );
        let said = bob.post("/-/sign-out", "").await;
        said.assert_refused(500, "sign-out-not-kept");
        assert!(said.header("set-cookie").contains("Max-Age=0"), "{said:?}");
        assert!(!bob.is_signed_in().await, "it is in force all the same");
        site.sign_in("carol").await;
        full.mend();
        assert_eq!(site.root("login", &sum), before, "nothing was touched");
        let mended = traffic.time();
        let written = format!("{sum} | sha256sum");
        let as_before = site.root("login", &format!("echo '{before}' | sha256sum"));
        while site.root("login", &written) == as_before {
            assert!(traffic.time() < mended + seconds(5) + SLACK, "the broker does not try again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        took("there was room again; the ended session was written down", mended, traffic.time());
        site.kills(&[site.spawner()]);
        site.settled().await;
        assert!(!bob.is_signed_in().await, "it came back");
        assert!(alice.client.is_signed_in().await);
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "workspace"]);
        assert_eq!(traffic.tunnel_ended("alice"), None);
    });
}

#[test]
fn a_directory_service_that_hangs_lets_nobody_in_and_throws_nobody_out() {
    outside("a_directory_service_that_hangs", |site| async {
        const UNIT: &str = "/run/systemd/system/portreeve-broker.service.d";
        /// What a look-up may take, and a sign-in asks at most twice.
        const LOOK_UP: Duration = Duration::from_secs(10);
        alone!(site);
        // Mounts that root's process and its children alone see.
        let _own_mounts = site.breaks(
            "login",
            &format!(
                "mkdir -p {UNIT} && printf '[Service]\\nPrivateMounts=yes\\n' >{UNIT}/faults.conf &&
                systemctl daemon-reload && systemctl restart portreeve-broker"
            ),
            &format!("rm -r {UNIT}; systemctl daemon-reload; systemctl restart portreeve-broker"),
        );
        site.settled().await;
        let alice = site.busy("alice", "c1").await;
        let other = site.app("c1", "alice", None, "0.0.0.0:0");
        let mut traffic = Traffic::begin(vec![alice.asks(), alice.looks("workspace"), alice.tunnels().await]);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;
        let inside = format!("nsenter --target {} --mount", site.spawner());
        let hanging = site.breaks(
            "login",
            &format!(
                "mkfifo -m 0644 /run/nobody-writes; {inside} mount --bind /run/nobody-writes /etc/passwd"
            ),
            &format!("{inside} umount --lazy /etc/passwd; rm /run/nobody-writes"),
        );
        let (began, client) = (traffic.time(), site.stranger().browser());
        let tried = client.post_in(LOOK_UP * 2 + SLACK, "/-/sign-in", "user=bob&password=bob-password").await;
        took("the directory hangs; somebody who tried to sign in was told", began, traffic.time());
        let page = tried.text();
        assert!(page.contains("role=\"alert\"") && tried.set_cookie(SESSION_COOKIE).is_none(), "{page}");
        // Those who are in can connect to what they have not used yet.
        alice.client.get(&format!("/fw2/c1:{}/", other.port())).await.assert_status(200);
        let mended = traffic.time();
        hanging.mend();
        let bob = site.signs_in_again("bob").await;
        took("the directory answers; somebody signed in", mended, traffic.time());
        bob.get("/").await.assert_status(200);
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "workspace"]);
        assert_eq!(traffic.tunnel_ended("alice"), None);
    });
}

#[test]
fn a_reload_takes_all_of_what_is_good_and_nothing_of_what_is_broken() {
    outside("a_reload", |site| async {
        const TLS: &str = "/etc/portreeve/tls.crt";
        alone!(site);
        let (alice, bob) = (site.busy("alice", "c1").await, site.busy("bob", "c2").await);
        let mut traffic = Traffic::begin(vec![alice.asks(), alice.looks("workspace"), alice.tunnels().await]);
        traffic.until("workspace", Duration::ZERO, SLACK, is_fine).await;

        // Broken in each file: everything stays as it was, also what is good in the others.
        let served = async || site.stranger().certificate().await;
        let old = served().await;
        let renew = "cd /root && openssl x509 -req -in tls.csr -CA /etc/portreeve/ca.pem -CAkey ca.key -days 90 \
            -extfile tls.ext -out /etc/portreeve/tls.crt";
        for (file, damage) in [
            ("portreeve.toml", "[groups]\nnever = 7"),
            ("nodes.toml", "[[node]]\nname = \"c1\"\naddresses = [\"10.77.0.12\"]"),
            ("tls.key", "no key"),
        ] {
            let file = format!("/etc/portreeve/{file}");
            let broken = site.breaks(
                "login",
                &format!(
                    "cp -p {file} {file}.kept; cp -p {TLS} {TLS}.kept; {renew} 2>/dev/null
                    printf '{damage}\\n' | cat {} - >{file}.new; cat {file}.new >{file}; rm {file}.new
                    systemctl reload portreeve-portal",
                    if damage == "no key" { "/dev/null" } else { file.as_str() },
                ),
                &format!("mv {file}.kept {file}; mv {TLS}.kept {TLS}; systemctl reload portreeve-portal"),
            );
            site.until("login", "journalctl --unit portreeve-portal --lines 30 --output cat | grep -c 'not reloaded' | grep -vx 0 | wc -l", "1");
            assert_eq!(served().await, old, "{file}");
            alice.client.get(&alice.path).await.assert_status(200);
            bob.client.get(&bob.path).await.assert_status(200);
            broken.mend();
        }

        // A new certificate, from the same authority.
        let renewed = site.breaks(
            "login",
            &format!("cp -p {TLS} {TLS}.kept; {renew} 2>/dev/null; systemctl reload portreeve-portal"),
            &format!("mv {TLS}.kept {TLS}; systemctl reload portreeve-portal"),
        );
        let began = traffic.time();
        while served().await == old {
            assert!(traffic.time() < began + SLACK, "the old certificate is served still");
        }
        took("the new certificate was served", began, traffic.time());
        renewed.mend();

        // A key that was revoked.
        let revoked = site.breaks(
            "login",
            "cp -p /etc/portreeve/nodes.toml /etc/portreeve/nodes.toml.kept
            portreeve keys revoke c2 && systemctl reload portreeve-portal",
            "mv /etc/portreeve/nodes.toml.kept /etc/portreeve/nodes.toml; systemctl reload portreeve-portal",
        );
        let began = traffic.time();
        // What the portal heard just before is shown again.
        let workspace = loop {
            let workspace = alice.client.get("/").await.text();
            if workspace.contains("the agent on c2") || traffic.time() > began + LISTENING_FRESH + SLACK {
                break workspace;
            }
        };
        assert!(workspace.contains("the agent on c2 can&#39;t be asked"), "{workspace}");
        let refused = site.app("c2", "bob", None, "0.0.0.0:0");
        let answer = bob.client.get(&format!("/fw2/c2:{}/", refused.port())).await;
        answer.assert_refused(503, "unknown-owner");
        took("the key of a node was revoked; nothing on it can be opened", began, traffic.time());
        let mended = traffic.time();
        revoked.mend();
        site.settled().await;
        took("the key is good again; the agent is back", mended, traffic.time());
        // It was refused often, and would wait long if the next test ended its connection at once.
        site.root("c2", "systemctl restart portreeve-agent");
        site.settled().await;
        bob.client.get(&format!("/fw2/c2:{}/", refused.port())).await.assert_status(200);
        traffic.stop().await;
        println!("{}", traffic.story());
        assert_fine(&traffic, &["alice", "workspace"]);
        assert_eq!(traffic.tunnel_ended("alice"), None);
    });
}
