"""Where programs run: on this machine's loopback, or on the nodes of the test cluster, which are networks of this machine.

A node is entered by its network alone. Files, processes and the clock of its CPU time stay this machine's, so that all that is measured
is measured the same way in both places.
"""

import ctypes
import os
import random
import re
import shutil
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOAD_CORE = 0  # load generator and backend
PROXY_CORE = 1  # the one target that is measured
NOBODY = (1, 1)  # `daemon`: who everything runs as when the run is started by root (an account with a name)
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that a person has to see; the text says what to do."""


def find_program(name):
    """The full path of a program, also where only root's PATH would look; None if it is absent."""
    return shutil.which(name, path=os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin")


@dataclass(frozen=True)
class Seat:
    """Where a program runs: on which core, in which network (None is this machine's own), and its address there."""

    core: int = LOAD_CORE
    address: str = "127.0.0.1"
    network: Path = None
    mounts: Path = None  # the file systems that it sees, where these are not this machine's

    def command(self, argv):
        """What starts a program here."""
        mounts = [f"--mount={self.mounts}"] if self.mounts else []
        enter = [find_program("nsenter"), f"--net={self.network}", *mounts] if self.network else []
        return [*enter, find_program("taskset"), "-c", str(self.core), *map(str, argv)]

    def connect(self, address, port, seconds):
        sock = self.socket()
        try:
            sock.settimeout(seconds)
            sock.connect((address, port))
            return sock
        except OSError:
            sock.close()
            raise

    def socket(self):
        """A TCP socket of this network: it belongs to the one in which its thread was when it was made."""
        with self._entered():
            return socket.socket()

    @contextmanager
    def _entered(self):
        if self.network is None:
            yield
            return
        with open("/proc/thread-self/ns/net") as home, open(self.network) as there:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)

    def closing(self):
        """Connections that were closed less than a minute ago: each keeps a port from the next to the same address."""
        text = (self.network.parents[1] if self.network else Path("/proc/self")).joinpath("net/sockstat").read_text()
        return int(re.search(r"^TCP: .*\btw (\d+)", text, re.M)[1])

    def free_port(self):
        """A port below the kernel's range for outgoing connections, so that none of those takes it first."""
        for _ in range(200):
            if self.is_free(port := random.randrange(20000, 32000)):
                return port
        raise BenchError("no free port between 20000 and 32000")

    def is_free(self, port):
        with self.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((self.address, port))
                return True
            except OSError:
                return False


def _enter(namespace):
    if LIBC.setns(namespace.fileno(), 0) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}", namespace.name)


@dataclass(frozen=True)
class Place:
    """The seats of a run. The load reaches the proxy only; `beside` is where the proxy is, on the load's core, and reaches the backend."""

    load: Seat = Seat()
    beside: Seat = Seat()
    proxy: Seat = Seat(PROXY_CORE)
    backend: Seat = Seat()
    name: str = "localhost"  # of the proxy
    node: str = "localhost"  # the backend's, as it stands in paths
    user: tuple = NOBODY  # uid and gid of all that a run started by root starts

    def prefix(self, port):
        """Where Portreeve has what listens on this port of the backend's node."""
        return f"/fw2/{self.node}:{port}"


LOOPBACK = Place()
