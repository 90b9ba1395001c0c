"""An HTTP server whose answers a test chooses: scorers of other projects, and servers that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server sends. With `piece_delay_s` it sends byte by byte, and waits after each."""

    content: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    piece_delay_s: float = 0.0


@dataclass(frozen=True)
class Request:
    """What the server got, and when, by the monotonic clock."""

    path: str
    headers: dict[str, str]
    content: bytes
    time_s: float


@dataclass
class ScoreServer:
    """The server's address, and the requests that it got."""

    url: str
    requests: list[Request] = field(default_factory=list)


class Listener(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait to be accepted; with the usual 5, some are reset on a busy machine


@contextmanager
def score_server(answer: Callable[[Request], Answer]) -> Iterator[ScoreServer]:
    """Answers each POST with `answer(request)`. Calls may overlap."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came = time.monotonic()
            content = self.rfile.read(int(self.headers["content-length"]))
            request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, content, came)
            server.requests.append(request)
            sent = answer(request)
            time.sleep(sent.delay_s)
            try:
                self.send_response(sent.status)
                for name, value in {"content-length": str(len(sent.content)), **sent.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                size = 1 if sent.piece_delay_s else len(sent.content) or 1
                for start in range(0, len(sent.content), size):
                    self.wfile.write(sent.content[start : start + size])
                    time.sleep(sent.piece_delay_s)
            except OSError:
                pass  # the client has gone away

        def log_message(self, *_: Any) -> None:
            pass

    listener = Listener(("127.0.0.1", 0), Handler)
    server = ScoreServer(f"http://127.0.0.1:{listener.server_port}")
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
