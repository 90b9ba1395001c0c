"""A server without any of this project's serving: one thread for each connection, one request scored after another.

Launch: python tests/bench/threaded_server.py PORT FOLDER (bench_way.py starts it)

It takes the bytes that the project's client sends over HTTP, scores them with the same reward class, and answers with
what the client reads. It checks nothing, limits nothing, and knows one reward.
"""

from __future__ import annotations

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from drpo_rewards import rewards
from drpo_rewards.operations.rank import RankResponse
from drpo_rewards.rewards.base import ScoreItem

RGB8 = re.compile(rb"x-rgb8; width=(\d+); height=(\d+)")
HEAD_END = b"\r\n\r\n"

reward = rewards.create("pickscore", {"model": sys.argv[2]})
one_at_a_time = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers `POST /v1/rank` with multipart bodies whose images are plain pixels."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        boundary = self.headers["content-type"].partition("boundary=")[2].encode()
        items = []
        for part in body.split(b"--" + boundary):
            head, _, data = part.partition(HEAD_END)
            if found := RGB8.search(head):
                width, height = map(int, found.groups())
                image = np.frombuffer(data, np.uint8, 3 * width * height).reshape(height, width, 3)
                items.append(ScoreItem(image, "p"))
        with one_at_a_time:
            scores = [score.value for score in reward.score(items)]
        ranks = list(range(len(scores)))
        answer = RankResponse(request_id="", combined=scores, order=ranks, ranks=ranks, all_tied=False, rewards={})
        content = answer.model_dump_json().encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Write no log."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
