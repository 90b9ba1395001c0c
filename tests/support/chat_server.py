"""An OpenAI-compatible chat server whose replies a test chooses, right and wrong ones."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from support.score_server import Answer, Request, ScoreServer, score_server


@dataclass(frozen=True)
class Reply:
    """The text that the model writes, or the error's text if `status` is not 200, and its choice's `logprobs`."""

    text: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    logprobs: Any = None


class ChatServer:
    """The server's URL, and the requests that it got."""

    def __init__(self, server: ScoreServer) -> None:
        self.url = f"{server.url}/v1"
        self._requests = server.requests

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The chats that were sent."""
        return [json.loads(request.content) for request in self._requests]

    @property
    def headers(self) -> list[dict[str, str]]:
        """The headers of each request."""
        return [request.headers for request in self._requests]

    @property
    def times(self) -> list[float]:
        """When each request came, by the monotonic clock."""
        return [request.time_s for request in self._requests]


@contextmanager
def chat_server(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """Answers each `POST /v1/chat/completions` with `reply(body)`. Calls may overlap."""

    def answer(request: Request) -> Answer:
        said = Reply("no such path", 404)
        if request.path == "/v1/chat/completions":
            said = reply(json.loads(request.content))
        message = {"role": "assistant", "content": said.text}
        document = json.dumps({"choices": [{"index": 0, "message": message, "logprobs": said.logprobs}]})
        content = document if said.status == 200 else said.text
        return Answer(content.encode(), said.status, said.headers, said.delay_s)

    with score_server(answer) as server:
        yield ChatServer(server)


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


def prefer_bright(body: dict[str, Any]) -> Reply:
    """A judge's answer: the brighter picture wins, and equally bright ones tie."""
    first, second = (float(picture.mean()) for picture in shown(body))
    winner = "tie" if first == second else "A" if first > second else "B"
    return Reply(json.dumps({"winner": winner, "confidence": 0.9, "reason": "brighter"}))
