"""Where load can go: to the backend itself, or to it through a proxy."""

import http.client
import ssl
import time
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from . import files, page
from .peers import NGINX, PEERS, Setup
from .places import LOOPBACK, BenchError, Seat, find_program

BODY = bytes(range(256)) * 4  # 1 KiB, and nothing that a proxy would want to rewrite
LARGE = 100 << 20
PATHS = {"file": "/1k.bin", "large": "/large.bin", "page": "/page.html", "echo": "/echo", "sink": "/sink", "lab": "/lab",
         "closing": "/1k.bin", "workspace": "/"}
TEXT = "/page.txt"
COOKIE = "__Host-portreeve"
# Portreeve as the peers are set up: one thread, and no limit that a load would meet.
THREADS = "threads = 1\n"
LIMITS = "[limits]\nconnections = 100000\nrequests_per_session = 100000\n"
NO_PROXY = ("direct", "connect")
START_SECONDS = 10.0
PROBE_SECONDS = 5.0

BACKEND = """\
  sendfile on; open_file_cache max=16 inactive=3600s; open_file_cache_valid 3600s;
  server {{
    listen {address}:{h1}; root {root};
    location ~ [.]html$ {{ default_type "text/html; charset=utf-8"; }}
    location ~ [.]txt$ {{ default_type "text/plain; charset=utf-8"; }}
  }}
  server {{
    listen {address}:{below};
    location / {{ return 404; }}
    location ~ ^/fw2/[^/]+/(.*)$ {{ alias {root}/$1; default_type "text/html; charset=utf-8"; }}
  }}
  server {{ listen {address}:{closing}; root {root}; keepalive_timeout 0; }}
  server {{ listen {address}:{h2c} http2; root {root}; sendfile off; }}
  server {{ listen {address}:{status}; location = /status {{ stub_status; }} }}
"""
@dataclass(frozen=True)
class Endpoint:
    """Where load goes: always to an IPv4 address, whatever name stands for it; and from where (`seat`)."""

    port: int
    tls: bool
    path: str = PATHS["file"]
    host: str = "localhost"
    headers: dict = field(default_factory=dict)
    http1_port: int = None  # for single looks, where `port` speaks nothing but HTTP/2
    is_right: callable = None  # asked about a body
    address: str = "127.0.0.1"
    seat: Seat = LOOPBACK.load

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    @property
    def authority(self):
        """The host as a browser writes it: without the port that its scheme has anyway."""
        return self.host if self.port == (443 if self.tls else 80) else f"{self.host}:{self.port}"

    def get(self, path=None, form=None):
        """One GET, or one POST of a form, that follows nothing: (status, headers, body, TLS version and cipher)."""
        with self.open() as sock:
            return self.ask(sock, path, form)

    def open(self):
        sock = self.seat.connect(self.address, self.http1_port or self.port, PROBE_SECONDS)
        if not self.tls:
            return sock
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        try:
            return unchecked.wrap_socket(sock, server_hostname=self.host)
        except OSError:
            sock.close()
            raise

    def ask(self, sock, path=None, form=None):
        body = urlencode(form).encode() if form else b""
        lines = [f"{'POST' if form else 'GET'} {path or self.path} HTTP/1.1", f"Host: {self.authority}"]
        lines += [f"{k}: {v}" for k, v in self.headers.items()]
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"] if form else []
        try:
            sock.sendall("\r\n".join(lines + ["Connection: close", "", ""]).encode() + body)
            response = http.client.HTTPResponse(sock, method="POST" if form else "GET")
            response.begin()
            spoken = f"{sock.version()} {sock.cipher()[0]}" if self.tls else "none"
            return response.status, response.headers, response.read(), spoken
        except http.client.HTTPException as error:
            raise BenchError(f"answers no HTTP/1.1: {error!r}") from error

    def probe(self):
        """Makes sure that the body is what it must be, byte for byte; returns what TLS was agreed, and its length."""
        status, headers, body, spoken = self.get()
        if status != 200:
            where = f" to {headers['Location']}" if headers["Location"] else ""
            raise BenchError(f"answers {status}{where} for {self.path}")
        if self.is_right and not self.is_right(body):
            raise BenchError(f"answers {self.path} with a body of {len(body)} bytes that is not the right one")
        return spoken, len(body)


def wait_listening(child, port, seconds=START_SECONDS, seat=LOOPBACK.load):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.has_ended():
            raise BenchError(f"{child.name} ended at once: {child.log_tail()}")
        try:
            seat.connect(seat.address, port, 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise BenchError(f"{child.name} did not listen within {seconds:.0f} s: {child.log_tail()}")


class Backend:
    """Behind every target: a static nginx, which also counts what really reached it, and a program for all that is no file."""

    def __init__(self, shop, load):
        seat = shop.place.backend
        # `below` answers below the path that Portreeve gives it, as an application does that knows its prefix; `closing` closes each
        # connection after its answer.
        self.port, self.h2c, self.below, self.closing, self._status, self.program = (seat.free_port() for _ in range(6))
        root = shop.subfolder(f"root-{self.port}")
        for path, body in ((PATHS["file"], BODY), (PATHS["page"], page.PAGE), (TEXT, page.PAGE), (PATHS["large"], bytes(LARGE))):
            shop.write(root / path.removeprefix("/"), body)
        folder = shop.subfolder(f"backend-{self.port}")
        servers = BACKEND.format(root=root, address=seat.address, h1=self.port, h2c=self.h2c, below=self.below, closing=self.closing,
                                 status=self._status)
        config = shop.write(folder / "nginx.conf", NGINX.format(dir=folder, servers=servers))
        self.child = shop.start("backend", [find_program("nginx"), "-c", config], seat)
        for port in (self.port, self.h2c, self.below, self.closing, self._status):
            wait_listening(self.child, port, seat=seat)
        self._shop, self._seat = shop, seat
        self._other = shop.start("backend-program", [load, "backend", "--listen", f"{seat.address}:{self.program}"], seat)
        wait_listening(self._other, self.program, seat=seat)

    def end(self):
        for child in (self.child, self._other):
            self._shop.end(child)

    def counts(self):
        """(connections accepted, requests begun) by the static one so far, this question included."""
        _, _, body, _ = Endpoint(self._status, tls=False, address=self._seat.address, seat=self._seat).get("/status")
        accepted, _handled, requests = map(int, body.decode().splitlines()[2].split())
        return accepted, requests


class Targets:
    """Starts one target at a time, afresh, so that none is measured while another one stirs."""

    def __init__(self, shop, backend, form, load):
        self.shop, self.place, self.backend, self.form, self.load = shop, shop.place, backend, form, load
        self.folder = shop.subfolder(f"targets-{backend.port}")
        self.certificate, self.key = self.folder / "cert.pem", self.folder / "key.pem"
        self.trust = form.certify(shop, self.certificate, self.key)
        self.combined = shop.write(self.folder / "both.pem", self.certificate.read_bytes() + self.key.read_bytes())
        self.disk = None
        self._turn = 0

    def start(self, name, workload):
        """(the process tree, None without a proxy; where to send the load)."""
        self._turn += 1
        if workload.asks in files.PATHS:
            return self._file_server(name, files.PATHS[workload.asks])
        port = self._port(workload)
        if name in NO_PROXY:
            return self._direct(workload, port)
        if name.startswith("portreeve"):
            return self._portreeve(name, workload, port)
        proxy, links = self.place.proxy, self.place.prefix(port) if workload.asks == "page" else None
        setup = Setup(
            self.subfolder(name), self.place.name, proxy.address, proxy.free_port(), f"{self.place.backend.address}:{port}",
            self.certificate, self.key, self.combined, workload.http2, workload.resumes, upgrades=workload.asks in ("echo", "lab"),
            links=links)
        if name == "floor":
            argv, env = [self.load, "floor", "--listen", setup.listen, "--backend", setup.backend,
                         "--certificate", setup.certificate, "--key", setup.key], {}
            argv += ["--tickets"] if workload.resumes else []
        else:
            argv, env = PEERS[name](self.shop, setup)
        child = self.shop.start(name, argv, proxy, env)
        wait_listening(child, setup.port, seat=proxy)
        path, is_right = self._path(workload, port), self._is_right(workload)
        if links:
            path = links + path
            is_right = {"nginx": page.literally, "apache": page.written_anew}[name](links)
        return child, self.portal(setup.port, path=path, is_right=is_right)

    def _file_server(self, name, path):
        if self.disk is None:
            self.disk = self.form.disk(self.shop)
            self.disk.fill(self.shop)
        self.disk.empty(self.shop)
        if name == "portreeve":
            child, portal = self.form.start(self)
            return child, replace(portal, path=f"/dav{self.disk.inside}/{path}")
        seat = replace(self.place.proxy, mounts=self.disk.mounts)
        port = seat.free_port()
        argv, env = files.server(self.shop, self.disk, name, port, seat.address, self.certificate, self.key)
        child = self.shop.start(name, argv, seat, env)
        wait_listening(child, port, seat=seat)
        return child, self.portal(port, path=f"/{path}")

    def end(self):
        if self.disk:
            self.disk.remove()

    def subfolder(self, name):
        """A new one for this turn."""
        return self.shop.subfolder(f"{self.folder.name}-{self._turn}-{name}")

    def portal(self, port, **more):
        """Where the proxy is to the load."""
        return Endpoint(port, True, **{"host": self.place.name, "address": self.place.proxy.address, "seat": self.place.load, **more})

    def _port(self, workload):
        other = {"echo": "program", "sink": "program", "closing": "closing"}
        return getattr(self.backend, other.get(workload.asks, "port"))

    def _path(self, workload, port):
        """JupyterLab knows its prefix, so it has it wherever one comes from."""
        return (self.place.prefix(port) if workload.asks == "lab" else "") + PATHS[workload.asks]

    @staticmethod
    def _is_right(workload):
        known = {"file": BODY.__eq__, "closing": BODY.__eq__, "large": bytes(LARGE).__eq__, "page": page.as_it_is}
        return known.get(workload.asks)

    def _direct(self, workload, port):
        # A browser speaks HTTP/2 over TLS only.
        spoken = self.backend.h2c if workload.http2 and workload.asks != "lab" else port
        return None, Endpoint(
            spoken, False, self._path(workload, port), http1_port=port, is_right=self._is_right(workload),
            address=self.place.backend.address, seat=self.place.beside)

    def _portreeve(self, name, workload, port):
        path, is_right = PATHS[workload.asks], self._is_right(workload)
        if name == "portreeve-keep":  # the same page from an application that knows its prefix: nothing is to be rewritten
            port = self.backend.below
        elif name == "portreeve-text":  # the same bytes as text, in which nothing is rewritten
            path = TEXT
        elif name == "portreeve-pooled":  # the same from an application that keeps its connections
            port = self.backend.port
        elif workload.asks == "page":
            is_right = page.with_ours(self.place.prefix(port))
        child, portal = self.form.start(self)
        host = f"{self.place.node}-{port}.{portal.host}" if name == "portreeve-own" else portal.host
        prefix = "" if workload.asks == "workspace" else self.place.prefix(port)
        return child, replace(portal, path=prefix + path, host=host, is_right=is_right)


def session(answer):
    """What a sign-in's answer sets, as a Cookie header's value."""
    status, headers, _, _ = answer
    for line in headers.get_all("Set-Cookie", []):
        pair = line.split(";", 1)[0].strip()
        if pair.startswith(COOKIE + "="):
            return pair
    raise BenchError(f"signing in answers {status} and sets no {COOKIE} cookie")
