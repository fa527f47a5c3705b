"""Single times that a load generator doesn't take: of connect(2) alone, and of a user's first page."""

import os
import signal
import statistics
import time
from pathlib import Path

from .places import BenchError

CONNECTS = 2000
PAGES = 5  # each turn
WORKER = "portreeve-worke"  # as the kernel cuts it
# One that lived shorter than five seconds counts as broken, and is not replaced at once.
LIVES_SECONDS = 6.0
GONE_SECONDS = 0.5


def connects(sample, end):
    """What a new connection to the backend takes the kernel, whoever asks for it."""
    took = []
    for _ in range(CONNECTS):
        with end.seat.socket() as sock:
            begun = time.perf_counter()
            sock.connect((end.address, end.port))
            took.append(time.perf_counter() - begun)
    _note(sample, took)


def first_pages(sample, tree, portal, with_worker):
    """The workspace's page over connections that are open already, with a running worker, or each time without one."""
    _page(portal)
    if not _workers(tree):
        raise BenchError("a page was shown, and no worker runs")
    took = []
    for _ in range(PAGES):
        if not with_worker:
            time.sleep(LIVES_SECONDS)
            for pid in _workers(tree):
                os.kill(pid, signal.SIGTERM)
            time.sleep(GONE_SECONDS)
            if _workers(tree):
                raise BenchError("a worker that was told to end still runs, or another one")
        took.append(_page(portal))
    _note(sample, took)


def _page(portal):
    with portal.open() as sock:
        begun = time.perf_counter()
        status, *_ = portal.ask(sock)
        took = time.perf_counter() - begun
    if status != 200:
        raise BenchError(f"answers {status} for {portal.path}")
    return took


def _workers(tree):
    return [pid for pid in tree.look() if _name(pid) == WORKER]


def _name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def _note(sample, seconds):
    sample.requests, sample.p50_us = len(seconds), statistics.median(seconds) * 1e6
