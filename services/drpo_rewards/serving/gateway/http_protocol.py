"""HTTP connections, with bounds on what a client may send beside bodies.

uvicorn's parser takes a line and headers of any length, and time that grows with the square of it: 100 MB in one header
keep the process busy for minutes. It also waits for the rest of a request as long as the client likes.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from drpo_rewards.api.contract import Problem
from drpo_rewards.serving.gateway.problem_documents import PROBLEM

# Bytes of a request before its body, and of what may stand between the pieces of a body. Others allow 8 to 64 kB.
MAX_HEAD_BYTES = 64_000

# Seconds until the head of a request must be there, from the connection or from the head's first byte.
HEAD_S = 60.0

# Java's client offers HTTP/2 with each request. An offer may be ignored, but the parser takes what follows the head for
# another protocol, and the body would be lost.
UPGRADE = re.compile(rb"^upgrade:", re.IGNORECASE | re.MULTILINE)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A request that is too long or too slow is answered, and ends it."""

    _head_bytes = 0  # since the last complete head, or the last piece of a body
    _head_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _is_over = False  # what else comes is taken and left alone: unread, it would cost the client the answer
    _running: RequestResponseCycle | None = None  # the request that is being answered, or was last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        # uvicorn tells the request that came last, which may wait behind the one that is being answered
        waiting = [cycle for cycle, _ in self.pipeline]
        for cycle in waiting if self._running is None else [self._running, *waiting]:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._head_bytes += len(data)
        if self._in_head:
            head, *rest = data.split(b"\r\n\r\n", 1)
            if UPGRADE.search(head):
                data = b"\r\n\r\n".join([UPGRADE.sub(b"x-upgrade:", head), *rest])
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            detail = f"more than {MAX_HEAD_BYTES} bytes of headers"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail, None if self._in_head else self.cycle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        cycle = self.cycle
        if not cycle.body and not cycle.response_complete:
            # uvicorn would copy the piece into a buffer, and out of it again
            cycle.body, body = body, b""  # type: ignore[assignment]
        elif isinstance(cycle.body, bytes):  # more before it was taken, perhaps a thousand tiny pieces
            cycle.body = bytearray(cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "this is not valid HTTP/1.1", None if self._in_head else self.cycle)

    def _unsupported_upgrade_warning(self) -> None:
        """Refuse what is left of upgrades: an offer cut in two, or behind another request in the same piece."""
        detail = "this service changes no connection to another protocol; omit `Upgrade`"
        self._refuse(HTTPStatus.BAD_REQUEST, detail, self.cycle)

    def _refuse(self, status: HTTPStatus, detail: str, is_of: RequestResponseCycle | None) -> None:
        """Answer with a problem document, and close the connection.

        Args:
            is_of: the request at fault; None: one whose head is not complete. If an earlier one is being answered, the
                connection ends after that, without another answer.
        """
        running = self._running
        if running is not None and running is not is_of and not running.response_complete:
            running.keep_alive = False
            self.pipeline.clear()
            self._is_over = True
            self.flow.resume_reading()
            return
        problem = Problem(title=status.phrase, status=status, detail=detail, code="http")
        body = problem.model_dump_json(exclude_none=True).encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(HEAD_S, self._end_slow_request)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_slow_request(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()  # this is the next request's head; the answer to the one before comes first
        elif self._head_bytes == 0:  # a connection that a browser has opened in advance
            self.transport.close()
        elif not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request's headers did not arrive within {HEAD_S:g} s", None)
