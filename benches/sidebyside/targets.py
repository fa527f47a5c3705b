"""Where load can go: to the backend itself, or to it through a proxy."""

import http.client
import random
import socket
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from . import page
from .peers import NGINX, PEERS, Setup
from .process import DESCRIPTORS, LOAD_CORE, PROXY_CORE, BenchError, find_program

BODY = bytes(range(256)) * 4  # 1 KiB, and nothing that a proxy would want to rewrite
LARGE = 100 << 20
PATHS = {"file": "/1k.bin", "large": "/large.bin", "page": "/page.html", "echo": "/echo", "sink": "/sink", "lab": "/lab"}
TEXT = "/page.txt"
COOKIE = "__Host-portreeve"
START_SECONDS = 10.0
PROBE_SECONDS = 5.0

BACKEND = """\
  sendfile on; open_file_cache max=16 inactive=3600s; open_file_cache_valid 3600s;
  server {{
    listen 127.0.0.1:{h1}; root {root};
    location ~ [.]html$ {{ default_type "text/html; charset=utf-8"; }}
    location ~ [.]txt$ {{ default_type "text/plain; charset=utf-8"; }}
  }}
  server {{
    listen 127.0.0.1:{below};
    location / {{ return 404; }}
    location ~ ^/fw2/[^/]+/(.*)$ {{ alias {root}/$1; default_type "text/html; charset=utf-8"; }}
  }}
  server {{ listen 127.0.0.1:{h2c} http2; root {root}; sendfile off; }}
  server {{ listen 127.0.0.1:{status}; location = /status {{ stub_status; }} }}
"""
PORTREEVE = """\
threads = 1
[tls]
certificate = "{certificate}"
key = "{key}"
"""


@dataclass(frozen=True)
class Endpoint:
    """Where load goes: always over IPv4 loopback, whatever name the address has."""

    port: int
    tls: bool
    path: str = PATHS["file"]
    host: str = "localhost"
    headers: dict = field(default_factory=dict)
    http1_port: int = None  # for single looks, where `port` speaks nothing but HTTP/2
    is_right: callable = None  # asked about a body

    def get(self, path=None):
        """One GET that follows nothing: (status, headers, body, TLS version and cipher)."""
        sock = socket.create_connection(("127.0.0.1", self.http1_port or self.port), PROBE_SECONDS)
        try:
            if self.tls:
                unchecked = ssl.create_default_context()
                unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
                sock = unchecked.wrap_socket(sock, server_hostname=self.host)
            lines = [f"GET {path or self.path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
            lines += [f"{k}: {v}" for k, v in self.headers.items()]
            sock.sendall("\r\n".join(lines + ["Connection: close", "", ""]).encode())
            response = http.client.HTTPResponse(sock, method="GET")
            response.begin()
            spoken = f"{sock.version()} {sock.cipher()[0]}" if self.tls else "none"
            return response.status, response.headers, response.read(), spoken
        except http.client.HTTPException as error:
            raise BenchError(f"answers no HTTP/1.1: {error!r}") from error
        finally:
            sock.close()

    def probe(self):
        """Makes sure that the body is what it must be, byte for byte; returns what TLS was agreed, and its length."""
        status, headers, body, spoken = self.get()
        if status != 200:
            where = f" to {headers['Location']}" if headers["Location"] else ""
            raise BenchError(f"answers {status}{where} for {self.path}")
        if self.is_right and not self.is_right(body):
            raise BenchError(f"answers {self.path} with a body of {len(body)} bytes that is not the right one")
        return spoken, len(body)


def free_port():
    """A port below the kernel's range for outgoing connections, so that none of those takes it first."""
    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise BenchError("no free port between 20000 and 32000")


def wait_listening(child, port, seconds=START_SECONDS):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.process.poll() is not None:
            raise BenchError(f"{child.name} ended at once: {child.log_tail()}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise BenchError(f"{child.name} did not listen within {seconds:.0f} s: {child.log_tail()}")


class Backend:
    """Behind every target: a static nginx, which also counts what really reached it, and a program for all that is no file."""

    def __init__(self, shop, load):
        # `below` answers below the path that Portreeve gives it, as an application does that knows its prefix.
        self.port, self.h2c, self.below, self._status, self.program = (free_port() for _ in range(5))
        root = shop.subfolder(f"root-{self.port}")
        for path, body in ((PATHS["file"], BODY), (PATHS["page"], page.PAGE), (TEXT, page.PAGE), (PATHS["large"], bytes(LARGE))):
            shop.write(root / path.removeprefix("/"), body)
        folder = shop.subfolder(f"backend-{self.port}")
        servers = BACKEND.format(root=root, h1=self.port, h2c=self.h2c, below=self.below, status=self._status)
        config = shop.write(folder / "nginx.conf", NGINX.format(dir=folder, servers=servers, descriptors=DESCRIPTORS))
        self.child = shop.start("backend", [find_program("nginx"), "-c", config], LOAD_CORE)
        for port in (self.port, self.h2c, self.below, self._status):
            wait_listening(self.child, port)
        self._shop = shop
        self._other = shop.start("backend-program", [load, "backend", "--listen", f"127.0.0.1:{self.program}"], LOAD_CORE)
        wait_listening(self._other, self.program)

    def end(self):
        for child in (self.child, self._other):
            self._shop.end(child)

    def counts(self):
        """(connections accepted, requests begun) by the static one so far, this question included."""
        _, _, body, _ = Endpoint(self._status, tls=False).get("/status")
        accepted, _handled, requests = map(int, body.decode().splitlines()[2].split())
        return accepted, requests


class Targets:
    """Starts one target at a time, afresh, so that none is measured while another one stirs."""

    def __init__(self, shop, backend, portreeve, load, patience=START_SECONDS):
        self.shop, self.backend, self.portreeve, self.load = shop, backend, portreeve, load
        self.patience = patience
        self.folder = shop.subfolder(f"targets-{backend.port}")
        self.certificate, self.key = self.folder / "cert.pem", self.folder / "key.pem"
        shop.run("openssl", [
            find_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", self.key, "-out", self.certificate,
            "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
        ], 20)
        self.combined = shop.write(self.folder / "both.pem", self.certificate.read_bytes() + self.key.read_bytes())
        self._turn = 0

    def start(self, name, workload):
        """(the process tree, None for `direct`; where to send the load)."""
        self._turn += 1
        port = self.backend.program if workload.asks in ("echo", "sink") else self.backend.port
        if name == "direct":
            return self._direct(workload, port)
        if name.startswith("portreeve"):
            return self._portreeve(name, workload, port)
        setup = Setup(
            self.shop.subfolder(f"{self.folder.name}-{self._turn}-{name}"), free_port(), port, self.certificate, self.key, self.combined,
            workload.http2, workload.resumes, upgrades=workload.asks in ("echo", "lab"),
            links=self._prefix(port) if workload.asks == "page" else None)
        if name == "floor":
            argv, env = [self.load, "floor", "--listen", f"127.0.0.1:{setup.port}", "--backend", f"127.0.0.1:{port}",
                         "--certificate", setup.certificate, "--key", setup.key], {}
            argv += ["--tickets"] if workload.resumes else []
        else:
            argv, env = PEERS[name](self.shop, setup)
        child = self.shop.start(name, argv, PROXY_CORE, env)
        wait_listening(child, setup.port)
        path, is_right = self._path(workload, port), self._is_right(workload)
        if setup.links:
            path = setup.links + path
            is_right = {"nginx": page.literally, "apache": page.written_anew}[name](setup.links)
        return child, Endpoint(setup.port, True, path, is_right=is_right)

    @staticmethod
    def _prefix(port):
        return f"/fw2/localhost:{port}"

    def _path(self, workload, port):
        """JupyterLab knows its prefix, so it has it wherever one comes from."""
        return (self._prefix(port) if workload.asks == "lab" else "") + PATHS[workload.asks]

    @staticmethod
    def _is_right(workload):
        return {"file": BODY.__eq__, "large": bytes(LARGE).__eq__, "page": page.as_it_is}.get(workload.asks)

    def _direct(self, workload, port):
        # A browser speaks HTTP/2 over TLS only.
        spoken = self.backend.h2c if workload.http2 and workload.asks != "lab" else port
        return None, Endpoint(spoken, False, self._path(workload, port), http1_port=port, is_right=self._is_right(workload))

    def _portreeve(self, name, workload, port):
        path, is_right = PATHS[workload.asks], self._is_right(workload)
        if name == "portreeve-keep":  # the same page from an application that knows its prefix: nothing is to be rewritten
            port = self.backend.below
        elif name == "portreeve-text":  # the same bytes as text, in which nothing is rewritten
            path = TEXT
        elif workload.asks == "page":
            is_right = page.with_ours(self._prefix(port))
        state = self.shop.subfolder(f"{self.folder.name}-{self._turn}-portreeve")
        config = self.shop.write(state / "portreeve.toml", PORTREEVE.format(
            certificate=self.certificate, key=self.key))
        argv = [self.portreeve, "up", "--listen", "127.0.0.1:0", "--state", state, "--config", config]
        child = self.shop.start("portreeve", argv, PROXY_CORE)
        address = urlsplit(self._sign_in_address(child))
        cookie = enter(Endpoint(address.port, True, host=address.hostname), f"{address.path}?{address.query}")
        host, path = address.hostname, self._prefix(port) + path
        if name == "portreeve-own":
            host = f"localhost-{port}.{host}"
        return child, Endpoint(address.port, True, path, host, {"Cookie": cookie}, is_right=is_right)

    def _sign_in_address(self, child):
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            for line in child.out.read_text().splitlines(keepends=True):
                if line.startswith("sign in: ") and line.endswith("\n"):
                    return line.removeprefix("sign in: ").strip()
            if child.process.poll() is not None:
                raise BenchError(f"portreeve ended at once: {child.log_tail()}")
            time.sleep(0.02)
        raise BenchError(f"portreeve printed no `sign in:` line: {child.log_tail()}")


def enter(portal, address):
    """Uses the single-use address once; returns the session as a Cookie header's value."""
    status, headers, _, _ = portal.get(address)
    for line in headers.get_all("Set-Cookie", []):
        pair = line.split(";", 1)[0].strip()
        if pair.startswith(COOKIE + "="):
            return pair
    raise BenchError(f"signing in answers {status} and sets no {COOKIE} cookie")
