"""Turns samples into rows, a Markdown table and a JSON document.

Invariant: one bad round makes its row invalid, and an invalid row shows no numbers and enters no ratio.
"""

import datetime
import hashlib
import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

from .process import find_program

BASELINE = {"file": "haproxy", "links": "nginx"}
# What a page with its links rewritten may cost, as a multiple of what another spends on it.
AT_MOST = {"nginx": 2.0, "apache": 0.25}
NOTHING = 1.05  # of what a page costs that passes as it is: what text costs that needs no rewriting
NUMBERS = (
    "requests_per_second", "p50_us", "p99_us", "cpu_us_per_request", "rss_idle_mib", "rss_after_mib",
    "upstream_opened", "log_bytes", "others_share",
)
RATIOS = {"requests_per_second": "req/s", "p50_us": "p50", "cpu_us_per_request": "CPU"}
NAMES = {"direct": "direct, no TLS", "nginx": "nginx", "haproxy": "HAProxy", "apache": "Apache",
         "portreeve": "**Portreeve**", "portreeve-keep": "Portreeve, prefix known to the application",
         "portreeve-text": "Portreeve, the same bytes as text"}

BODIES = {"file": "1 KiB body", "links": "118 KB page with 2,400 links, each rewritten"}

NOISY_SHARE = 0.05  # of the proxy's core, used by others: more than this moves the figures
CHATTY_BYTES = 1.0  # of log per request: more than this is an access log, which the peers don't write
REOPENING = 0.01  # backend connections per request: more than this is no keep-alive


def row(target, connections, samples):
    """Medians over the rounds; `spread` has the smallest and largest of each."""
    values = {n: [v for s in samples if (v := getattr(s, n)) is not None] for n in NUMBERS}
    problems = [f"round {s.round}: {p}" for s in samples for p in s.problems]
    return {
        "target": target, "connections": connections, "valid": not problems, "problems": problems,
        "tls": sorted({s.tls for s in samples if s.tls}),
        "median": {n: statistics.median(v) if v else None for n, v in values.items()},
        "spread": {n: [min(v), max(v)] if v else None for n, v in values.items()},
        "ratio": {}, "rounds": [s.as_dict() for s in samples],
    }


def add_ratios(rows, workload="file"):
    """Each valid row's medians over those of the baseline with as many connections."""
    base = {r["connections"]: r["median"] for r in rows if r["target"] == BASELINE[workload] and r["valid"]}
    for r in rows:
        below = base.get(r["connections"])
        if below and r["valid"]:
            r["ratio"] = {n: r["median"][n] / below[n] for n in RATIOS if r["median"][n] is not None and below[n]}


def goals(rows, workload="file"):
    """The numbers of the design that this benchmark can judge: (what, reached or not)."""
    found = {(r["target"], r["connections"]): r["median"] for r in rows if r["valid"]}
    judged = []
    for (target, connections), mine in found.items():
        if target != "portreeve":
            continue
        for peer, most in AT_MOST.items() if workload == "links" else ():
            if other := found.get((peer, connections)):
                mine_us, other_us = mine["cpu_us_per_request"], other["cpu_us_per_request"]
                what = (f"CPU per page, {connections} connection(s): {mine_us:.0f} us, at most {most:g} x "
                        f"{NAMES[peer]}'s {other_us:.0f} us")
                judged.append({"what": what, "reached": mine_us <= most * other_us})
        if workload == "links":
            passed, text = (found.get((f"portreeve-{t}", connections)) for t in ("keep", "text"))
            if passed and text:
                cost, base = text["cpu_us_per_request"], passed["cpu_us_per_request"]
                what = (f"CPU per body that needs no rewriting, {connections} connection(s): {cost:.1f} us where pages "
                        f"are rewritten, {base:.1f} us where none are")
                judged.append({"what": what, "reached": cost <= NOTHING * base})
            continue
        for peer, number, wanted in ((BASELINE[workload], "cpu_us_per_request", True), ("nginx", "p50_us", connections == 1)):
            other = found.get((peer, connections))
            if wanted and other:
                what = (f"{'CPU per request' if number != 'p50_us' else 'p50'}, {connections} connection(s): "
                        f"{mine[number]:.1f} us, {NAMES[peer]} {other[number]:.1f} us")
                judged.append({"what": what, "reached": mine[number] <= other[number]})
    return judged


def warnings(rows):
    """What does not make a row wrong, but less fair or less sure."""
    said = []
    for r in rows:
        m, name = r["median"], f"{r['target']}, {r['connections']} connection(s)"
        # The worst round counts: each of these can fall on one target's turn only.
        worst = {n: s[1] for n, s in r["spread"].items() if s}
        requests = min((s["requests"] for s in r["rounds"] if s["requests"]), default=0)
        if worst.get("others_share", 0) > NOISY_SHARE:
            said.append(f"{name}: up to {worst['others_share']:.0%} of the proxy's core was used by others")
        if requests and (m["log_bytes"] or 0) / requests > CHATTY_BYTES:
            said.append(f"{name}: wrote {m['log_bytes'] / requests:.0f} bytes of log per request")
        # A direct connection is one of the load generator's own.
        if r["target"] != "direct" and requests and m["upstream_opened"] > max(r["connections"], REOPENING * requests):
            said.append(f"{name}: opened {m['upstream_opened']:.0f} connections to the backend")
    spoken = sorted({t for r in rows if r["target"] != "direct" for t in r["tls"]})
    if len(spoken) > 1:
        said.append("the targets did not agree on the same TLS: " + "; ".join(spoken))
    return said


def machine():
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    return {"cpu": model[1] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


def versions(programs, portreeve):
    """The first version number that each program states about itself."""
    flags = {"nginx": "-v", "haproxy": "-v", "apache2": "-v", "wrk": "-v", "h2load": "--version", "openssl": "version"}
    found = {p: _version([find_program(p), flags[p]]) for p in programs if p in flags}
    if portreeve:
        digest = hashlib.sha256(portreeve.read_bytes()).hexdigest()
        found["portreeve"] = f"{_version([portreeve, '--version'])} (sha256 {digest[:12]})"
    return found


def _version(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    number = re.search(r"\d+\.\d[\w.+~-]*", done.stdout + done.stderr)
    return number[0] if number else "unknown"


def document(rows, settings, programs, portreeve):
    workload = settings["workload"]
    add_ratios(rows, workload)
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "machine": machine(),
        "versions": versions(programs, portreeve), "settings": settings,
        "valid": all(r["valid"] for r in rows), "rows": rows, "goals": goals(rows, workload), "warnings": warnings(rows),
    }


def markdown(doc):
    s, box = doc["settings"], doc["machine"]
    said = ", ".join(f"{n} {v}" for n, v in doc["versions"].items())
    lines = [
        f"{doc['date'][:16].replace('T', ' ')}; {box['cpu']}, {box['cores']} cores, Linux {box['kernel']}; {said}.  ",
        f"{'HTTP/2' if s['protocol'] == 'h2' else 'HTTP/1.1'}, {BODIES[s['workload']]}, {s['rounds']} round(s) of "
        f"{s['seconds']} s, medians (CPU with smallest and largest).",
    ]
    for connections in s["connections"]:
        head = [f"{connections} connection(s)", "req/s", "p50 us", "p99 us", "proxy CPU us/req", "MiB idle", "MiB after"]
        compared = any(r["ratio"] for r in doc["rows"] if r["connections"] == connections)
        head += [f"{short} / {NAMES[BASELINE[s['workload']]]}" for short in RATIOS.values()] if compared else []
        lines += ["", "| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
        for r in doc["rows"]:
            if r["connections"] == connections:
                cells = _cells(r, compared) if r["valid"] else ["**invalid**"] + [""] * (len(head) - 2)
                lines.append("| " + " | ".join([NAMES[r["target"]], *cells]) + " |")
    lines.append("")
    for r in doc["rows"]:
        lines += [f"- INVALID: {r['target']}, {r['connections']} connection(s), {p}" for p in r["problems"]]
    lines += [f"- {'reached' if g['reached'] else 'MISSED'}: {g['what']}" for g in doc["goals"]]
    lines += [f"- note: {w}" for w in doc["warnings"]]
    return "\n".join(lines).rstrip() + "\n"


def _cells(r, compared):
    def show(number, form):
        return "" if r["median"][number] is None else format(r["median"][number], form)

    cpu = show("cpu_us_per_request", ".1f")
    if cpu and len(r["rounds"]) > 1:
        low, high = r["spread"]["cpu_us_per_request"]
        cpu += f" ({low:.1f}-{high:.1f})"
    cells = [show("requests_per_second", ",.0f"), show("p50_us", ",.0f"), show("p99_us", ",.0f"), cpu,
             show("rss_idle_mib", ".1f"), show("rss_after_mib", ".1f")]
    if compared:
        cells += [format(r["ratio"][n], ".2f") if n in r["ratio"] else "" for n in RATIOS]
    return cells
