"""Portreeve in its one-process form, `portreeve up` on loopback; it is signed in through its single-use address."""

import time
from contextlib import nullcontext
from urllib.parse import urlsplit

from .files import Disk
from .places import LOOPBACK, BenchError, find_program
from .report import version
from .targets import LIMITS, START_SECONDS, THREADS, session

KEY = "ticket-key.der"
TLS = """\
[tls]
certificate = "{certificate}"
key = "{key}"
"""


class Up:
    name = "in one process (`portreeve up`), on loopback"
    note = ""
    place = LOOPBACK
    lacks = ()

    def __init__(self, program, patience=START_SECONDS):
        self.program, self.patience = program, patience

    def installed(self):
        """Nothing is to be prepared, and nothing to be put back."""
        return nullcontext()

    def disk(self, shop):
        folder = shop.folder / "files"
        return Disk(folder, folder)

    def version(self):
        return version(self.program)

    def certify(self, shop, certificate, key):
        """Makes a certificate; returns what clients have to trust."""
        shop.run("openssl", [
            find_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate,
            "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
        ], 20)
        return certificate

    def start(self, targets):
        """(its process, the portal with a session)."""
        child, address = self._run(targets, targets.subfolder("portreeve"), "127.0.0.1:0")
        return child, enter(targets, address)

    def another(self, targets, first, number, port):
        """One more that believes the sessions of the first, at the same port of another address of loopback: (its process, that address)."""
        state, address = targets.subfolder(f"portreeve-{number}"), f"127.0.0.{number}"
        targets.shop.write(state / KEY, (first / KEY).read_bytes())
        child, _ = self._run(targets, state, f"{address}:{port}")
        return child, address

    def _run(self, targets, state, listen):
        tls = TLS.format(certificate=targets.certificate, key=targets.key)
        config = targets.shop.write(state / "portreeve.toml", f"{THREADS}{tls}{LIMITS}")
        argv = [self.program, "up", "--listen", listen, "--state", state, "--config", config]
        child = targets.shop.start("portreeve", argv, self.place.proxy)
        return child, urlsplit(self._sign_in_address(child))

    def _sign_in_address(self, child):
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            for line in child.out.read_text().splitlines(keepends=True):
                if line.startswith("sign in: ") and line.endswith("\n"):
                    return line.removeprefix("sign in: ").strip()
            if child.has_ended():
                raise BenchError(f"portreeve ended at once: {child.log_tail()}")
            time.sleep(0.02)
        raise BenchError(f"portreeve printed no `sign in:` line: {child.log_tail()}")


def enter(targets, address):
    """Uses the single-use address once; the portal with the session that it gives."""
    portal = targets.portal(address.port, host=address.hostname)
    cookie = session(portal.get(f"{address.path}?{address.query}"))
    return targets.portal(address.port, host=address.hostname, headers={"Cookie": cookie})
