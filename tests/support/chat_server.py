"""An OpenAI-compatible chat server that answers as it is told: what a judge's endpoint may do, good and bad."""

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
    """Words of the model, or where `status` is another one the text of the error."""

    words: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass
class ChatServer:
    """Where it is, and what it was asked."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@contextmanager
def chat_server(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """Answers `POST /v1/chat/completions` with what `reply` makes of the body; calls may come at the same time."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.times.append(time.monotonic())
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = reply(body) if self.path == "/v1/chat/completions" else Reply("no such path", 404)
            time.sleep(answer.delay_s)
            message = {"role": "assistant", "content": answer.words}
            document = json.dumps({"choices": [{"index": 0, "message": message}]})
            content = (document if answer.status == 200 else answer.words).encode()
            try:
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(content)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # who asked has gone

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
    """The pictures of a request, decoded."""
    parts = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    files = [base64.b64decode(url.partition("data:image/png;base64,")[2]) for url in parts]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def brighter(body: dict[str, Any]) -> Reply:
    """A judge that says which picture is brighter."""
    first, second = (float(image.mean()) for image in shown(body))
    winner = "tie" if first == second else "A" if first > second else "B"
    return Reply(json.dumps({"winner": winner, "confidence": 0.75, "reason": "brighter"}))
