"""What is measured: the backend that answers, and each proxy that can stand in front of it.

Invariant: every proxy gets the same key and certificate, one worker or thread, a keep-alive
connection pool towards the backend, and no access log.
"""

import http.client
import random
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from . import page
from .process import LOAD_CORE, PROXY_CORE, BenchError, find_program

BODY = bytes(range(256)) * 4  # 1 KiB, and nothing that a proxy would want to rewrite
PATH, PAGE, TEXT = "/1k.bin", "/page.html", "/page.txt"
COOKIE = "__Host-portreeve"
START_SECONDS = 10.0
PROBE_SECONDS = 5.0

NGINX_COMMON = """\
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; types {{ }} default_type application/octet-stream;
  keepalive_requests 1000000000; keepalive_timeout 3600s;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
"""
BACKEND = NGINX_COMMON + """\
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
}}
"""
NGINX = NGINX_COMMON + """\
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} ssl{h2}; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_session_cache off; ssl_session_tickets off;
    proxy_http_version 1.1; proxy_set_header Connection "";
    {location}
  }}
}}
"""
NGINX_PLAIN = "location / { proxy_pass http://backend; }"
NGINX_LINKS = """\
location {prefix}/ {{
      proxy_pass http://backend/; sub_filter_once off;
      sub_filter 'href="/' 'href="{prefix}/'; sub_filter 'src="/' 'src="{prefix}/';
    }}"""
# Beside what is loaded and proxied: how Debian sets up the modules, as far as links go.
APACHE = """\
ServerRoot {dir}
PidFile {dir}/apache.pid
ErrorLog {dir}/error.log
LogLevel error
ServerName localhost
Listen 127.0.0.1:{port}
{modules}
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 3600
SSLEngine On
SSLProtocol TLSv1.2 TLSv1.3
SSLCertificateFile {certificate}
SSLCertificateKeyFile {key}
SSLSessionCache none
SSLSessionTickets Off
ProxyPass {prefix}/ http://127.0.0.1:{backend}/ keepalive=On
ProxyHTMLEnable On
ProxyHTMLLinks a href
ProxyHTMLLinks area href
ProxyHTMLLinks link href
ProxyHTMLLinks img src longdesc usemap
ProxyHTMLLinks form action
ProxyHTMLLinks input src usemap
ProxyHTMLLinks script src for
ProxyHTMLURLMap / {prefix}/
"""
APACHE_MODULES = Path("/usr/lib/apache2/modules")
APACHE_LOADED = "mpm_event authz_core ssl proxy proxy_http xml2enc proxy_html".split()
HAPROXY = """\
global
  nbthread 1
  maxconn 4096
  tune.ssl.cachesize 0
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend front
  bind 127.0.0.1:{port} ssl crt {combined} alpn {alpn}
  default_backend back
backend back
  http-reuse always
  server one 127.0.0.1:{backend}
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
    path: str = PATH
    host: str = "localhost"
    headers: dict = field(default_factory=dict)
    http1_port: int = None  # for single looks, where `port` speaks nothing but HTTP/2
    is_right: callable = BODY.__eq__  # asked about a body

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
        if not self.is_right(body):
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


def wait_listening(child, port):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if child.process.poll() is not None:
            raise BenchError(f"{child.name} ended at once: {child.log_tail()}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise BenchError(f"{child.name} did not listen within {START_SECONDS:.0f} s: {child.log_tail()}")


class Backend:
    """The static nginx behind every target; it also counts what really reached it."""

    def __init__(self, shop):
        # `below` answers below the path that Portreeve gives it, as an application does that knows its prefix.
        self.port, self.h2c, self.below, self._status = (free_port() for _ in range(4))
        root = shop.subfolder("root")
        for path, body in ((PATH, BODY), (PAGE, page.PAGE), (TEXT, page.PAGE)):
            shop.write(f"root{path}", body)
        config = shop.write("backend.conf", BACKEND.format(
            dir=shop.subfolder("backend"), root=root, h1=self.port, h2c=self.h2c, below=self.below,
            status=self._status))
        self.child = shop.start("backend", [find_program("nginx"), "-c", config], LOAD_CORE)
        for port in (self.port, self.h2c, self.below, self._status):
            wait_listening(self.child, port)

    def counts(self):
        """(connections accepted, requests begun) so far, this question included."""
        _, _, body, _ = Endpoint(self._status, tls=False).get("/status")
        accepted, _handled, requests = map(int, body.decode().splitlines()[2].split())
        return accepted, requests


class Targets:
    """Starts one target at a time, afresh, so that none is measured while another one stirs."""

    def __init__(self, shop, backend, protocol, portreeve, workload="file"):
        self.shop, self.backend, self.h2, self.portreeve = shop, backend, protocol == "h2", portreeve
        self.links = workload == "links"
        self.prefix = f"/fw2/localhost:{backend.port}"
        self.certificate, self.key = shop.folder / "cert.pem", shop.folder / "key.pem"
        shop.run("openssl", [
            find_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", self.key, "-out", self.certificate,
            "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1",
        ], 20)
        self.combined = shop.write("both.pem", self.certificate.read_bytes() + self.key.read_bytes())
        self._turn = 0

    def start(self, name):
        """(the process tree, None for `direct`; where to send the load)."""
        self._turn += 1
        return {
            "direct": self._direct, "nginx": self._nginx, "haproxy": self._haproxy, "apache": self._apache,
            "portreeve": self._portreeve, "portreeve-keep": self._keep, "portreeve-text": self._text,
        }[name]()

    def _direct(self):
        port = self.backend.h2c if self.h2 else self.backend.port
        about = {"path": PAGE, "is_right": page.as_it_is} if self.links else {}
        return None, Endpoint(port, tls=False, http1_port=self.backend.port, **about)

    def _nginx(self):
        port = free_port()
        location = NGINX_LINKS.format(prefix=self.prefix) if self.links else NGINX_PLAIN
        config = self.shop.write(f"nginx-{self._turn}.conf", NGINX.format(
            dir=self.shop.subfolder(f"nginx-{self._turn}"), port=port, h2=" http2" if self.h2 else "",
            backend=self.backend.port, certificate=self.certificate, key=self.key, location=location))
        about = {"path": self.prefix + PAGE, "is_right": page.literally(self.prefix)} if self.links else {}
        return self._listening("nginx", [find_program("nginx"), "-c", config], port, about)

    def _apache(self):
        port = free_port()
        folder = self.shop.subfolder(f"apache-{self._turn}")
        loaded = "\n".join(f"LoadModule {m}_module {APACHE_MODULES}/mod_{m}.so" for m in APACHE_LOADED)
        config = self.shop.write(f"apache-{self._turn}/apache.conf", APACHE.format(
            dir=folder, port=port, prefix=self.prefix, modules=loaded, backend=self.backend.port,
            certificate=self.certificate, key=self.key))
        argv = [find_program("apache2"), "-DFOREGROUND", "-f", config]
        about = {"path": self.prefix + PAGE, "is_right": page.written_anew(self.prefix)}
        return self._listening("apache", argv, port, about)

    def _haproxy(self):
        port = free_port()
        config = self.shop.write(f"haproxy-{self._turn}.cfg", HAPROXY.format(
            port=port, combined=self.combined, alpn="h2,http/1.1" if self.h2 else "http/1.1",
            backend=self.backend.port))
        return self._listening("haproxy", [find_program("haproxy"), "-db", "-f", config], port)

    def _listening(self, name, argv, port, about={}):
        child = self.shop.start(name, argv, PROXY_CORE)
        wait_listening(child, port)
        return child, Endpoint(port, tls=True, **about)

    def _portreeve(self):
        if self.links:
            return self._entered(self.prefix + PAGE, page.with_ours(self.prefix))
        return self._entered(self.prefix + PATH)

    def _keep(self):
        """The same page from an application that knows its prefix: nothing is to be rewritten."""
        return self._entered(f"/fw2/localhost:{self.backend.below}{PAGE}", page.as_it_is)

    def _text(self):
        """The same bytes as text, in which nothing is rewritten."""
        return self._entered(self.prefix + TEXT, page.as_it_is)

    def _entered(self, path, is_right=BODY.__eq__):
        state = self.shop.subfolder(f"state-{self._turn}")
        config = self.shop.write(f"state-{self._turn}/portreeve.toml", PORTREEVE.format(
            certificate=self.certificate, key=self.key))
        argv = [self.portreeve, "up", "--listen", "127.0.0.1:0", "--state", state, "--config", config]
        child = self.shop.start("portreeve", argv, PROXY_CORE)
        address = urlsplit(self._sign_in_address(child))
        cookie = enter(Endpoint(address.port, tls=True, host=address.hostname), f"{address.path}?{address.query}")
        return child, Endpoint(address.port, True, path, address.hostname, {"Cookie": cookie}, is_right=is_right)

    @staticmethod
    def _sign_in_address(child):
        end = time.monotonic() + START_SECONDS
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
