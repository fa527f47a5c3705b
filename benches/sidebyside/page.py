"""The page of the workload `links`, and what each target must have made of it.

Invariant: what is called right differs from the page in what the target was asked to change, and in nothing else.
"""

import re
from html.parser import HTMLParser

LINKS = 2400
PAGE = (
    "<!doctype html><html><head><title>x</title></head><body><ul>"
    + "".join(f'<li><a href="/item/{n:05}/">Item {n:05} a</a></li>\n' for n in range(LINKS))
    + "</ul></body></html>"
).encode()
# What Portreeve adds: its script after `<head>`, and an import map before `</head>`.
OURS = (
    (re.compile(rb'(?<=<head>)<script src="/-/rewrite\.js\?[^<>]*></script>'), b""),
    (re.compile(rb'<script type="importmap" nonce="[^<>"]*">[^<>]*</script>(?=</head>)'), b""),
)


def mapped(prefix):
    return PAGE.replace(b'href="/', b'href="%b/' % prefix.encode())


def as_it_is(body):
    return body == PAGE


def literally(prefix):
    """Every link, and not a byte more."""
    return lambda body: body == mapped(prefix)


def with_ours(prefix):
    """Every link, and Portreeve's two elements."""

    def is_right(body):
        for pattern, nothing in OURS:
            body, count = pattern.subn(nothing, body)
            if count != 1:
                return False
        return body == mapped(prefix)

    return is_right


def written_anew(prefix):
    """The same elements, attributes and text: Apache writes a page anew from what it read."""
    return lambda body: seen(body) == seen(mapped(prefix))


class _Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, attrs))

    def handle_endtag(self, tag):
        self.found.append(tag)

    def handle_data(self, data):
        if data.strip():
            self.found.append(data.strip())


def seen(body):
    parser = _Seen()
    parser.feed(body.decode())
    parser.close()
    return parser.found
