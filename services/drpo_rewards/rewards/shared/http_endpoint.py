"""Calls of another HTTP service: several at a time, each within a deadline, repeated where that may help."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_before_delay

from drpo_rewards.client.background import BackgroundLoop
from drpo_rewards.client.proxies import environment_is_read
from drpo_rewards.client.retries import may_retry, parse_retry_after, wait
from drpo_rewards.errors import (
    LOGS,
    ConfigError,
    OverloadedError,
    RewardError,
    RewardTimeoutError,
    RewardUnavailableError,
)

MAX_ANSWER_BYTES = 16_000_000  # of one call

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


class HttpEndpoint:
    """Another service, which a reward asks.

    Args:
        name: what it is, for messages, e.g. "the judge's endpoint".
        url: its address.
        path: appended to the address; all calls go there.
        api_key: sent as a bearer token, if there is one.
        timeout_s: seconds for one answer, with all attempts.
        concurrency: how many answers are requested at the same time.
        retries: how often a call that failed for a temporary reason is repeated.
        hints: by HTTP status, what to look at if it answers that.

    Raises:
        ConfigError: `url` is not an http address, one of the numbers cannot be used, or the environment names a proxy
            that cannot.
    """

    def __init__(
        self,
        name: str,
        url: str,
        path: str = "",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        concurrency: int = 16,
        retries: int = 3,
        hints: dict[int, str] | None = None,
    ) -> None:
        check_address(f"the address of {name}", url, path, "http://HOST:PORT/...")
        whole = isinstance(concurrency, int) and isinstance(retries, int) and isinstance(timeout_s, int | float)
        if not whole or timeout_s <= 0 or concurrency < 1 or retries < 0:
            raise ConfigError(
                f"{name}: timeout_s must be a number over 0, concurrency a whole number of at least 1, and retries one "
                f"of at least 0, not {timeout_s!r}, {concurrency!r} and {retries!r}"
            )
        self.name, self.url = name, url.rstrip("/") + path
        self.timeout_s, self.retries, self.hints = timeout_s, retries, hints or {}
        # Only asyncio bounds a whole call: sockets bound the wait for each piece of an answer, or of its headers.
        self._loop = BackgroundLoop("endpoint's calls")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        with environment_is_read():
            self._client = httpx.AsyncClient(headers=headers, timeout=None)
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="endpoint")

    def map(self, ask: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """Return `ask(item)` of each item, in order. Raises the error of the first one that failed."""
        answers = [self._threads.submit(ask, item) for item in items]
        try:
            return [answer.result() for answer in answers]
        finally:
            for answer in answers:  # after a failure, drop the calls that have not started
                answer.cancel()

    def deadline(self) -> float:
        """Return the time, of time.monotonic, by which an answer that is asked for now must be there."""
        return time.monotonic() + self.timeout_s

    def repeat(self, call: Callable[[], ResultT], deadline: float) -> ResultT:
        """Return what `call` returns. If it fails, repeat it if that may help and fits the deadline."""
        attempts = Retrying(
            retry=retry_if_exception(may_retry),
            stop=stop_after_attempt(1 + self.retries) | stop_before_delay(deadline - time.monotonic()),
            wait=wait,
            reraise=True,
        )
        return attempts(call)

    def post(self, deadline: float, **content: Any) -> httpx.Response:
        """Send one POST, and return the answer, whatever its status is. A redirect is not followed.

        Args:
            deadline: when to give up, of time.monotonic.
            content: `json`, `content`, `files` or `headers`, as httpx takes them.

        Raises:
            RewardTimeoutError, RewardUnavailableError, RewardError: no answer came in time, none came at all, or it was
                too large.
        """
        try:
            return self._loop.run(asyncio.wait_for(self._post(content), deadline - time.monotonic()))
        except TimeoutError:
            raise RewardTimeoutError(f"{self.name} gave no answer within {self.timeout_s:g} s") from None
        except httpx.HTTPError as error:
            logger.warning("%s at %s cannot be reached: %s", self.name, self.url, error)
            raise RewardUnavailableError(f"{self.name} cannot be reached ({type(error).__name__})") from None

    async def _post(self, content: dict[str, Any]) -> httpx.Response:
        async with self._client.stream("POST", self.url, **content) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise RewardError(f"{self.name} answered with over {MAX_ANSWER_BYTES // 10**6} MB")
            headers = {"content-type": response.headers.get("content-type", "")}
            if "retry-after" in response.headers:
                headers["retry-after"] = response.headers["retry-after"]
            return httpx.Response(response.status_code, headers=headers, content=bytes(body))

    def check(self, response: httpx.Response) -> httpx.Response:
        """Return an answer if its status says that it is one.

        A server's error text goes to the log only, because it may name hosts and keys.

        Raises:
            OverloadedError, RewardUnavailableError, RewardError: for 429, for 5xx, and for any other status but 2xx.
        """
        status = response.status_code
        if response.is_success:
            return response
        logger.warning("%s at %s answered %d: %.500s", self.name, self.url, status, response.text)
        hint = self.hints.get(status, " (it redirects; write the address that it leads to)" if status < 400 else "")
        message = f"{self.name} answered {status}{hint}; {LOGS}"
        wait_s = parse_retry_after(response.headers.get("retry-after", ""))
        if status == 429:
            raise OverloadedError(message, retry_after_s=wait_s)
        if status >= 500:
            raise RewardUnavailableError(message, retry_after_s=wait_s)
        raise RewardError(message)


def check_address(name: str, url: Any, path: Any, example: str) -> None:
    """Check the address of a service, and the path that is appended to it.

    Args:
        name: what the address is, for messages.
        url: the address. Only without a path it may have a query.
        path: empty, or with a slash at its beginning.
        example: an address, for messages.

    Raises:
        ConfigError: one of them cannot be used; the message names it.
    """
    try:
        parts = httpx.URL(url)
        usable = parts.scheme in ("http", "https") and parts.host and not parts.fragment and not (path and parts.query)
    except (TypeError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise ConfigError(f"{name} is {url!r}; write {example}")
    if path and not (isinstance(path, str) and path.startswith("/")):
        raise ConfigError(f"{name} gets the path {path!r}; write it with a slash at its beginning")


def read_json(response: httpx.Response) -> Any:
    """Return the JSON of an answer.

    Raises:
        ValueError: it is none, or nested so deeply that it cannot be read.
    """
    try:
        return response.json()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
