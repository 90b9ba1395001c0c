"""An OpenAI-compatible chat server whose replies a test chooses, right and wrong ones."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Reply:
    """The text that the model writes, or the error's text if `status` is not 200."""

    text: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass
class ChatServer:
    """The server's URL, and the requests that it got."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@contextmanager
def chat_server(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """Answers each `POST /v1/chat/completions` with `reply(body)`. Calls may overlap."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.times.append(time.monotonic())
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = reply(body) if self.path == "/v1/chat/completions" else Reply("no such path", 404)
            time.sleep(answer.delay_s)
            message = {"role": "assistant", "content": answer.text}
            document = json.dumps({"choices": [{"index": 0, "message": message}]})
            content = (document if answer.status == 200 else answer.text).encode()
            try:
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(content)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has gone away

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = ChatServer(f"http://127.0.0.1:{listener.server_port}/v1")
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


def shown(body: dict[str, Any]) -> list[np.ndarray]:
    """The images of a request, decoded."""
    parts = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    files = [base64.b64decode(url.partition("data:image/png;base64,")[2]) for url in parts]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def brighter(body: dict[str, Any]) -> Reply:
    """Judges the brighter image to be the better one."""
    first, second = (float(image.mean()) for image in shown(body))
    winner = "tie" if first == second else "A" if first > second else "B"
    return Reply(json.dumps({"winner": winner, "confidence": 0.75, "reason": "brighter"}))
