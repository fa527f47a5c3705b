//! The firewall on an installed site, and what people run there: the portal, Slurm, MPI, ssh, containers' networks, databases,
//! and `portreeve why`, which tells them what became of a connection.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portreeve_tests::world::site::{Site, guarded};
use portreeve_tests::world::skip;
use portreeve_tests::world::testbed::progress;

const REFUSED: &str = "EHOSTUNREACH";

/// What somebody types says, where it must succeed.
#[track_caller]
fn says(site: &Site, node: &str, user: &str, command: &str) -> String {
    let done = site.shell(node, user, command);
    assert_eq!(done.status, 0, "{node}: {user}: {command}:\n{}{}", done.out, done.err);
    done.out
}

#[test]
fn the_portal_needs_no_exemption() {
    guarded("the_portal_needs_no_exemption", |site| async {
        let (own, shared) =
            (site.app("c2", "alice", None, "0.0.0.0:0"), site.app("c2", "alice", Some("proj"), "0.0.0.0:0"));
        let [alice, bob, carol] =
            [site.sign_in("alice").await, site.sign_in("bob").await, site.sign_in("carol").await];
        for (client, app, allowed) in [
            (&alice, &own, true),
            (&bob, &own, false),
            (&alice, &shared, true),
            (&bob, &shared, true),
            (&carol, &shared, false),
        ] {
            let answer = client.get(&app.at("c2")).await;
            if allowed {
                answer.assert_status(200);
                assert_eq!(answer.text(), "I am uid 20001\n");
            } else {
                // The node refuses their own connection, before the portal can ask whose it would be.
                answer.assert_refused(502, "no-route");
            }
        }
        let mut socket = alice.tunnel(&own.at("c2"), "echo").await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, b"hello").await.unwrap();
    });
}

#[test]
fn it_is_said_why() {
    guarded("it_is_said_why", |site| async {
        let mut alice = site.player("c1", "alice", None);
        let mut shared = site.player("c1", "alice", Some("proj"));
        let (own, of_proj) = (alice.listens("0.0.0.0"), shared.listens("0.0.0.0"));
        let [mut client, mut bob] = ["alice", "bob"].map(|user| site.player("c2", user, None));
        assert_eq!(client.connects(("10.77.0.11", own)).said, "connected");
        assert_eq!(bob.connects(("10.77.0.11", of_proj)).said, "connected");
        let from = [client.port_of("c"), bob.port_of("c")].map(|port| format!("c2:{port}"));
        let to = [own, of_proj].map(|port| format!("c1:{port}"));

        let same = site.why("c1", "alice", &from[0], &to[0]);
        assert_eq!(same.status, 0, "{same:?}");
        assert!(same.out.contains("It is let through: both ends are one user's."), "{same:?}");
        for asker in ["bob", "alice", "root"] {
            let group = site.why("c1", asker, &from[1], &to[1]);
            assert_eq!(group.status, 0, "{group:?}");
            assert!(
                group.out.contains("whoever connects is in group 20100, which the listener runs with"),
                "{group:?}"
            );
        }
        // Neither end is carol's, nor are both of the first one's bob's.
        for (asker, at) in [("carol", 0), ("carol", 1), ("bob", 0)] {
            let others = site.why("c1", asker, &from[at], &to[at]);
            assert!(others.status == 1 && others.err.contains("neither end is yours"), "{others:?}");
            assert!(!others.out.contains("uid"), "{others:?}");
        }
        // Whoever was refused has no socket any more.
        assert_eq!(
            bob.does(&format!("connect('n', '10.77.0.11', {own}, ('10.77.0.12', 30303))")).said,
            REFUSED
        );
        let gone = site.why("c1", "alice", "c2:30303", &to[0]);
        assert!(gone.status == 1 && gone.err.contains("refused (no-connector)"), "{gone:?}");
        assert!(gone.out.contains("On c2: no program connects from there (10.77.0.12:30303)."), "{gone:?}");
        let port = alice.takes_datagrams("0.0.0.0");
        let from = bob.takes_datagrams("0.0.0.0");
        let ask = ["--from", &format!("c2:{from}"), "--to", &format!("c1:{port}")];
        let of_udp = |asker| site.run("c1", asker, &[&["portreeve", "why", "--udp"], &ask[..]].concat());
        for asker in ["bob", "root"] {
            let other = of_udp(asker);
            assert!(other.status == 1 && other.err.contains("refused (other-user)"), "{other:?}");
        }
        // By naming a port elsewhere nobody learns whose it is, with a port of their own here either.
        for asker in ["alice", "carol"] {
            let told = of_udp(asker);
            assert!(told.status == 1 && told.err.contains("the end that sends is not yours"), "{told:?}");
            assert!(!told.out.contains("uid"), "{told:?}");
        }
        let nobody = site.why("c1", "alice", "c2:30303", "c1:1025");
        assert!(
            nobody.status == 1 && nobody.out.contains("there is no such socket for 10.77.0.11:1025"),
            "{nobody:?}"
        );
        // Before anybody connects.
        let may = site.why("c1", "carol", "c2", &to[1]);
        assert!(may.status == 0 && may.out.contains("uid 20001's"), "{may:?}");
        let elsewhere = site.why("c1", "root", &to[0], "c2:5000");
        assert!(elsewhere.status == 1 && elsewhere.out.contains("ask on c2"), "{elsewhere:?}");
    });
}

/// A network of its own on c1, as containers have it; alice's processes there connect.
const BOX: &str = "
    ip netns add box
    ip link add box0 type veth peer name eth0 netns box
    ip address add 10.79.0.1/24 dev box0
    ip link set box0 up
    ip -n box address add 10.79.0.2/24 dev eth0
    ip -n box link set eth0 up
    ip -n box route add default via 10.79.0.1
    echo 1 >/proc/sys/net/ipv4/ip_forward";
const NO_BOX: &str = "
    echo 0 >/proc/sys/net/ipv4/ip_forward
    iptables --table nat --flush
    ip netns delete box";

#[test]
fn a_network_of_its_own_has_no_user_and_that_is_said() {
    guarded("a_network_of_its_own_has_no_user", |site| async {
        let _box = site.breaks("c1", BOX, NO_BOX);
        let _route = site.breaks(
            "c2",
            "ip route add 10.79.0.0/24 via 10.77.0.11",
            "ip route delete 10.79.0.0/24 via 10.77.0.11",
        );
        let (mut on_c1, mut on_c2) = (site.player("c1", "alice", None), site.player("c2", "alice", None));
        let (near, far) = (on_c1.listens("0.0.0.0"), on_c2.listens("0.0.0.0"));
        let run = "exec nsenter --net=/run/netns/box setpriv --reuid alice --regid alice --init-groups python3 $file";
        let mut inside = site.player_by("c1", "root", run);
        // With an address that is no node's.
        assert_eq!(inside.connects(("10.77.0.12", far)).said, REFUSED);
        assert_eq!(inside.connects(("10.79.0.1", near)).said, REFUSED);
        let why = site.why("c2", "alice", "10.79.0.2:40404", &format!("10.77.0.12:{far}"));
        assert!(why.status == 1 && why.err.contains("refused (unknown-node)"), "{why:?}");
        assert!(why.out.contains("10.79.0.2 is no node that can be asked"), "{why:?}");
        // With the node's: it knows no such program.
        site.root("c1", "iptables --table nat --append POSTROUTING --source 10.79.0.0/24 --jump SNAT --to-source 10.77.0.11");
        let connect = format!("connect('c', '10.77.0.12', {far}, ('10.79.0.2', 40404))");
        assert_eq!(inside.does(&connect).said, REFUSED);
        let why = site.why("c2", "alice", "c1:40404", &format!("c2:{far}"));
        assert!(why.status == 1 && why.err.contains("refused (no-connector)"), "{why:?}");
        assert!(why.out.contains("On c1: no program connects from there"), "{why:?}");
        // Who is exempt is reached from there as well.
        let mut root = site.player("c2", "root", None);
        let roots = root.listens("0.0.0.0");
        assert_eq!(inside.connects(("10.77.0.12", roots)).said, "connected");
    });
}

const MPI: &str = r#"#include <mpi.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, sum;
    char host[64];
    gethostname(host, sizeof host);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d on %s: all are %d\n", rank, host, sum);
    MPI_Finalize();
    return 0;
}
"#;

#[test]
fn slurm_and_mpi_work_as_without_it() {
    guarded("slurm_and_mpi_work_as_without_it", |site| async {
        // From a guarded node, where srun itself listens.
        let mut hosts: Vec<String> =
            says(site, "c1", "alice", "srun -N2 hostname").lines().map(str::to_owned).collect();
        hosts.sort();
        assert_eq!(hosts, ["c1", "c2"]);
        assert_eq!(says(site, "c1", "alice", "echo typed | srun -w c2 cat"), "typed\n");
        let terminal =
            says(site, "c1", "bob", "script --quiet --return --command 'srun --pty -w c2 tty' /dev/null");
        assert!(terminal.contains("/dev/pts/"), "{terminal:?}");
        // Who waits for a node is told by slurmctld, which is another user's.
        let bobs = "sbatch --parsable --exclusive -w c2 --wrap 'sleep 600'";
        let bobs = says(site, "login", "bob", bobs);
        let state = format!("squeue --noheader --format %T --job {}", bobs.trim());
        site.until("login", &state, "RUNNING");
        let waiting = site.start("c1", "alice", "srun -w c2 hostname");
        site.until("login", "squeue --noheader --format %T --user alice", "PENDING");
        site.root("login", &format!("scancel {}", bobs.trim()));
        assert_eq!(waiting.line(Duration::from_secs(30)).as_deref(), Some("c2"), "{}", waiting.stderr());
        site.write("login", "alice", "/home/alice/firewalled.c", MPI.as_bytes());
        says(site, "login", "alice", "mpicc -o firewalled firewalled.c");
        // Open MPI takes a connection from the first of a node's two addresses for a stranger's.
        let second = "10.77.0.111/24 dev inside";
        let _one =
            site.breaks("c1", &format!("ip address delete {second}"), &format!("ip address add {second}"));
        let before = site.firewalls_count("c1", "let_through_total{rule=\"same-user\"}");
        let job = "timeout 60 salloc --quiet -N2 mpirun --map-by node -n 4 --oversubscribe --mca btl tcp,self ./firewalled";
        let said = says(site, "c1", "alice", job);
        for line in ["rank 0 on c1: all are 6", "rank 1 on c2: all are 6", "rank 2 on c1", "rank 3 on c2"] {
            assert!(said.contains(line), "{line}: {said}");
        }
        let through = site.firewalls_count("c1", "let_through_total{rule=\"same-user\"}") - before;
        assert!(through > 0, "it went past the firewall");
        println!("    MPI: {through} connections to c1 were decided");
    });
}

#[test]
fn ssh_and_what_it_forwards() {
    guarded("ssh_and_what_it_forwards", |site| async {
        if site.shell("c2", "root", "test -x /usr/sbin/sshd").status != 0 {
            return skip("ssh_and_what_it_forwards", "openssh-server is not installed");
        }
        let server = "mkdir -p /run/sshd && ssh-keygen -q -A && exec /usr/sbin/sshd -D -o PidFile=none";
        let _server = site.start("c2", "root", server);
        site.until(
            "c2",
            "ss --listening --tcp --numeric --no-header 'sport = :22' | grep --count 0.0.0.0:22",
            "1",
        );
        let key = "rm -rf .ssh; mkdir -m 700 .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; cp .ssh/id_ed25519.pub .ssh/authorized_keys";
        says(site, "c1", "alice", key);
        let ssh = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";
        assert_eq!(says(site, "c1", "alice", &format!("{ssh} c2 hostname")), "c2\n");
        // What is forwarded is connected to by her own process there.
        let apps = ["alice", "bob"].map(|user| site.app("c2", user, None, "127.0.0.1:0"));
        let get = r"printf 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'";
        let through = |port| site.shell("c1", "alice", &format!("{get} | {ssh} -W 127.0.0.1:{port} c2"));
        let own = through(apps[0].port());
        assert!(own.out.contains("I am uid 20001"), "{own:?}");
        let others = through(apps[1].port());
        assert!(others.status != 0 && others.err.contains("forwarding failed"), "{others:?}");
    });
}

/// The tests' own Python packages, as the nodes see them.
const PYTHON: &str = "/opt/portreeve/tests/venv/bin/python";

const DASK: &str = "
import sys
from distributed import Client
with Client(sys.argv[1], timeout='5s') as client:
    print(client.submit(lambda a, b: a + b, 40, 2).result(timeout=20), len(client.scheduler_info()['workers']))
";

fn is_all() -> bool {
    std::env::var_os("PORTREEVE_TESTS_ALL").is_some()
}

#[test]
fn a_dask_cluster_is_its_users() {
    guarded("a_dask_cluster_is_its_users", |site| async {
        let name = "a_dask_cluster_is_its_users";
        if !is_all() {
            return skip(name, "only with --all");
        }
        if site.shell("c1", "alice", &format!("{PYTHON} -c 'import distributed'")).status != 0 {
            return skip(name, "dask's distributed is not installed");
        }
        let run = |module: &str, rest: &str| format!("exec {PYTHON} -m distributed.cli.{module} {rest}");
        let _scheduler = site.start(
            "c1",
            "alice",
            &run("dask_scheduler", "--host 10.77.0.11 --port 18786 --no-dashboard"),
        );
        let _worker = site.start(
            "c2",
            "alice",
            &run(
                "dask_worker",
                "tcp://10.77.0.11:18786 --no-dashboard --nthreads 1 --no-nanny --local-directory /tmp",
            ),
        );
        progress("a Dask cluster starts");
        site.write("c1", "alice", "/home/alice/dask-client.py", DASK.as_bytes());
        site.root("c1", "install -m 644 /home/alice/dask-client.py /tmp; install -m 644 /home/alice/dask-client.py /home/bob");
        let asks = format!("{PYTHON} dask-client.py tcp://10.77.0.11:18786");
        let began = std::time::Instant::now();
        loop {
            let done = site.shell("c2", "alice", &asks);
            if done.out == "42 1\n" {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{done:?}");
        }
        let bobs = site.shell("c2", "bob", &asks);
        assert!(bobs.status != 0 && !bobs.out.contains("42"), "{bobs:?}");
    });
}

#[test]
fn a_users_database_is_the_users() {
    guarded("a_users_database_is_the_users", |site| async {
        let name = "a_users_database_is_the_users";
        if !is_all() {
            return skip(name, "only with --all");
        }
        if site.shell("c2", "alice", "ls /usr/lib/postgresql/*/bin/initdb").status != 0 {
            return skip(name, "postgresql is not installed");
        }
        let server = "PATH=$(echo /usr/lib/postgresql/*/bin):$PATH; rm -rf /tmp/alices; \
            initdb --no-sync -A trust /tmp/alices >/dev/null && echo 'host all all 10.77.0.0/24 trust' >>/tmp/alices/pg_hba.conf && \
            exec postgres -D /tmp/alices -p 15432 -k /tmp -h 0.0.0.0";
        let _server = site.start("c2", "alice", server);
        progress("a database starts");
        let psql = "psql --no-psqlrc --tuples-only --no-align -h c2 -p 15432 -U alice postgres --command 'select 6 * 7'";
        let began = std::time::Instant::now();
        loop {
            let done = site.shell("c1", "alice", psql);
            if done.out == "42\n" {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{done:?}");
        }
        for (node, user) in [("c1", "bob"), ("c2", "bob"), ("c1", "carol")] {
            let others = site.shell(node, user, psql);
            assert!(others.status != 0 && others.err.contains("No route to host"), "{others:?}");
        }
        assert_eq!(says(site, "c2", "alice", psql), "42\n");
    });
}
