"""Where programs run, and what a run leaves of the site that it changed. No cluster is needed."""

import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from . import cluster, latency
from .load import Sample
from .places import LOOPBACK, PROXY_CORE, BenchError, Place, Seat
from .process import Tree, read_stat
from .report import NAMES
from .targets import LIMITS, THREADS, Endpoint
from .workloads import WORKLOADS

RUN = Path(__file__).resolve().parents[1] / "run"


class Seats(unittest.TestCase):
    def test_a_program_starts_on_its_core_in_its_network(self):
        inside = Seat(PROXY_CORE, "10.78.0.1", Path("/proc/7/ns/net")).command(["haproxy", "-db"])
        self.assertEqual(inside[0].rsplit("/", 1)[1:] + inside[1:2], ["nsenter", "--net=/proc/7/ns/net"])
        self.assertEqual(inside[3:], ["-c", "1", "haproxy", "-db"])
        self.assertEqual(LOOPBACK.proxy.command(["x"])[1:], ["-c", "1", "x"])

    def test_a_socket_is_made_in_the_network_of_its_seat(self):
        here = Path("/proc/thread-self/ns/net")
        before = os.readlink(here)
        with Seat().socket() as plain:
            self.assertEqual(plain.family, socket.AF_INET)
        with self.assertRaises(OSError):
            Seat(network=Path("/proc/0/ns/net")).socket()
        self.assertEqual(os.readlink(here), before)

    def test_what_load_and_proxy_share_is_no_core(self):
        for place in (LOOPBACK, Place(node="c1")):
            self.assertEqual({place.load.core, place.beside.core, place.backend.core} & {place.proxy.core}, set())

    def test_connections_that_were_closed_are_counted(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            seat = Seat()
            with seat.connect(*server.getsockname(), 1), server.accept()[0]:
                pass
            self.assertGreater(seat.closing(), 0)

    def test_authority(self):
        for port, tls, text in ((443, True, "portal"), (443, False, "portal:443"), (80, False, "portal"), (8443, True, "portal:8443")):
            self.assertEqual(Endpoint(port, tls, host="portal").authority, text)

    def test_connect(self):
        sample = Sample(1)
        with mock.patch.object(latency, "CONNECTS", 3), socket.create_server(("127.0.0.1", 0)) as server:
            latency.connects(sample, Endpoint(server.getsockname()[1], tls=False))
        self.assertEqual(sample.requests, 3)
        self.assertGreater(sample.p50_us, 0)


class Trees(unittest.TestCase):
    def test_several_roots_and_their_children(self):
        child = subprocess.Popen(["sleep", "60"])
        try:
            self.assertLessEqual({os.getpid(), child.pid}, Tree({os.getpid()}).look().keys())
            self.assertEqual(Tree({child.pid}).look().keys(), {child.pid})
        finally:
            child.kill()
            child.wait()
        self.assertEqual(Tree({child.pid}).look(), {})


class OneTargetEach(unittest.TestCase):
    def test_every_row_has_a_name_and_every_table_its_baseline(self):
        for name, workload in WORKLOADS.items():
            targets = {*workload.bare, *workload.peers, *workload.ours}
            self.assertLessEqual(targets, NAMES.keys(), name)
            self.assertIn(workload.baseline, targets, name)


class FakeCluster:
    """Nodes that are directories, and commands that are only noted."""

    def __init__(self, folder):
        self.folder, self.said = folder, []

    def file(self, node, path):
        return self.folder / node / path

    def on(self, node, *command):
        self.said.append((node, *command))
        return ""


class TheSite(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.nodes = FakeCluster(Path(folder.name))
        for path, text in (("login/etc/portreeve/portreeve.toml", "[portal]\n"), ("login/run/x", ""), ("c1/run/x", "")):
            (self.nodes.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.nodes.folder / path).write_text(text)
        self.form = object.__new__(cluster.Deployed)
        self.form.cluster = self.nodes

    def files(self):
        return sorted(str(p.relative_to(self.nodes.folder)) for p in self.nodes.folder.rglob("*") if p.is_file())

    def test_it_is_as_it_was_however_the_run_ends(self):
        before = self.files()
        for error in (None, KeyboardInterrupt):
            try:
                with self.form.installed():
                    drop_ins = [p for p in self.files() if p.endswith("/bench.conf")]
                    self.assertEqual(len(drop_ins), 4)
                    for path in drop_ins:
                        self.assertIn("\nCPUAffinity=1\n", (self.nodes.folder / path).read_text())
                    self.assertEqual(self.nodes.file("login", cluster.CONFIG).read_text(), f"{THREADS}[portal]\n{LIMITS}")
                    self.nodes.said.clear()
                    if error:
                        raise error
            except KeyboardInterrupt:
                pass
            self.assertEqual(self.files(), before)
            ended = [command for command in self.nodes.said if command[1] == "systemctl"]
            self.assertIn(("login", "systemctl", "daemon-reload"), ended)
            self.assertEqual(ended[-4:], [("login", "systemctl", "start", "portreeve-portal"),
                                          *((n, "systemctl", "start", "portreeve-agent") for n in ("login", "c1", "c2"))])

    def test_a_node_is_alive_with_the_process_that_was_noted(self):
        note, stat = self.nodes.folder / "node", read_stat(os.getpid())
        for started, pid in ((stat.started, os.getpid()), (stat.started + 1, None)):
            note.write_text(f"{os.getpid()} {started}\n")
            self.assertEqual(cluster._alive(note), pid)
        self.assertIsNone(cluster._alive(self.nodes.folder / "none"))

    def test_without_a_cluster_it_says_what_to_type(self):
        with self.assertRaises(BenchError):
            cluster.Cluster(self.nodes.folder)
        done = subprocess.run([sys.executable, RUN, "--dir", self.nodes.folder], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"tests/cluster --dir {self.nodes.folder} up && tests/cluster.d/site --dir {self.nodes.folder}", done.stderr)
        self.assertIn("benches/run --up", done.stderr)


if __name__ == "__main__":
    unittest.main()
