"""One measurement: a target that runs, a load on it, and the proof that every answer was the right one.

Invariant: a sample with anything wrong carries its problems; no number of it is to be believed then.
"""

import json
import math
import re
import time
from dataclasses import asdict, dataclass, field

from . import files, jupyterlab, latency
from .places import PROXY_CORE, BenchError, find_program
from .process import core_busy_seconds

CHECK_SECONDS = 1  # the warm-up, in which every body is looked at
GRACE_SECONDS = 15  # beyond its duration, what a load generator may take to end
OPEN_SECONDS = 120  # to open all of many connections
SETTLE_SECONDS = 2  # before the memory of open connections is read
ASKED_SECONDS = 4  # beyond its duration, what the load takes that asks beside them
CLOSED_SECONDS = 65.0  # the kernel keeps a closed connection's port for a minute
PORTS = 25_000
SIZE_TOLERANCE = 0.01  # of a response's mean size, between the warm-up and the measurement

# Only `done` is defined, so that wrk makes and reads requests without Lua while it measures.
WRK_MEASURE = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"seconds":%.6f,"bytes":%.0f,"p50_us":%.0f,"p99_us":%.0f,"p999_us":%.0f,'
    .. '"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"wrong":%d}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.status, e.connect, e.read, e.write, e.timeout, WRONG and WRONG() or 0))
end
"""
# wrk itself calls only statuses from 400 on an error: a redirect to a sign-in page would pass unseen.
WRK_CHECK = WRK_MEASURE + """
local threads = {}
wrong = 0
setup = function(thread) table.insert(threads, thread) end
response = function(status, headers, body)
  if status ~= 200 or #body ~= SIZE then wrong = wrong + 1 end
end
WRONG = function()
  local sum = 0
  for _, thread in ipairs(threads) do sum = sum + thread:get("wrong") end
  return sum
end
"""


@dataclass
class Load:
    """What a load generator saw. Latencies in microseconds."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    bytes_each: float
    problems: list
    resumed: int = None  # handshakes that built on an earlier one


@dataclass
class Sample:
    """One target, one round. Missing numbers are None."""

    round: int
    requests: int = None
    requests_per_second: float = None
    mb_per_second: float = None
    p50_us: float = None
    p99_us: float = None
    p999_us: float = None
    cpu_us_per_request: float = None
    cpu_us_per_mb: float = None
    kib_each: float = None  # of the target's memory, for each open connection
    idle_cpu_share: float = None  # of a core, while connections only stay open
    drawn_ms: float = None  # until JupyterLab's window is drawn
    complete_ms: float = None  # until it is filled and nothing is under way
    requests_each: float = None  # of one load of the page
    kib_page: float = None
    added_ms: float = None  # to a request, at the median, by not going directly
    added_total_ms: float = None  # to all of them
    page: dict = None
    rss_idle_mib: float = None
    rss_after_mib: float = None
    tls: str = None
    upstream_opened: int = None  # connections that the backend accepted while measuring
    log_bytes: int = None  # written by the target while measuring
    others_share: float = None  # of the proxy's core, used by anything but the target
    problems: list = field(default_factory=list)

    as_dict = asdict


class Generator:
    """wrk and h2load where they can, else our own program, which looks at every answer by itself."""

    def __init__(self, shop, program, trust):
        self.shop, self.program, self.trust = shop, program, trust

    def run(self, workload, end, connections, seconds, size, check):
        """`size`: of each body."""
        if workload.load == "wrk":
            return self.wrk(end, connections, seconds, size, check)
        if workload.load == "h2load":
            return self._h2load(end, connections, seconds, size)
        argv = self.own(workload.load, end, *workload.options)
        if workload.load != "pages":
            argv += ["--connections", str(connections)]
        text = self.shop.run(workload.load, [*argv, "--seconds", str(seconds)], 2 * seconds + GRACE_SECONDS, end.seat)
        return parse_own(text, workload.resumes and end.tls)

    def own(self, what, end, *options):
        argv = [self.program, what, "--address", f"{end.address}:{end.port}", "--host", end.authority, "--path", end.path]
        argv += ["--trust", self.trust] if end.tls else []
        for name, value in end.headers.items():
            argv += ["--header", f"{name}: {value}"]
        return [*argv, *options]

    def wrk(self, end, connections, seconds, size, check):
        url = f"{end.scheme}://{end.address}:{end.port}{end.path}"
        argv = [find_program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "5s"]
        script = f"SIZE = {size}\n{WRK_CHECK}" if check else WRK_MEASURE
        argv += ["-s", self.shop.write("load.lua", script), "-H", f"Host: {end.authority}"]
        for name, value in end.headers.items():
            argv += ["-H", f"{name}: {value}"]
        return parse_wrk(self.shop.run("wrk", [*argv, url], seconds + GRACE_SECONDS, end.seat))

    def _h2load(self, end, connections, seconds, size):
        url = f"{end.scheme}://{end.authority}{end.path}"
        log = self.shop.folder / "h2load.log"
        log.unlink(missing_ok=True)
        argv = [find_program("h2load"), "-t1", f"-c{connections}", "-m1", f"-D{seconds}"]
        argv += [f"--connect-to={end.address}:{end.port}", f"--log-file={log}"]
        for name, value in end.headers.items():
            argv += ["-H", f"{name}: {value}"]
        text = self.shop.run("h2load", [*argv, url], seconds + GRACE_SECONDS, end.seat)
        return parse_h2load(text, log.read_text() if log.exists() else "", seconds, size)


def parse_own(text, resumes):
    try:
        r = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        raise BenchError("the load generator printed no result") from None
    problems = list(r["problems"])
    if resumes and r["resumed"] < 0.99 * r["requests"]:
        problems.append(f"only {r['resumed']} of {r['requests']} handshakes built on an earlier one")
    if not resumes and r["resumed"]:
        problems.append(f"{r['resumed']} handshakes built on an earlier one")
    if not r["requests"]:
        problems.append("no request was answered")
    each = r["bytes"] / r["requests"] if r["requests"] else 0.0
    return Load(r["requests"], r["seconds"], r["p50_us"], r["p99_us"], r["p999_us"], each, problems, r["resumed"])


def parse_wrk(text):
    found = re.search(r"^RESULT (.*)$", text, re.M)
    if not found:
        raise BenchError("wrk printed no result")
    r = json.loads(found[1])
    means = {
        "status": "status outside 2xx and 3xx", "wrong": "answer that is not the right one",
        "connect": "failed connect", "read": "failed read", "write": "failed write", "timeout": "time-out",
    }
    problems = [f"{r[key]} x {text}" for key, text in means.items() if r[key]]
    if not r["requests"]:
        return Load(0, r["seconds"], None, None, None, 0.0, problems + ["no request was answered"])
    return Load(r["requests"], r["seconds"], r["p50_us"], r["p99_us"], r["p999_us"], r["bytes"] / r["requests"], problems)


def parse_h2load(text, log, seconds, size):
    """h2load prints no percentiles: they come from its log, a line per request (start, status, microseconds)."""
    counts = re.search(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
                       text, re.M)
    data = re.search(r"^traffic: .*\((\d+)\) data", text, re.M)
    if not counts or not data:
        raise BenchError("h2load printed no result: " + " | ".join(text.splitlines()[-3:]))
    done, _, failed, errored, timeout = map(int, counts.groups())
    problems = [f"{n} x {what}" for n, what in ((failed, "failed"), (errored, "errored"), (timeout, "time-out")) if n]
    rows = [line.split("\t") for line in log.splitlines()]
    strange = sorted({row[1] for row in rows if not row[1].startswith("2")})
    if strange:
        problems.append("statuses " + ", ".join(strange))
    if closed := text.count("Process Request Failure"):
        problems.append(f"{closed} x connection closed early: h2load opens no other in its place")
    if "Application protocol: h2" not in text:
        problems.append("HTTP/2 was not agreed")
    if not done or not rows:
        return Load(0, seconds, None, None, None, 0.0, problems + ["no request was answered"])
    times = sorted(int(row[2]) for row in rows)
    each = int(data[1]) / done
    if abs(each / size - 1) > SIZE_TOLERANCE:
        problems.append(f"bodies of {each:.0f} bytes on average")
    return Load(done, seconds, *(percentile(times, p) for p in (50, 99, 99.9)), each, problems)


def percentile(ordered, percent):
    """The nearest-rank percentile of numbers in ascending order."""
    return ordered[max(0, math.ceil(round(len(ordered) * percent / 100, 6)) - 1)]


def measure(shop, backend, targets, generator, name, workload, connections, seconds, number):
    """Starts the target, checks it, loads it, ends it. Whatever goes wrong with it is in the sample."""
    sample, child = Sample(number), None
    before_start = len(shop.children)
    try:
        child, end = targets.start(name, workload)
        size = None
        if workload.asks in files.PATHS:
            sample.tls = end.get("/")[3]
        elif name != "connect" and workload.asks not in ("echo", "sink", "lab", "workspace"):
            sample.tls, size = end.probe()
        if child:
            sample.rss_idle_mib = child.rss_mib()
        if workload.load == "jupyterlab":
            jupyterlab.measure(sample, shop, backend, targets.certificate, child, end, seconds)
        elif workload.load == "first-page":
            latency.first_pages(sample, child, end, with_worker=name == "portreeve-worker")
        elif name == "connect":
            latency.connects(sample, end)
        elif workload.load == "idle":
            _measure_idle(sample, shop, generator, child, end, connections, seconds)
        else:
            check = generator.run(workload, end, connections, CHECK_SECONDS, size, check=True)
            sample.problems += [f"warm-up: {p}" for p in check.problems]
            if not sample.problems:
                _measure_running(sample, backend, generator, child, workload, end, connections, seconds, size, check)
            if workload.asks == "files-new" and (there := targets.disk.written()) < (sample.requests or 0):
                sample.problems.append(f"{sample.requests - there} files are not there, or not whole")
        if child and child.has_ended():
            sample.problems.append(f"ended while measured: {child.log_tail()}")
    except (BenchError, OSError) as error:
        if backend.child.has_ended():
            raise BenchError(f"the backend ended: {backend.child.log_tail()}") from error
        sample.problems.append(str(error) or type(error).__name__)
    finally:
        for started in shop.children[before_start:]:
            shop.end(started)
    return sample


def _measure_running(sample, backend, generator, child, workload, end, connections, seconds, size, check):
    log = child.log_bytes() if child else 0
    accepted, begun = backend.counts()
    busy, cpu = core_busy_seconds(PROXY_CORE), child.cpu_seconds() if child else 0.0
    load = generator.run(workload, end, connections, seconds, size, check=False)
    cpu = (child.cpu_seconds() if child else 0.0) - cpu
    busy = core_busy_seconds(PROXY_CORE) - busy
    accepted_after, begun_after = backend.counts()

    sample.problems += load.problems
    sample.requests, sample.p50_us, sample.p99_us, sample.p999_us = load.requests, load.p50_us, load.p99_us, load.p999_us
    sample.requests_per_second = load.requests / load.seconds
    sample.mb_per_second = load.requests * load.bytes_each / load.seconds / 1e6
    sample.others_share = max(0.0, busy - cpu) / load.seconds
    if child:
        sample.rss_after_mib = child.rss_mib()
        sample.log_bytes = child.log_bytes() - log
        if load.requests:
            sample.cpu_us_per_request = cpu * 1e6 / load.requests
        if load.bytes_each:
            sample.cpu_us_per_mb = cpu * 1e12 / (load.requests * load.bytes_each)
    if workload.asks in ("echo", "sink", *files.PATHS):
        return
    sample.upstream_opened = accepted_after - accepted - 1
    # Answers that the backend never gave: a cache, or a page of the proxy's own. One is the question itself.
    each = 1 if workload.load != "pages" else 0
    if (reached := begun_after - begun - 1) < load.requests * each:
        sample.problems.append(f"{load.requests - reached} x answered without the backend")
    if load.requests and abs(load.bytes_each / check.bytes_each - 1) > SIZE_TOLERANCE:
        sample.problems.append(f"answers of {load.bytes_each:.0f} bytes, {check.bytes_each:.0f} in the warm-up")


def _measure_idle(sample, shop, generator, child, end, connections, seconds):
    """Opens all, waits, reads memory and CPU, asks something else meanwhile, and sees whether all of them still answer."""
    _wait_for_ports(shop.place.beside, connections)
    before = child.rss_mib() if child else 0.0
    hold = 2 * seconds + SETTLE_SECONDS + ASKED_SECONDS
    argv = generator.own("idle", end, "--connections", str(connections), "--seconds", str(hold))
    opener = shop.start("idle", argv, end.seat)
    _wait_said(opener, f"open {connections}", OPEN_SECONDS)
    time.sleep(SETTLE_SECONDS)
    cpu = child.cpu_seconds() if child else 0.0
    time.sleep(seconds)
    if child:
        sample.idle_cpu_share = (child.cpu_seconds() - cpu) / seconds
        sample.rss_after_mib = child.rss_mib()
        sample.kib_each = (sample.rss_after_mib - before) * 1024 / connections
    meanwhile = generator.wrk(end, 1, seconds, 1, check=False)
    sample.problems += meanwhile.problems
    sample.requests, sample.p50_us, sample.p99_us, sample.p999_us = (
        meanwhile.requests, meanwhile.p50_us, meanwhile.p99_us, meanwhile.p999_us)
    sample.requests_per_second = meanwhile.requests / meanwhile.seconds
    _wait_said(opener, f"alive {connections}", hold + GRACE_SECONDS)


def _wait_for_ports(seat, connections):
    """The turns before have used up ports from the proxy's node to the backend; those of the kernel's usual range are 28,000."""
    until = time.monotonic() + CLOSED_SECONDS
    while seat.closing() + connections > PORTS and time.monotonic() < until:
        time.sleep(0.5)


def _wait_said(child, text, seconds):
    until = time.monotonic() + seconds
    while text not in (said := child.out.read_text().splitlines()):
        if child.has_ended() or time.monotonic() > until:
            raise BenchError(f"not `{text}` but {said}: {child.log_tail()}")
        time.sleep(0.05)
