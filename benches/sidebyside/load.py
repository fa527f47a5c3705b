"""One measurement: a target that runs, a load on it, and the proof that every answer was the right one.

Invariant: a sample with anything wrong carries its problems; no number of it is to be believed then.
"""

import json
import re
from dataclasses import asdict, dataclass, field

from .process import PROXY_CORE, BenchError, core_busy_seconds, find_program

CHECK_SECONDS = 1  # the warm-up, in which every body is looked at
GRACE_SECONDS = 15  # beyond its duration, what a load generator may take to end
SIZE_TOLERANCE = 0.01  # of a response's mean size, between the warm-up and the measurement

# Only `done` is defined, so that wrk makes and reads requests without Lua while it measures.
WRK_MEASURE = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"seconds":%.6f,"bytes":%.0f,"p50_us":%.0f,"p99_us":%.0f,'
    .. '"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"wrong":%d}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
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
    bytes_each: float
    problems: list


@dataclass
class Sample:
    """One target, one round. Missing numbers are None."""

    round: int
    requests: int = None
    requests_per_second: float = None
    p50_us: float = None
    p99_us: float = None
    cpu_us_per_request: float = None
    rss_idle_mib: float = None
    rss_after_mib: float = None
    tls: str = None
    upstream_opened: int = None  # connections that the backend accepted while measuring
    log_bytes: int = None  # written by the target while measuring
    others_share: float = None  # of the proxy's core, used by anything but the target
    problems: list = field(default_factory=list)

    as_dict = asdict


class Generator:
    """wrk for HTTP/1.1, h2load for HTTP/2."""

    def __init__(self, shop, protocol, streams):
        self.shop, self.streams = shop, streams
        self.run = self._h2load if protocol == "h2" else self._wrk

    # `size`: of each body.
    def _wrk(self, end, connections, seconds, size, check):
        url = f"{'https' if end.tls else 'http'}://127.0.0.1:{end.port}{end.path}"
        argv = [find_program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "5s"]
        script = f"SIZE = {size}\n{WRK_CHECK}" if check else WRK_MEASURE
        argv += ["-s", self.shop.write("load.lua", script), "-H", f"Host: {end.host}:{end.port}"]
        for name, value in end.headers.items():
            argv += ["-H", f"{name}: {value}"]
        return parse_wrk(self.shop.run("wrk", [*argv, url], seconds + GRACE_SECONDS))

    def _h2load(self, end, connections, seconds, size, check):
        url = f"{'https' if end.tls else 'http'}://{end.host}:{end.port}{end.path}"
        log = self.shop.folder / "h2load.log"
        log.unlink(missing_ok=True)
        argv = [find_program("h2load"), "-t1", f"-c{connections}", f"-m{self.streams}", f"-D{seconds}"]
        argv += [f"--connect-to=127.0.0.1:{end.port}", f"--log-file={log}"]
        for name, value in end.headers.items():
            argv += ["-H", f"{name}: {value}"]
        text = self.shop.run("h2load", [*argv, url], seconds + GRACE_SECONDS)
        return parse_h2load(text, log.read_text() if log.exists() else "", seconds, size)


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
        return Load(0, r["seconds"], None, None, 0.0, problems + ["no request was answered"])
    return Load(r["requests"], r["seconds"], r["p50_us"], r["p99_us"], r["bytes"] / r["requests"], problems)


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
        return Load(0, seconds, None, None, 0.0, problems + ["no request was answered"])
    times = sorted(int(row[2]) for row in rows)
    each = int(data[1]) / done
    if abs(each / size - 1) > SIZE_TOLERANCE:
        problems.append(f"bodies of {each:.0f} bytes on average")
    return Load(done, seconds, percentile(times, 50), percentile(times, 99), each, problems)


def percentile(ordered, percent):
    """The nearest-rank percentile of numbers in ascending order."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def measure(shop, backend, targets, generator, name, connections, seconds, number):
    """Starts the target, checks it, loads it, ends it. Whatever goes wrong with it is in the sample."""
    sample, child = Sample(number), None
    before_start = len(shop.children)
    try:
        child, end = targets.start(name)
        sample.tls, size = end.probe()
        if child:
            sample.rss_idle_mib = child.rss_mib()
        check = generator.run(end, connections, CHECK_SECONDS, size, check=True)
        sample.problems += [f"warm-up: {p}" for p in check.problems]
        if not sample.problems:
            _measure_running(sample, backend, generator, child, end, connections, seconds, size, check)
    except (BenchError, OSError) as error:
        if backend.child.process.poll() is not None:
            raise BenchError(f"the backend ended: {backend.child.log_tail()}") from error
        sample.problems.append(str(error) or type(error).__name__)
    finally:
        for started in shop.children[before_start:]:
            shop.end(started)
    return sample


def _measure_running(sample, backend, generator, child, end, connections, seconds, size, check):
    log = child.log.stat().st_size if child else 0
    accepted, begun = backend.counts()
    busy, cpu = core_busy_seconds(PROXY_CORE), child.cpu_seconds() if child else 0.0
    load = generator.run(end, connections, seconds, size, check=False)
    cpu = (child.cpu_seconds() if child else 0.0) - cpu
    busy = core_busy_seconds(PROXY_CORE) - busy
    accepted_after, begun_after = backend.counts()

    sample.problems += load.problems
    sample.requests, sample.p50_us, sample.p99_us = load.requests, load.p50_us, load.p99_us
    sample.requests_per_second = load.requests / load.seconds
    sample.upstream_opened = accepted_after - accepted - 1
    sample.others_share = max(0.0, busy - cpu) / load.seconds
    if child:
        sample.rss_after_mib = child.rss_mib()
        sample.log_bytes = child.log.stat().st_size - log
        if load.requests:
            sample.cpu_us_per_request = cpu * 1e6 / load.requests
        if child.process.poll() is not None:
            sample.problems.append(f"ended while measured: {child.log_tail()}")
    # Answers that the backend never gave: a cache, or a page of the proxy's own. One is the question itself.
    if (reached := begun_after - begun - 1) < load.requests:
        sample.problems.append(f"{load.requests - reached} x answered without the backend")
    if load.requests and abs(load.bytes_each / check.bytes_each - 1) > SIZE_TOLERANCE:
        sample.problems.append(f"answers of {load.bytes_each:.0f} bytes, {check.bytes_each:.0f} in the warm-up")
