#!/usr/bin/env python3
"""The application behind the referees: HTTP/1.1 with keep-alive, any method, bodies of both framings read to their
end. It notes what it was asked, one line a request, on standard error; prints its port.

/large answers with 1 MiB, anything else with a line."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(size + 2)
            while self.rfile.readline().strip():
                pass
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self):
        try:
            self.body()
        except ValueError:
            self.close_connection = True
            return self.send_error(400)
        content = b"x" * (1 << 20) if self.path == "/large" else b"a line\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, format, *arguments):
        sys.stderr.write(f"{self.requestline!r}\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Application)
print(server.server_port, flush=True)
server.serve_forever()
