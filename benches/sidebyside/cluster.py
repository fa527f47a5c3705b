"""Portreeve as it is deployed, on the test cluster: portal and broker on login, the application on c1, an agent on both, the load outside.

Invariant: what the run changes of the site is in files of its own, which are gone at its end, all units run again then, and the nodes'
networks are set as before.
"""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from .files import Disk
from .places import LOAD_CORE, PROXY_CORE, BenchError, Place, Seat
from .process import Tree, read_stat
from .report import version
from .targets import LIMITS, THREADS, session

ROOT = Path(__file__).resolve().parents[2]
USER = "alice"
NODES = ("login", "c1", "c2")
# What the portal's sandbox shows it as its configuration: the site's own, with threads and limits of this run.
CONFIG = "run/portreeve-bench.toml"
PINNED = f"[Service]\nCPUAffinity={PROXY_CORE}\n"
DROP_INS = {
    "portreeve-portal": f"{PINNED}BindReadOnlyPaths=/{CONFIG}:/etc/portreeve/portreeve.toml\n",
    "portreeve-broker": PINNED, "portreeve-agent": PINNED,
}
# c2 has no part in it: its agent stands still meanwhile.
STARTED = {"login": ("portreeve-portal", "portreeve-broker", "portreeve-agent"), "c1": ("portreeve-agent",)}
READY_SECONDS = 30.0
# Closed connections keep their port for a minute, and the kernel takes milliseconds to find a free one when half of them are kept. So
# that no turn pays for those before it, the nodes' networks keep hardly any.
KEPT = "net.ipv4.tcp_max_tw_buckets"
FEW = "1000"


class Cluster:
    """The nodes of a running test cluster, entered by their first processes."""

    def __init__(self, state):
        self.state, self._pids = state, {n: _alive(state / "nodes" / n) for n in (*NODES, "outside")}
        if not all(self._pids.values()):
            raise BenchError(f"none runs in {state}")
        if not self.file("login", "etc/portreeve/tls.crt").exists():
            raise BenchError("Portreeve is not installed on it")

    def file(self, node, path):
        return Path(f"/proc/{self._pids[node]}/root") / path

    def seat(self, node, core, address):
        return Seat(core, address, Path(f"/proc/{self._pids[node]}/ns/net"))

    def mounts(self, node):
        return Path(f"/proc/{self._pids[node]}/ns/mnt")

    def user(self, name):
        """uid and gid."""
        lines = (line.split(":") for line in self.file("login", "etc/passwd").read_text().splitlines())
        return next((int(line[2]), int(line[3])) for line in lines if line[0] == name)

    def on(self, node, *command):
        """Runs a command there as root; what it says."""
        argv = [ROOT / "tests/cluster", "--dir", self.state, "exec", node, "root", *command]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise BenchError(f"{node}: {' '.join(command)}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def pids(self, node, unit):
        """The processes in a unit's cgroup, as this machine counts."""
        return [int(p) for p in self.file(node, f"sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs").read_text().split()]


def _alive(file):
    """The pid in it, if that process still runs."""
    try:
        pid, started = map(int, file.read_text().split())
    except (OSError, ValueError):
        return None
    stat = read_stat(pid)
    return pid if stat and stat.started == started else None


class Units(Tree):
    """Everything of Portreeve that runs for the user: the units, and the workers and dialers that the broker has forked."""

    name = "portreeve"

    def __init__(self, cluster):
        self._cluster, self._since = cluster, f"@{time.time():.0f}"
        self._roots = {p for node, units in STARTED.items() for unit in units for p in cluster.pids(node, unit)}
        super().__init__(self._roots)

    def has_ended(self):
        return not self._roots <= self.look().keys()

    def log_bytes(self):
        return sum(len(self._log(node, "--output=cat")) for node in STARTED)

    def log_tail(self):
        lines = [line for node in STARTED for line in self._log(node, "--lines=3", "--output=cat").splitlines()]
        return " | ".join(lines) or "it logged nothing"

    def _log(self, node, *options):
        return self._cluster.on(node, "journalctl", "--quiet", "--unit=portreeve-*", f"--since={self._since}", *options)

    def stop(self):
        _stop(self._cluster)

    def where(self):
        """The cores that any of its threads may use."""
        cores = set()
        for pid in self.look():
            for task in Path(f"/proc/{pid}/task").glob("*"):
                cores |= os.sched_getaffinity(int(task.name))
        return cores


def _stop(cluster):
    # With its sockets, or the next who connects would start it again.
    for node in NODES:
        cluster.on(node, "systemctl", "stop", "portreeve-*")


class Deployed:
    name = "as it is deployed, on the test cluster"
    note = ("Portreeve's CPU and memory are the sum over all its processes: portal, broker, workers, dialers, and the agents of the proxy's and "
            "the backend's node.")
    lacks = ("portreeve-own",)  # the site has no domain for applications

    def __init__(self, state):
        """What is missing is an error that says so."""
        if os.getuid() != 0:
            raise BenchError("only root can enter it")
        self.cluster = cluster = Cluster(state)
        self.place = Place(
            load=cluster.seat("outside", LOAD_CORE, "10.78.0.2"), beside=cluster.seat("login", LOAD_CORE, "10.77.0.1"),
            proxy=cluster.seat("login", PROXY_CORE, "10.78.0.1"), backend=cluster.seat("c1", LOAD_CORE, "10.77.0.11"),
            name="portal.cluster.example", node="c1", user=cluster.user(USER))
        self._home = Path("home", USER)

    @contextmanager
    def installed(self):
        """The units are this run's meanwhile."""
        site = self.cluster.file("login", "etc/portreeve/portreeve.toml").read_text()
        nodes = (*NODES, "outside")
        kept = {node: self.cluster.on(node, "sysctl", "-n", KEPT).strip() for node in nodes}
        try:
            for node in nodes:
                self.cluster.on(node, "sysctl", "-q", f"{KEPT}={FEW}")
            self.cluster.file("login", CONFIG).write_text(f"{THREADS}{site}{LIMITS}")
            for drop_in, text in self._drop_ins():
                drop_in.parent.mkdir(parents=True, exist_ok=True)
                drop_in.write_text(text)
            self._reload()
            yield
        finally:
            for drop_in, _ in self._drop_ins():
                drop_in.unlink(missing_ok=True)
            self.cluster.file("login", CONFIG).unlink(missing_ok=True)
            self._reload()
            for node in nodes:
                self.cluster.on(node, "sysctl", "-q", f"{KEPT}={kept[node]}")
            self.cluster.on("login", "systemctl", "start", "portreeve-portal")
            for node in NODES:
                self.cluster.on(node, "systemctl", "start", "portreeve-agent")

    def disk(self, shop):
        """In the user's home directory, which is on a file system in memory."""
        folder = self._home / shop.folder.name
        return Disk(Path("/") / folder, self.cluster.file("login", folder), self.cluster.mounts("login"))

    def _drop_ins(self):
        for node, units in STARTED.items():
            for unit in units:
                yield self.cluster.file(node, f"run/systemd/system/{unit}.service.d/bench.conf"), DROP_INS[unit]

    def _reload(self):
        for node in STARTED:
            self.cluster.on(node, "systemctl", "daemon-reload")
        _stop(self.cluster)

    def version(self):
        return version(self.cluster.file("login", "usr/bin/portreeve"), self.cluster.file("login", "usr/libexec/portreeve/portreeve-portal"))

    def certify(self, shop, certificate, key):
        """The site's own for everybody, one key of P-256; returns what clients have to trust."""
        for path, name in ((certificate, "tls.crt"), (key, "tls.key")):
            shop.write(path, self.cluster.file("login", f"etc/portreeve/{name}").read_bytes())
        return shop.write(certificate.with_name("ca.pem"), self.cluster.file("login", "etc/portreeve/ca.pem").read_bytes())

    def start(self, targets):
        """(its processes, the portal with a session of the user's)."""
        for node, units in STARTED.items():
            self.cluster.on(node, "systemctl", "start", *units)
        units = Units(self.cluster)
        targets.shop.children.append(units)
        cookie = self._patiently(units, lambda: session(targets.portal(443).get(
            "/-/sign-in", {"user": USER, "password": f"{USER}-password"})))
        portal = targets.portal(443, headers={"Cookie": cookie})
        self._patiently(units, lambda: self._leads(portal, self.place.prefix(targets.backend.port)))
        if (cores := units.where()) != {PROXY_CORE}:
            raise BenchError(f"its threads may use the cores {sorted(cores)}")
        return units, portal

    @staticmethod
    def _leads(portal, prefix):
        """The agent of the application's node has dialled in, and the broker has its dialer."""
        if (status := portal.get(f"{prefix}/")[0]) >= 500:
            raise BenchError(f"answers {status}")

    @staticmethod
    def _patiently(units, ask):
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                return ask()
            except (BenchError, OSError) as error:
                if time.monotonic() > end or units.has_ended():
                    raise BenchError(f"{error}; {units.log_tail()}") from error
                time.sleep(0.1)
