"""The processes of a run: all as one ordinary user, each at its seat, ended by pid.

Invariant: nothing is signalled that was not started here, and nothing started here outlives the run.
"""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .places import LOOPBACK, BenchError, Place, find_program

STOP_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")
DESCRIPTORS = min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # of each process
TUNNELS = (DESCRIPTORS - 200) // 2  # through a proxy, each of which has two sockets


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says, as far as it is wanted; proc(5) numbers the fields from 1."""

    parent: int
    ticks: int  # own time, and that of children already waited for
    started: int  # tells a process from a later one with the same pid

    @classmethod
    def parse(cls, text):
        # The name, in parentheses, may itself hold spaces and parentheses.
        fields = text[text.rindex(")") + 2 :].split()
        return cls(int(fields[1]), sum(map(int, fields[11:15])), int(fields[19]))


def read_stat(pid):
    try:
        return Stat.parse(Path(f"/proc/{pid}/stat").read_text())
    except (OSError, ValueError):
        return None  # ended between the listing and the look


class Tree:
    """Some processes and all that descends from them."""

    def __init__(self, roots):
        self._seen = {p: s.started for p in roots if (s := read_stat(p))}
        self.look()

    def look(self):
        """Living processes of the tree, by pid. One seen once still belongs to it after losing its parent."""
        stats = {int(p): s for p in os.listdir("/proc") if p.isdigit() and (s := read_stat(p))}
        mine = {p for p, s in stats.items() if self._seen.get(p) == s.started}
        grown = True
        while grown:
            more = {p for p, s in stats.items() if s.parent in mine} - mine
            mine |= more
            grown = bool(more)
        self._seen.update({p: stats[p].started for p in mine})
        return {p: stats[p] for p in mine}

    def cpu_seconds(self):
        return sum(s.ticks for s in self.look().values()) / TICKS

    def rss_mib(self):
        """VmRSS summed over the tree; pages that its processes share count for each."""
        total = 0
        for pid in self.look():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        return total / 1024


class Child(Tree):
    """A started process and all that descends from it."""

    def __init__(self, name, process, log, out):
        self.name, self.process, self.log, self.out = name, process, log, out
        super().__init__({process.pid})

    def has_ended(self):
        return self.process.poll() is not None

    def log_bytes(self):
        return self.log.stat().st_size

    def log_tail(self):
        text = self.log.read_text(errors="replace").strip()
        return " | ".join(text.splitlines()[-3:]) or "it logged nothing"

    def stop(self):
        """Asks, waits, then insists. Only pids whose start time is still the one seen are signalled."""
        if self.process.poll() is None:
            self.look()
            self.process.terminate()
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign is not None:
                for pid, started in self._seen.items():
                    stat = read_stat(pid)
                    if stat and stat.started == started:
                        try:
                            os.kill(pid, sign)
                        except ProcessLookupError:
                            pass
            if self._wait_gone():
                return

    def _wait_gone(self):
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end:
            self.process.poll()
            if not any((s := read_stat(p)) and s.started == t for p, t in self._seen.items()):
                return True
            time.sleep(0.02)
        return False


@dataclass
class Workshop:
    """A private temporary folder, where everything runs and as whom, and what is running."""

    place: Place = LOOPBACK
    folder: Path = None
    children: list = field(default_factory=list)
    _count: int = 0

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="portreeve-bench-"))
        self.own(self.folder)
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave half of the processes behind.
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(sign, signal.SIG_IGN)
        for child in reversed(self.children):
            child.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def own(self, path):
        if os.getuid() == 0:
            os.chown(path, *self.place.user)
        return path

    def write(self, name, content, mode=0o600):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return self.own(path)

    def copy(self, program):
        """A build that finishes meanwhile must not change what is measured; and the run's user may not reach the original."""
        return self.write(program.name, program.read_bytes(), 0o700)

    def subfolder(self, name):
        path = self.folder / name
        path.mkdir(mode=0o700)
        return self.own(path)

    def start(self, name, argv, seat, environment={}):
        """Starts a program at its seat, in a session of its own: Ctrl-C reaches it through `stop` only."""
        self._count += 1
        log = self.write(f"{self._count}-{name}.err", "")
        out = self.write(f"{self._count}-{name}.out", "")
        uid, gid = map(str, self.place.user)
        drop = ["--reuid", uid, "--regid", gid, "--clear-groups", "--bounding-set=-all"]
        who = drop if os.getuid() == 0 else []
        # The parent-death signal covers the one case that no handler can: this run being killed outright.
        limited = [find_program("prlimit"), f"--nofile={DESCRIPTORS}", find_program("setpriv"), *who, "--pdeathsig", "TERM", *argv]
        command = seat.command(limited)
        env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": str(self.folder), **environment}
        with open(log, "wb") as err, open(out, "wb") as std:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=std, stderr=err,
                env=env, cwd=self.folder, start_new_session=True,
            )
        child = Child(name, process, log, out)
        self.children.append(child)
        return child

    def end(self, child):
        child.stop()
        self.children.remove(child)

    def run(self, name, argv, seconds, seat=None, environment={}):
        """Runs a program to its end, within `seconds`, where the load is if nothing is said; returns what it printed."""
        child = self.start(name, argv, seat or self.place.load, environment)
        try:
            code = child.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{name} did not end within {seconds} s") from None
        finally:
            self.end(child)
        if code != 0:
            raise BenchError(f"{name} ended with status {code}: {child.log_tail()}")
        return child.out.read_text(errors="replace")


def core_busy_seconds(core):
    """Time that a core has spent not idle, stolen time included, since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / TICKS
    raise BenchError(f"/proc/stat has no cpu{core}")
