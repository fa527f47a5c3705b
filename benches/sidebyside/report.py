"""Turns samples into rows, goals, a Markdown table and a JSON document.

Invariant: one bad round makes its row invalid, and an invalid row shows no numbers and enters no ratio.
"""

import datetime
import hashlib
import json
import os
import platform
import re
import statistics
from pathlib import Path

from .peers import PROGRAMS, program_of, version_of
from .places import find_program
from .workloads import ALL, BEST, NUMBERS

KEPT = (*NUMBERS, "upstream_opened", "log_bytes", "others_share")
NAMES = {"direct": "direct, no TLS", "nginx": "nginx", "haproxy": "HAProxy", "apache": "Apache", "caddy": "Caddy",
         "chp": "configurable-http-proxy", "rclone": "rclone", "floor": "hyper and rustls, bare", "portreeve": "**Portreeve**",
         "portreeve-keep": "Portreeve, prefix known to the application", "portreeve-own": "Portreeve, an origin of its own",
         "portreeve-text": "Portreeve, the same bytes as text", "connect": "connect(2) alone",
         "portreeve-pooled": "Portreeve, a connection that is kept", "portreeve-worker": "Portreeve, with a running worker"}

NOISY_SHARE = 0.05  # of the proxy's core, used by others: more than this moves the figures
CHATTY_BYTES = 1.0  # of log per request: more than this is an access log, which the peers don't write
REOPENING = 0.01  # backend connections per request: more than this is no keep-alive


def row(target, connections, samples):
    """Medians over the rounds; `spread` has the smallest and largest of each."""
    values = {n: [v for s in samples if (v := getattr(s, n)) is not None] for n in KEPT}
    problems = [f"round {s.round}: {p}" for s in samples for p in s.problems]
    return {
        "target": target, "connections": connections, "valid": not problems, "problems": problems,
        "tls": sorted({s.tls for s in samples if s.tls}),
        "median": {n: statistics.median(v) if v else None for n, v in values.items()},
        "spread": {n: [min(v), max(v)] if v else None for n, v in values.items()},
        "rounds": [s.as_dict() for s in samples],
    }


def goals(rows, workload):
    """What is to be reached, and whether it is: within 3 % of the peer's number counts."""
    found = {(r["target"], r["connections"]): r["median"] for r in rows if r["valid"]}
    judged = []
    for connections in workload.connections:
        mine = found.get(("portreeve", connections))
        for goal in workload.goals:
            if not mine or goal.connections and connections not in goal.connections:
                continue
            peers = [t for t, c in found if c == connections and t in ALL] if goal.peer == BEST else [goal.peer]
            theirs = {p: m[goal.number] for p in peers if (m := found.get((p, connections))) and m[goal.number]}
            if not theirs or not mine[goal.number]:
                continue
            best = max if goal.least else min
            peer = best(theirs, key=theirs.get)
            ratio = mine[goal.number] / theirs[peer]
            reached = ratio * goal.close >= goal.times if goal.least else ratio <= goal.times * goal.close
            head, form = NUMBERS[goal.number]
            judged.append({
                "number": goal.number, "connections": connections, "peer": peer, "ratio": ratio, "reached": reached,
                "limit": theirs[peer] * goal.times,
                "what": f"{head}, {connections} {workload.unit}: {mine[goal.number]:{form}}, "
                        f"{'at least' if goal.least else 'at most'} {goal.times:g} x {NAMES[peer]}'s "
                        f"{theirs[peer]:{form}}: {ratio:.2f}"})
    return judged


def warnings(rows, workload):
    """What does not make a row wrong, but less fair or less sure."""
    said = []
    for r in rows:
        m, name = r["median"], f"{r['target']}, {r['connections']} {workload.unit}"
        # The worst round counts: each of these can fall on one target's turn only.
        worst = {n: s[1] for n, s in r["spread"].items() if s}
        requests = min((s["requests"] for s in r["rounds"] if s["requests"]), default=0)
        if worst.get("others_share", 0) > NOISY_SHARE:
            said.append(f"{name}: up to {worst['others_share']:.0%} of the proxy's core was used by others")
        if requests and (m["log_bytes"] or 0) / requests > CHATTY_BYTES:
            said.append(f"{name}: wrote {m['log_bytes'] / requests:.0f} bytes of log per request")
        # A direct connection is one of the load generator's own.
        if r["target"] != "direct" and workload.asks != "closing" and requests and (m["upstream_opened"] or 0) > max(r["connections"], REOPENING * requests):
            said.append(f"{name}: opened {m['upstream_opened']:.0f} connections to the backend")
    spoken = sorted({t for r in rows if r["target"] != "direct" for t in r["tls"]})
    if len(spoken) > 1:
        said.append("the targets did not agree on the same TLS: " + "; ".join(spoken))
    return said


def machine():
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    return {"cpu": model[1] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


def versions(peers, tools):
    """The first version number that each program states about itself."""
    flags = {"wrk": "-v", "h2load": "--version", "openssl": "version"}
    found = {p: version_of([program_of(p), *PROGRAMS[p][1]]) for p in peers}
    found |= {t: version_of([find_program(t), flags[t]]) for t in tools if t in flags}
    return found


def version(portreeve, measured=None):
    """What the program says of itself, and which build was measured, where that is another program."""
    digest = hashlib.sha256((measured or portreeve).read_bytes()).hexdigest()
    return f"{version_of([portreeve, '--version'])} (sha256 {digest[:12]})"


def table(name, workload, settings, rows):
    """One workload's part of the document."""
    return {"workload": name, "title": workload.title, "settings": settings, "valid": all(r["valid"] for r in rows),
            "rows": rows, "goals": goals(rows, workload), "warnings": warnings(rows, workload)}


def document(tables, versions, missing, note):
    return {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "machine": machine(),
            "versions": versions, "missing": missing, "note": note, "valid": all(t["valid"] for t in tables), "tables": tables}


def unused(folder, name):
    """Where a document of this name goes: a second one of the day stands beside the first."""
    folder.mkdir(exist_ok=True)
    names = [name] + [f"{name}-{n}" for n in range(2, 1000)]
    return next(p for n in names if not (p := folder / f"{n}.json").exists())


def as_json(doc):
    """Indented, but lists of mere values on one line each: the requests of a page are many."""
    text = json.dumps(doc, indent=1)
    return re.sub(r"\[\n[^][{}]*\n *\]", lambda found: re.sub(r"\n *", " ", found[0]), text) + "\n"


def markdown(doc, workloads):
    box = doc["machine"]
    said = ", ".join(f"{n} {v}" for n, v in doc["versions"].items())
    lines = [f"{doc['date'][:16].replace('T', ' ')}; {box['cpu']}, {box['cores']} cores, Linux {box['kernel']}; {said}."]
    lines += [f"Left out: {m}." for m in doc["missing"]] + ([doc["note"]] if doc["note"] else [])
    for part in doc["tables"]:
        lines += ["", *_markdown_of(part, workloads[part["workload"]])]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_of(part, workload):
    s = part["settings"]
    lines = [f"## {part['workload']}", "",
             f"{part['title'][0].upper()}{part['title'][1:]}. {s['rounds']} round(s) of {s['seconds']} s, medians; in brackets the ratio to "
             f"{NAMES[workload.baseline]}. Portreeve {s['form']}."]
    for connections in s["connections"]:
        rows = [r for r in part["rows"] if r["connections"] == connections]
        base = next((r["median"] for r in rows if r["target"] == workload.baseline and r["valid"]), None)
        shown = [c for c in workload.columns if any(r["median"][c] is not None for r in rows)]
        head = [f"{connections:,} {workload.unit}", *(NUMBERS[c][0] for c in shown)]
        lines += ["", "| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
        for r in rows:
            cells = [_cell(r, c, base) for c in shown] if r["valid"] else ["**invalid**"] + [""] * (len(shown) - 1)
            lines.append("| " + " | ".join([NAMES[r["target"]], *cells]) + " |")
    lines.append("")
    for r in part["rows"]:
        lines += [f"- INVALID: {r['target']}, {r['connections']} {workload.unit}, {p}" for p in r["problems"]]
    lines += [f"- {'reached' if g['reached'] else 'MISSED'}: {g['what']}" for g in part["goals"]]
    lines += [f"- {said}" for said in _beside_the_best(part["rows"], workload)]
    lines += [f"- note: {w}" for w in part["warnings"]]
    return lines


def _beside_the_best(rows, workload):
    """Portreeve's main number beside that of the peer for which it is best."""
    head, form = NUMBERS[workload.main]
    best = max if workload.main.endswith("_per_second") else min
    for connections in workload.connections:
        shown = {r["target"]: value for r in rows if r["connections"] == connections and r["valid"] and (value := r["median"][workload.main])}
        peers = [target for target in shown if target in ALL]
        if "portreeve" in shown and peers:
            peer = best(peers, key=shown.get)
            yield (f"{head}, {connections:,} {workload.unit}: {shown['portreeve'] / shown[peer]:.2f} x the best peer's, which is {NAMES[peer]} "
                   f"with {shown[peer]:{form}}")


def _cell(r, number, base):
    value = r["median"][number]
    if value is None:
        return ""
    text = format(value, NUMBERS[number][1])
    return f"{text} ({value / base[number]:.2f})" if base and base[number] else text
