"""What each user takes beside the portal: the dialer that connects as the user, and the worker that keeps the workspace.

Invariant: the users that are added to the cluster's login node for this are gone at the end, with their homes.
"""

import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .cluster import Deployed
from .places import BenchError
from .process import Workshop
from .targets import Backend, Targets, session

COUNTS = (1, 10, 40)
FIRST = 30_000  # the first uid
ROLES = {"portreeve-portal": "portal", "portreeve-broker": "broker", "portreeve-agent": "agents", "portreeve-dialer": "dialer",
         "portreeve-worker": "worker"}
SETTLE_SECONDS = 2.0


def curve(state, load):
    """Rows of what all processes of each sort take, in KiB, with so many users who each have a page open and an application asked for."""
    form = Deployed(state)
    names = [f"user{number}" for number in range(max(COUNTS))]
    rows = []
    with form.installed(), Workshop(form.place) as shop, _accounts(form.cluster, names):
        targets = Targets(shop, Backend(shop, shop.copy(load)), form, load)
        try:
            units, portal = form.start(targets)
            for count in COUNTS:
                for name in names[rows[-1]["count"] if rows else 0:count]:
                    _come(portal, f"{form.place.prefix(targets.backend.port)}/", name)
                time.sleep(SETTLE_SECONDS)
                rows.append(_row(units, count))
                print(f"people, {count}: {rows[-1]['each']}", file=sys.stderr, flush=True)
        finally:
            for one in list(shop.children):
                shop.end(one)
    return rows


def table(rows):
    lines = ["| users | a dialer's own KiB | all of it | a worker's own KiB | all of it | portal | broker | agents |", "| --- " * 8 + "|"]
    for row in rows:
        cells = [f"{row['each'][one][what]:,.0f}" for one in ("dialer", "worker") for what in ("own_kib", "pss_kib")]
        cells += [f"{row['all_kib'][one]:,.0f}" for one in ("portal", "broker", "agents")]
        lines.append(f"| {row['count']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@contextmanager
def _accounts(cluster, names):
    """Users of the login node, with alice's password."""
    files = {name: cluster.file("login", f"etc/{name}") for name in ("passwd", "shadow")}
    before = {file: file.read_bytes() for file in files.values()}
    password = next(line.split(":")[1] for line in files["shadow"].read_text().splitlines() if line.startswith("alice:"))
    homes = [cluster.file("login", f"home/{name}") for name in names]
    try:
        with open(files["passwd"], "a") as passwd, open(files["shadow"], "a") as shadow:
            for uid, name in enumerate(names, FIRST):
                passwd.write(f"{name}:x:{uid}:{uid}::/home/{name}:/bin/bash\n")
                shadow.write(f"{name}:{password}:20000:0:99999:7:::\n")
        for uid, home in enumerate(homes, FIRST):
            home.mkdir(mode=0o700)
            os.chown(home, uid, uid)
        yield
    finally:
        for file, text in before.items():
            file.write_bytes(text)
        for home in homes:
            shutil.rmtree(home, ignore_errors=True)


def _come(portal, application, name):
    """Signs in, asks for an application, which is another user's, and for the workspace's page."""
    cookie = session(portal.get("/-/sign-in", {"user": name, "password": "alice-password"}))
    there = replace(portal, headers={"Cookie": cookie})
    if (status := there.get(application)[0]) != 403:
        raise BenchError(f"{name} asks for another's application, and the answer is {status}")
    if (status := there.get("/")[0]) != 200:
        raise BenchError(f"{name} asks for the workspace, and the answer is {status}")


def _row(units, count):
    seen = defaultdict(list)
    for pid in units.look():
        if role := ROLES.get(_program(pid)):
            seen[role].append(_memory(pid))
    for role in ("dialer", "worker"):
        # alice's are there as well: the run has signed her in.
        if not count <= len(seen[role]) <= count + 1:
            raise BenchError(f"{count} users have {len(seen[role])} {role}s")
    each = {role: {key: statistics.median(one[key] for one in seen[role]) for key in ("own_kib", "pss_kib")} for role in ("dialer", "worker")}
    return {"count": count, "each": each, "all_kib": {role: sum(one["pss_kib"] for one in ones) for role, ones in seen.items()}}


def _program(pid):
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:
        return None


def _memory(pid):
    """`own_kib`: pages that no other process has; `pss_kib`: these, and its share of the others."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return {"own_kib": kib["Private_Clean"] + kib["Private_Dirty"], "pss_kib": kib["Pss"]}
