"""The proxies that Portreeve is measured beside: how each is started, and why it is set up so.

Invariant: all get the same key and certificate, one worker or thread, a keep-alive connection pool towards the backend, no limit
on bodies, and no access log.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .places import find_program
from .process import DESCRIPTORS, TUNNELS

# nginx closes connections that have asked nothing yet once fewer than a sixteenth of these are free.
SLOTS = DESCRIPTORS + DESCRIPTORS // 8

NGINX = """\
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr warn;
events {{ worker_connections SLOTS; }}
http {{
  access_log off; types {{ }} default_type application/octet-stream; client_max_body_size 0;
  keepalive_requests 1000000000; keepalive_timeout 3600s;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
{servers}
}}
""".replace("SLOTS", str(SLOTS))
NGINX_PROXY = """\
  upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000000; }}
  map $http_upgrade $asked {{ default upgrade; '' ''; }}
  server {{
    listen {listen} ssl{h2}; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_session_cache off; ssl_session_tickets {tickets};
    proxy_http_version 1.1; proxy_read_timeout 3600s; proxy_request_buffering off; proxy_max_temp_file_size 0;
    {location}
  }}
"""
NGINX_PLAIN = 'location / { proxy_pass http://backend; proxy_set_header Connection ""; }'
NGINX_UPGRADE = """\
location / {
      proxy_pass http://backend; proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $asked;
    }"""
NGINX_LINKS = """\
location {prefix}/ {{
      proxy_pass http://backend/; proxy_set_header Connection ""; sub_filter_once off;
      sub_filter 'href="/' 'href="{prefix}/'; sub_filter 'src="/' 'src="{prefix}/';
    }}"""
# Beside what is loaded and proxied: how Debian sets up the modules, as far as links go.
APACHE = """\
ServerRoot {dir}
PidFile {dir}/apache.pid
ErrorLog {dir}/error.log
LogLevel error
ServerName localhost
Listen {listen}
{modules}
StartServers 1
ServerLimit 1
ThreadsPerChild 512
ThreadLimit 512
MaxRequestWorkers 512
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 3600
Protocols {protocols}
SSLEngine On
SSLProtocol TLSv1.2 TLSv1.3
SSLCertificateFile {certificate}
SSLCertificateKeyFile {key}
SSLSessionCache none
SSLSessionTickets {tickets}
{proxied}
"""
APACHE_PLAIN = "ProxyTimeout 3600\nProxyPreserveHost On\nProxyPass / http://{backend}/ keepalive=On{upgrade}"
APACHE_LINKS = """\
ProxyTimeout 3600
ProxyPass {prefix}/ http://{backend}/ keepalive=On
ProxyHTMLEnable On
ProxyHTMLLinks a href
ProxyHTMLLinks area href
ProxyHTMLLinks link href
ProxyHTMLLinks img src longdesc usemap
ProxyHTMLLinks form action
ProxyHTMLLinks input src usemap
ProxyHTMLLinks script src for
ProxyHTMLURLMap / {prefix}/"""
APACHE_MODULES = Path("/usr/lib/apache2/modules")
APACHE_LOADED = "mpm_event authz_core ssl http2 proxy proxy_http xml2enc proxy_html".split()
HAPROXY = """\
global
  nbthread 1
  maxconn {tunnels}
  tune.ssl.cachesize 0
  ssl-default-bind-options prefer-client-ciphers ssl-min-ver TLSv1.2{tickets}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
frontend front
  bind {listen} ssl crt {combined} alpn {alpn}
  default_backend back
backend back
  http-reuse always
  server one {backend}
"""
CADDY = """\
{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
  servers {{
    protocols {protocols}
  }}
}}
https://:{port} {{
  bind {address}
  tls {certificate} {key}
  reverse_proxy {backend}
}}
"""


@dataclass(frozen=True)
class Setup:
    """What a proxy is told. `name`: its own; `backend`: IP:PORT; `links`: the prefix below which links are rewritten."""

    folder: Path
    name: str
    address: str
    port: int
    backend: str
    certificate: Path
    key: Path
    combined: Path
    http2: bool
    resumes: bool
    upgrades: bool
    links: str = None

    @property
    def listen(self):
        return f"{self.address}:{self.port}"


def nginx(shop, setup):
    location = NGINX_LINKS.format(prefix=setup.links) if setup.links else NGINX_UPGRADE if setup.upgrades else NGINX_PLAIN
    server = NGINX_PROXY.format(
        backend=setup.backend, listen=setup.listen, h2=" http2" if setup.http2 else "", certificate=setup.certificate,
        key=setup.key, tickets="on" if setup.resumes else "off", location=location)
    config = shop.write(setup.folder / "nginx.conf", NGINX.format(dir=setup.folder, servers=server))
    return [find_program("nginx"), "-c", config], {}


def haproxy(shop, setup):
    config = shop.write(setup.folder / "haproxy.cfg", HAPROXY.format(
        listen=setup.listen, combined=setup.combined, alpn="h2,http/1.1" if setup.http2 else "http/1.1",
        tickets="" if setup.resumes else " no-tls-tickets", backend=setup.backend,
        tunnels=TUNNELS))
    return [find_program("haproxy"), "-db", "-f", config], {}


def apache(shop, setup):
    loaded = "\n".join(f"LoadModule {m}_module {APACHE_MODULES}/mod_{m}.so" for m in APACHE_LOADED)
    proxied = APACHE_LINKS if setup.links else APACHE_PLAIN
    config = shop.write(setup.folder / "apache.conf", APACHE.format(
        dir=setup.folder, listen=setup.listen, modules=loaded, certificate=setup.certificate, key=setup.key,
        protocols="h2 http/1.1" if setup.http2 else "http/1.1", tickets="On" if setup.resumes else "Off",
        proxied=proxied.format(prefix=setup.links, backend=setup.backend, upgrade=" upgrade=websocket" if setup.upgrades else "")))
    return [find_program("apache2"), "-DFOREGROUND", "-f", config], {}


def caddy(shop, setup):
    # It knows no way to keep sessions from being resumed, nor to use one thread but this.
    config = shop.write(setup.folder / "Caddyfile", CADDY.format(
        name=setup.name, address=setup.address, port=setup.port, certificate=setup.certificate, key=setup.key, backend=setup.backend,
        protocols="h1 h2" if setup.http2 else "h1"))
    return [find_program("caddy"), "run", "--adapter", "caddyfile", "--config", config], {"GOMAXPROCS": "1"}


def chp(shop, setup):
    argv = [find_program("node"), chp_program(), "--ip", setup.address, "--port", str(setup.port),
            "--api-port", "0", "--default-target", f"http://{setup.backend}", "--ssl-key", setup.key,
            "--ssl-cert", setup.certificate, "--log-level", "error", "--no-include-prefix"]
    return argv, {"CONFIGPROXY_AUTH_TOKEN": "of-no-worth"}


def chp_program():
    """Of npm: where `benches/run --fetch` puts it, or wherever it is installed."""
    own = Path(__file__).resolve().parents[2] / "target/benches/node_modules/.bin/configurable-http-proxy"
    return str(own) if own.exists() else find_program("configurable-http-proxy")


PEERS = {"nginx": nginx, "haproxy": haproxy, "apache": apache, "caddy": caddy, "chp": chp}
# What tells each one's version; and how to get it.
PROGRAMS = {
    "nginx": ("nginx", ["-v"], "apt install nginx"), "haproxy": ("haproxy", ["-v"], "apt install haproxy"),
    "apache": ("apache2", ["-v"], "apt install apache2"), "caddy": ("caddy", ["version"], "apt install caddy"),
    "rclone": ("rclone", ["version"], "apt install rclone"),
    "chp": (None, ["--version"], "benches/run --fetch (npm)"),
}


def program_of(peer):
    return chp_program() if peer == "chp" else find_program(PROGRAMS[peer][0])


def version_of(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    number = re.search(r"\d+\.\d[\w.+~-]*", done.stdout + done.stderr)
    return number[0] if number else "unknown"
