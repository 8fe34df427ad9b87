"""An HTTP server on 127.0.0.1 whose answers follow a script, and a record of what it was asked."""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Loopback:
    """Serves `scripts[path]`: the n-th request for a path gets its n-th answer, later ones its last."""

    base: str
    contents: dict[str, bytes] = field(default_factory=dict)
    scripts: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range header)
    heads: list[str] = field(default_factory=list)  # paths of HEAD requests
    gate: threading.Event = field(default_factory=threading.Event)  # `waiting` answers go on once set

    def serve(self, path: str, content: bytes, *answers: Answer) -> str:
        """Put `content` at `path` and return its URL."""
        self.contents[path] = content
        self.scripts[path] = list(answers) or [ok]
        return self.base + path

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request for `path`, in order."""
        return [asked for found, asked in self.requests if found == path]

    def waiting(self, num_bytes: int) -> Answer:
        """Sends `num_bytes`, then the rest once the gate is open."""

        def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
            _head(handler, 200, {"Content-Length": str(len(content))})
            handler.wfile.write(content[:num_bytes])
            self.gate.wait(30)
            handler.wfile.write(content[num_bytes:])

        return answer


@contextmanager
def serving() -> Iterator[Loopback]:
    """A running Loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            loopback.requests.append((self.path, self.headers["Range"]))
            script = loopback.scripts.get(self.path, [status(404)])
            answer = script.pop(0) if len(script) > 1 else script[0]
            with suppress(OSError):  # the client may leave at any time
                answer(self, loopback.contents.get(self.path, b""))

        def do_HEAD(self) -> None:
            """As GET; the client ignores the body."""
            loopback.heads.append(self.path)
            script = loopback.scripts.get(self.path, [status(404)])
            with suppress(OSError):
                script[0](self, loopback.contents.get(self.path, b""))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    loopback = Loopback(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield loopback
    finally:
        loopback.gate.set()
        server.shutdown()
        server.server_close()


def _head(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str]) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def ok(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """All that was asked, as a good server does: 200, 206 or 416."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
    first = int(asked[1]) if asked else 0
    if asked and first >= len(content):
        _head(handler, 416, {"Content-Range": f"bytes */{len(content)}"})
        return
    headers = {"Content-Length": str(len(content) - first)}
    if asked:
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
    _head(handler, 206 if asked else 200, headers)
    handler.wfile.write(content[first:])


def ignores_range(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    _head(handler, 200, {"Content-Length": str(len(content))})
    handler.wfile.write(content)


def another_range(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """206 that begins at byte 1, whatever was asked."""
    _head(handler, 206, {"Content-Range": f"bytes 1-{len(content) - 1}/{len(content)}"})
    handler.wfile.write(content[1:])


def corrupt(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """The right length, one byte wrong in the middle."""
    middle = len(content) // 2
    ok(handler, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def dies_after(num_bytes: int) -> Answer:
    """Promises all that was asked, sends `num_bytes` of it, and resets the connection."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        first = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        headers = {"Content-Length": str(len(content) - first)}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        _head(handler, 206 if first else 200, headers)
        handler.wfile.write(content[first : first + num_bytes])
        handler.wfile.flush()

    return answer


def resets(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Closes with RST before any answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def truncates(num_bytes: int) -> Answer:
    """Sends the first `num_bytes` with no word about the length, and ends in order."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        _head(handler, 200, {})
        handler.wfile.write(content[:num_bytes])

    return answer


def sends_too_much(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """The content, then more and more, with no word about the length."""
    _head(handler, 200, {})
    handler.wfile.write(content)
    while True:
        handler.wfile.write(bytes(65536))


def web_page(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """A log-in page in place of the file, as some networks send."""
    _head(handler, 200, {"Content-Type": "text/html; charset=utf-8"})
    handler.wfile.write(b"<html>please log in</html>")


def status(code: int, **headers: str) -> Answer:
    """An answer without a body."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        _head(handler, code, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def redirect(location: str) -> Answer:
    return status(302, Location=location, Content_Length="0")
