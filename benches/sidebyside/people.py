"""What each user takes beside the portal: the dialer that connects as the user, the worker that keeps the workspace, and who holds the
worker's PAM session open.

Invariant: the users that are added to the cluster's login node for this are gone at the end, with their homes.
"""

import os
import re
import shutil
import statistics
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .places import BenchError
from .process import Workshop
from .targets import Backend, Targets, session

COUNTS = (1, 10, 40)
PEOPLE_FROM, FIRST = 20_000, 30_000  # the cluster's own users have uids from the first on; those that are added, from the second
ROLES = {"portreeve-portal": "portal", "portreeve-broker": "broker", "portreeve-agent": "agents", "portreeve-worker": "worker",
         "portreeve-pam": "session"}
OF_A_USER = ("dialer", "worker", "session")
SETTLE_SECONDS = 2.0


def curve(form, load):
    """Rows with so many users, each of whom has had the workspace and asked for an application: KiB of memory, where a page that
    processes share counts as its share for each of them (Pss), for the median process of a user, and for all of each sort."""
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
                print(f"people, {count}: KiB {rows[-1]['kib_each']}", file=sys.stderr, flush=True)
        finally:
            for one in list(shop.children):
                shop.end(one)
    return rows


def table(rows):
    names = (*OF_A_USER, "user", "portal", "broker", "agents")
    lines = ["| users | " + " | ".join(f"{name}, KiB" for name in names) + " |", "| --- " * (len(names) + 1) + "|"]
    for row in rows:
        each = [row["kib_each"][one] for one in OF_A_USER]
        cells = [*each, sum(each), *(row["kib_all"][one] for one in names if one in row["kib_all"] and one not in OF_A_USER)]
        lines.append(f"| {row['count']} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
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
            home.mkdir(mode=0o700, exist_ok=True)
            os.chown(home, uid, uid)
        yield
    finally:
        for file, text in before.items():
            file.write_bytes(text)
        for home in homes:
            shutil.rmtree(home, ignore_errors=True)


def _come(portal, application, name):
    """Signs in, asks for an application and for the workspace's page. The application is another user's: the visitor's dialer connects all
    the same, and then it is judged."""
    cookie = session(portal.get("/-/sign-in", {"user": name, "password": "alice-password"}))
    there = replace(portal, headers={"Cookie": cookie})
    if (status := there.get(application)[0]) != 403:
        raise BenchError(f"{name} asks for another's application, and the answer is {status}")
    if (status := there.get("/")[0]) != 200:
        raise BenchError(f"{name} asks for the workspace, and the answer is {status}")


def _row(units, count):
    seen = defaultdict(list)
    for pid in units.look():
        try:
            role, text = _role(pid), Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        seen[role].append(int(re.search(r"^Pss: +(\d+)", text, re.M)[1]))
    for role in OF_A_USER:
        # alice's dialer is there as well: the run has signed her in.
        if not count <= len(seen[role]) <= count + 1:
            raise BenchError(f"{count} users have {len(seen[role])} x {role}")
    return {"count": count, "kib_each": {role: statistics.median(seen[role]) for role in OF_A_USER},
            "kib_all": {role: sum(ones) for role, ones in seen.items()}}


def _role(pid):
    name, uid = Path(os.readlink(f"/proc/{pid}/exe")).name, os.stat(f"/proc/{pid}").st_uid
    # A dialer is the broker's own program, forked.
    if name == "portreeve-broker" and uid >= PEOPLE_FROM:
        return "dialer"
    if name not in ROLES:
        raise BenchError(f"{name} is among Portreeve's processes, and nobody knows what it is")
    return ROLES[name]
