"""A real http server of this process: files at paths, a hub's headers, and the ways in which servers fail."""

import hashlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """A file, or what stands in its place."""

    data: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    dies_after: list[int] = field(default_factory=list)  # bytes of the body, one number an answer that breaks off
    waits_for: threading.Event | None = None  # before the body


class Server:
    """`files` by path; `asked` are the requests so far: (method, path, Range)."""

    def __init__(self):
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.url = ""

    def bodies(self):
        """The requests for a body."""
        return [request for request in self.asked if request[0] == "GET"]

    def add_hub(self, repository, file, data, **more):
        """A file as the hub serves it: its tag is its SHA-256."""
        tag = more.pop("tag", hashlib.sha256(data).hexdigest())
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT} | more.pop("headers", {})
        self.files[f"/{repository}/resolve/main/{file}"] = served = Served(data, headers=headers, **more)
        self.files[f"/{repository}/resolve/{COMMIT}/{file}"] = served
        return served


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Http"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        wanted = self.headers.get("Range")
        self.server.book.asked.append((self.command, self.path, wanted))
        served = self.server.book.files.get(self.path, Served(status=404, headers={"X-Error-Code": "RepoNotFound"}))
        data, status, extra = served.data, served.status, {}
        if wanted and served.ranges and status == 200:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            status = 206 if start < len(data) else 416
            extra = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            data = data[start:] if status == 206 else b""
        self.send_response(status)
        for name, value in {**served.headers, **extra, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if served.waits_for:
            served.waits_for.wait(30)
        if served.dies_after:
            data = data[: served.dies_after.pop(0)]
            self.close_connection = True
        self.wfile.write(data)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    book: Server


@contextmanager
def serving():
    """A server on a free port of 127.0.0.1 for the block."""
    http = _Http(("127.0.0.1", 0), _Handler)
    http.book = book = Server()
    book.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield book
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
