"""JupyterLab in Chromium: the server, one round of loads, and what a target added to each request.

Invariant: all targets lead to the same server and the same paths, so that requests can be matched by their paths.
"""

import json
import os
import secrets
import statistics
import time
from pathlib import Path

from .peers import version_of
from .places import PROXY_CORE, BenchError, find_program
from .process import core_busy_seconds
from .targets import wait_listening

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / "target/tests"  # where the browser's tests put what they need
VENV = Path(os.environ.get("PORTREEVE_TEST_VENV", MADE / "venv"))
NODE_MODULES = Path(os.environ.get("PORTREEVE_NODE_MODULES", MADE / "browser/node_modules"))
# What is seen of JupyterLab: its window with the file browser; then, about a second later, a file in it and the launcher.
WINDOW = ["#jp-main-dock-panel", ".jp-DirListing"]
FILLED = [".jp-DirListing-item", ".jp-LauncherCard"]
START_SECONDS = 60.0
LOADS_SECONDS = 120.0  # beyond its duration, what the browser may take: start, first load, last load
UPGRADED = (101, 200)  # over HTTP/1.1 and HTTP/2


def program():
    own = VENV / "bin/jupyter-lab"
    return str(own) if own.exists() else find_program("jupyter-lab")


def what_is_missing():
    """What the machine lacks, and how to get it; None if nothing."""
    for there, text in (
        (find_program("chromium"), "apt install chromium"), (find_program("node"), "apt install nodejs"),
        ((NODE_MODULES / "playwright-core").exists(), f"no playwright-core in {NODE_MODULES}: tests/browser/run gets it"),
        (program(), f"no JupyterLab in {VENV} nor on PATH: tests/browser/run gets it"),
    ):
        if not there:
            return text
    return None


def versions():
    return {"chromium": version_of([find_program("chromium"), "--version"]), "jupyterlab": version_of([program(), "--version"])}


class Lab:
    """In the backend's place: a JupyterLab below the path that Portreeve gives it, as users start it; it asks nothing of the Internet."""

    def __init__(self, shop):
        seat = shop.place.backend
        self.port = port = seat.free_port()
        # Whoever gets in can run programs as the user, so the token is known to nobody else.
        self.token = secrets.token_hex(16)
        folder = shop.subfolder(f"lab-{port}")
        shop.write(folder / "notes.txt", "A file to be listed.\n")
        self._shop = shop
        self.child = shop.start("jupyterlab", [
            program(), "--no-browser", f"--ip={seat.address}", f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}",
            f"--ServerApp.base_url={shop.place.prefix(port)}/", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            # In an origin of its own its name is another one.
            "--ServerApp.allow_remote_access=True",
        ], seat, {"JUPYTER_TOKEN": self.token})
        wait_listening(self.child, port, START_SECONDS, seat)

    def end(self):
        self._shop.end(self.child)


def measure(sample, shop, lab, certificate, child, end, seconds):
    """One browser: a first load that isn't counted, then loads for `seconds`."""
    job = shop.write("job.json", json.dumps({
        "chromium": find_program("chromium"), "certificate": str(certificate), "cookies": _cookies(end, shop.place), "seconds": seconds,
        "address": f"{end.scheme}://{end.authority}{end.path}?token={lab.token}", "names": f"MAP * {end.address}",
        "drawn": {"window": WINDOW, "filled": FILLED}}))
    log = child.log_bytes() if child else 0
    begun, busy, cpu = time.monotonic(), core_busy_seconds(PROXY_CORE), child.cpu_seconds() if child else 0.0
    script = Path(__file__).with_name("browser.mjs")
    environment = {"PORTREEVE_NODE_MODULES": str(NODE_MODULES)}
    text = shop.run("browser", [find_program("node"), script, job], seconds + LOADS_SECONDS, end.seat, environment)
    cpu = (child.cpu_seconds() if child else 0.0) - cpu
    sample.others_share = max(0.0, core_busy_seconds(PROXY_CORE) - busy - cpu) / (time.monotonic() - begun)
    if child:
        sample.rss_after_mib, sample.log_bytes = child.rss_mib(), child.log_bytes() - log
    read(sample, text, end.path.removesuffix("/lab"))
    if child and sample.requests:
        sample.cpu_us_per_request = cpu * 1e6 / sample.requests


def _cookies(end, place):
    """The session is the portal's, also where the application has an origin of its own: the first load goes by way of the portal."""
    name, _, value = end.headers.get("Cookie", "").partition("=")
    return [{"name": name, "value": value, "url": f"https://{place.name}:{end.port}"}] if name else []


def read(sample, text, prefix):
    """Fills a sample from what the browser saw."""
    try:
        seen = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        raise BenchError("the browser printed no result") from None
    loads = seen["loads"]
    # The first one may be led through a sign-in; later, a redirect would lead away from JupyterLab.
    wrong = [*_problems(seen["first"], redirects=True), *(p for load in loads for p in _problems(load, redirects=False))]
    sample.problems += sorted(set(wrong))
    sample.tls = next((load["tls"] for load in loads if load["tls"]), None)
    figures = [_figures(load) for load in loads]
    sample.drawn_ms, sample.complete_ms, sample.requests_each, sample.kib_page = (statistics.median(column) for column in zip(*figures))
    sample.requests = sum(len(load["requests"]) for load in [seen["first"], *loads])
    sample.page = {"loads": figures, "requests": _matched(loads, prefix)}


def _problems(load, redirects):
    for r in load["requests"]:
        status = r.get("status", 0)
        answered = 200 <= status < (400 if redirects else 300) or status == 304
        # An answer without a body that no script asks for counts as aborted, through a proxy or not.
        if not answered or "failed" in r and status != 204:
            yield f"{r['method']} {r['path']}: {r.get('status')} {r.get('failed', '')}".rstrip()
    if not load["sockets"]:
        yield "no WebSocket was opened"
    for s in load["sockets"]:
        if s.get("status") not in UPGRADED:
            yield f"WebSocket {s['path']}: {s.get('status')}"


def _figures(load):
    """[drawn, complete, requests, KiB] of one load."""
    ends = [r["start"] + r["ms"] for r in load["requests"]]
    kib = sum(r.get("bytes", 0) for r in load["requests"]) / 1024
    return [load["drawn"]["window"], round(max(load["drawn"]["filled"], *ends), 2), len(ends), round(kib, 1)]


def _matched(loads, prefix):
    """[name, start, ms, bytes] of each request, medians over the loads, by start. The second one for the same is another one."""
    found = {}
    for load in loads:
        times = {}
        for r in load["requests"]:
            name = f"{r['method']} {r['path'].removeprefix(prefix)}"
            times[name] = nth = times.get(name, 0) + 1
            found.setdefault(name if nth == 1 else f"{name} #{nth}", []).append((r["start"], r["ms"], r.get("bytes", 0)))
    rows = [[name, *(round(statistics.median(column), 2) for column in zip(*seen))] for name, seen in found.items()]
    return sorted(rows, key=lambda row: row[1])


def compare(samples):
    """What each target added to the requests of the direct load of the same round."""
    for (target, connections), rounds in samples.items():
        for mine, direct in zip(rounds, samples["direct", connections]):
            if target == "direct" or not mine.page or not direct.page:
                continue
            added = added_to(direct.page, mine.page)
            mine.problems += [f"never asked for {name}" for name in sorted(_names(direct.page) - _names(mine.page))]
            mine.added_ms, mine.added_total_ms = statistics.median(added.values()), sum(added.values())


def added_to(direct, through):
    """By name, for what both loads asked for; in the order of the direct load."""
    theirs = {name: ms for name, _, ms, _ in through["requests"]}
    return {name: theirs[name] - ms for name, _, ms, _ in direct["requests"] if name in theirs}


def _names(page):
    return {name.split(" #")[0] for name, *_ in page["requests"]}
