"""What is measured, by name: which load goes where, who takes part, and what is to be reached.

Invariant: a goal compares two rows of one table; within `CLOSE` of a peer's number counts as reached, unless the goal has a margin already.
"""

from dataclasses import dataclass

from . import files

CLOSE = 1.03
PROXIES = ("nginx", "haproxy", "apache", "caddy", "chp")
FILE_SERVERS = ("nginx", "apache", "rclone")
ALL = tuple(dict.fromkeys(PROXIES + FILE_SERVERS))
BEST = "the best peer"
MIB = 1 << 20


@dataclass(frozen=True)
class Goal:
    """At most (or with `least` at least) `times` a peer's number, with these connections; () is all."""

    number: str
    peer: str
    times: float = 1.0
    connections: tuple = ()
    least: bool = False
    close: float = CLOSE  # the margin, for noise


@dataclass(frozen=True)
class Workload:
    """`load` names the generator, `options` are its own; `asks` is what is asked for."""

    title: str
    load: str
    goals: tuple
    peers: tuple = PROXIES
    ours: tuple = ("portreeve", "floor")
    bare: tuple = ("direct",)  # without a proxy
    deployed: bool = False  # there is no such thing in the one-process form
    baseline: str = "haproxy"
    connections: tuple = (1,)
    quick: tuple = ()  # with --quick: these connections; () leaves it out
    options: tuple = ()
    asks: str = "file"  # file, large, page, echo, sink, lab, closing, workspace, or one of files.PATHS
    http2: bool = False
    resumes: bool = False  # the servers let a handshake build on an earlier one
    columns: tuple = ("requests_per_second", "p50_us", "p99_us", "p999_us", "cpu_us_per_request", "rss_after_mib")
    main: str = "cpu_us_per_request"  # the number that is plotted
    unit: str = "connection(s)"


KEEPALIVE = (Goal("cpu_us_per_request", "haproxy"), Goal("p50_us", "nginx", connections=(1,)),
             Goal("p99_us", BEST, connections=(32,)))
CPU_OF_NGINX = (Goal("cpu_us_per_request", "nginx"),)
AS_FAST = (Goal("mb_per_second", "nginx", least=True),)
ROUND_TRIP = (Goal("p50_us", "haproxy", connections=(1,)), Goal("cpu_us_per_request", "haproxy"))
# What a person waits for. The margin is in the goal, so there is no second one.
NO_SLOWER = (Goal("drawn_ms", "direct", 1.05, close=1.0), Goal("complete_ms", "direct", 1.05, close=1.0))
AS_FAST_AS_ANY = (Goal("mb_per_second", BEST, least=True),)
MOVED = ("mb_per_second", "p50_us", "p99_us", "cpu_us_per_mb", "cpu_us_per_request", "rss_after_mib")

WORKLOADS = {
    "keepalive": Workload(
        "1 KiB over HTTP/1.1, connections kept", "wrk", KEEPALIVE, connections=(1, 32, 256), quick=(32,)),
    "keepalive-h2": Workload(
        "1 KiB over HTTP/2, connections kept, one request at a time on each", "h2load", KEEPALIVE,
        peers=("nginx", "haproxy", "apache", "caddy"), connections=(1, 32, 256), quick=(32,), http2=True),
    "handshakes": Workload(
        "a new TLS connection for each request, full handshakes", "handshakes", CPU_OF_NGINX, baseline="nginx",
        connections=(8,), quick=(8,)),
    "handshakes-resumed": Workload(
        "a new TLS connection for each request, handshakes that build on an earlier one", "handshakes", CPU_OF_NGINX,
        baseline="nginx", connections=(8,), options=("--resume",), resumes=True),
    "download": Workload(
        "100 MB from the application", "transfers", AS_FAST, baseline="nginx", connections=(1, 8), quick=(1,),
        options=("--bytes", str(100 * MIB)), asks="large", columns=MOVED, main="mb_per_second"),
    "upload": Workload(
        "100 MB to the application", "transfers", AS_FAST, baseline="nginx", connections=(1, 8),
        options=("--bytes", str(100 * MIB), "--upload"), asks="sink", columns=MOVED, main="mb_per_second"),
    "links": Workload(
        "118 KB page with 2,400 links, each rewritten", "wrk",
        (Goal("cpu_us_per_request", "nginx", 2.0), Goal("cpu_us_per_request", "apache", 0.25)),
        peers=("nginx", "apache"), ours=("portreeve", "portreeve-keep", "portreeve-text"), baseline="nginx",
        connections=(8,), asks="page"),
    "websocket": Workload(
        "WebSocket messages of 64 bytes that come back", "echoes", ROUND_TRIP, connections=(1, 32), quick=(1,),
        options=("--bytes", "64"), asks="echo"),
    "websocket-large": Workload(
        "WebSocket messages of 64 KiB that come back", "echoes", ROUND_TRIP, connections=(1,),
        options=("--bytes", str(64 * 1024)), asks="echo"),
    "idle": Workload(
        "WebSockets that only stay open, while one connection asks for a byte", "idle",
        (Goal("kib_each", "haproxy"),), peers=("nginx", "haproxy", "caddy"), connections=(10_000,), asks="echo",
        columns=("kib_each", "idle_cpu_share", "requests_per_second", "p50_us", "p99_us", "p999_us", "rss_after_mib"), main="kib_each"),
    "page-31": Workload(
        "31 requests at once for 1 KiB over HTTP/1.1, from the connection on", "pages", (), options=("--requests", "31"),
        main="p50_us"),
    "page-78": Workload(
        "78 requests at once for 1 KiB over HTTP/2, from the connection on", "pages", (),
        peers=("nginx", "haproxy", "apache", "caddy"), options=("--requests", "78", "--http2"), http2=True,
        main="p50_us"),
    "first-request": Workload(
        "1 KiB over HTTP/1.1, with a new connection to the application for each request", "wrk", (), peers=("nginx", "haproxy"),
        ours=("portreeve", "portreeve-pooled"), bare=("connect",), baseline="portreeve-pooled", quick=(1,), asks="closing",
        main="p50_us"),
    "first-page": Workload(
        "the workspace's page for a user without a running worker", "first-page", (), peers=(),
        ours=("portreeve", "portreeve-worker"), bare=(), deployed=True, baseline="portreeve-worker", asks="workspace",
        columns=("p50_us",), main="p50_us"),
    "files-get": Workload(
        "1 GiB of a file, by WebDAV", "transfers", AS_FAST_AS_ANY, peers=FILE_SERVERS, ours=("portreeve",), bare=(),
        baseline="nginx", quick=(1,), options=("--bytes", str(files.LARGE)), asks="files-large", columns=(*MOVED, "rss_idle_mib"),
        main="mb_per_second"),
    "files-put": Workload(
        "1 GiB into a file, by WebDAV", "puts", AS_FAST_AS_ANY, peers=("apache", "rclone"), ours=("portreeve",), bare=(),
        baseline="apache", options=("--bytes", str(files.LARGE)), asks="files-put", columns=(*MOVED, "rss_idle_mib"),
        main="mb_per_second"),
    "files-list": Workload(
        "a directory of 10,000 entries, by WebDAV", "lists", (Goal("p50_us", "apache", 1 / 3),), peers=("apache", "rclone"),
        ours=("portreeve",), bare=(), baseline="apache", options=("--entries", str(files.ENTRIES)), asks="files-many",
        columns=("requests_per_second", "p50_us", "cpu_us_per_request", "rss_after_mib", "rss_idle_mib"), main="p50_us"),
    "files-new": Workload(
        "new files of 1 KiB, one after the other on each connection, by WebDAV", "puts",
        (Goal("requests_per_second", "apache", least=True),), peers=("apache", "rclone"), ours=("portreeve",), bare=(),
        baseline="apache", connections=(1, 8), options=("--bytes", str(files.SMALL), "--new"), asks="files-new",
        columns=("requests_per_second", "p50_us", "p99_us", "cpu_us_per_request", "rss_after_mib", "rss_idle_mib"),
        main="requests_per_second"),
    "jupyterlab": Workload(
        "JupyterLab in Chromium, its cache empty", "jupyterlab", NO_SLOWER, peers=("nginx", "haproxy", "apache", "caddy"),
        ours=("portreeve", "portreeve-own", "floor"), baseline="direct", asks="lab", http2=True, unit="browser",
        columns=("drawn_ms", "complete_ms", "added_ms", "added_total_ms", "requests_each", "kib_page", "cpu_us_per_request", "rss_after_mib"),
        main="drawn_ms"),
}

# number: (head of its column, format)
NUMBERS = {
    "requests_per_second": ("req/s", ",.0f"), "mb_per_second": ("MB/s", ",.0f"),
    "p50_us": ("p50 us", ",.0f"), "p99_us": ("p99 us", ",.0f"), "p999_us": ("p99.9 us", ",.0f"),
    "cpu_us_per_request": ("CPU us/req", ",.1f"), "cpu_us_per_mb": ("CPU us/MB", ",.0f"),
    "kib_each": ("KiB each", ".1f"), "idle_cpu_share": ("CPU idle", ".1%"), "rss_after_mib": ("MiB after", ".1f"),
    "rss_idle_mib": ("MiB idle", ".1f"),
    "drawn_ms": ("drawn, ms", ",.0f"), "complete_ms": ("complete, ms", ",.0f"),
    "added_ms": ("added per request, ms", "+.1f"), "added_total_ms": ("added to all, ms", "+,.0f"),
    "requests_each": ("requests", ".0f"), "kib_page": ("KiB", ",.0f"),
}
