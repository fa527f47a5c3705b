"""Files: one directory, which Portreeve shows by WebDAV and the peers serve, and how each of them is set up.

Invariant: all serve the same directory of the same file system, over TLS with the same certificate, one worker or thread each.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from .peers import APACHE, APACHE_MODULES, NGINX
from .places import find_program

LARGE = 1 << 30
ENTRIES = 10_000
SMALL = 1024
# What is asked for, by the name that a workload has for it.
PATHS = {"files-large": "large.bin", "files-put": "put.bin", "files-new": "new/", "files-many": "many/"}

NGINX_FILES = """\
  server {{
    listen {listen} ssl; ssl_protocols TLSv1.2 TLSv1.3; root {root};
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_cache off; ssl_session_tickets off;
  }}
"""
APACHE_LOADED = "mpm_event authz_core ssl dav dav_fs".split()
APACHE_FILES = """\
DocumentRoot {root}
DavLockDB {dir}/locks
<Directory {root}>
  Dav On
  Require all granted
</Directory>"""


@dataclass(frozen=True)
class Disk:
    """A directory, as programs at their seats see it and as this process does; `mounts`: the mount namespace that they see it in."""

    inside: Path
    here: Path
    mounts: Path = None

    def fill(self, shop):
        shop.subfolder(self.here)
        shop.write(self.here / "large.bin", b"")
        with open(self.here / "large.bin", "wb") as large:
            for _ in range(LARGE >> 20):
                large.write(bytes(1 << 20))
        shop.subfolder(self.here / "many")
        for number in range(ENTRIES):
            shop.write(self.here / f"many/entry-{number:05}.txt", b"x")

    def empty(self, shop):
        """Nothing is left of what an earlier turn wrote."""
        shutil.rmtree(self.here / "new", ignore_errors=True)
        (self.here / "put.bin").unlink(missing_ok=True)
        shop.subfolder(self.here / "new")

    def written(self):
        """How many new files there are, each as long as it must be."""
        return sum(1 for file in (self.here / "new").iterdir() if file.stat().st_size == SMALL)

    def remove(self):
        shutil.rmtree(self.here, ignore_errors=True)


def server(shop, disk, name, port, address, certificate, key):
    """(argv, environment) of a peer. What it is told lies beside what it serves, where it sees it."""
    folder = f"setup-{name}-{port}"
    shop.subfolder(disk.here / folder)
    inside = disk.inside / folder
    for file in (certificate, key):
        shop.write(disk.here / folder / file.name, file.read_bytes())
    setup = {"listen": f"{address}:{port}", "root": disk.inside, "certificate": inside / certificate.name, "key": inside / key.name,
             "dir": inside}
    if name == "rclone":
        return [find_program("rclone"), "serve", "webdav", disk.inside, "--addr", setup["listen"], "--cert", setup["certificate"],
                "--key", setup["key"], "--log-level", "ERROR", "--config", inside / "rclone.conf"], {"GOMAXPROCS": "1"}
    if name == "nginx":
        text = NGINX.format(dir=inside, servers=NGINX_FILES.format(**setup))
        shop.write(disk.here / folder / "nginx.conf", text)
        return [find_program("nginx"), "-c", inside / "nginx.conf"], {}
    loaded = "\n".join(f"LoadModule {m}_module {APACHE_MODULES}/mod_{m}.so" for m in APACHE_LOADED)
    text = APACHE.format(**setup, modules=loaded, protocols="http/1.1", tickets="Off", proxied=APACHE_FILES.format(**setup))
    shop.write(disk.here / folder / "apache.conf", text)
    return [find_program("apache2"), "-DFOREGROUND", "-f", inside / "apache.conf"], {}
