"""The judge behind an OpenAI-compatible endpoint: vLLM, ray.serve.llm, `transformers serve`, or somebody's service.

Pictures go as PNG in `data:` URIs; answers are asked for under a JSON schema (`response_format`) and without sampling.
An answer that is no verdict is asked for once more, with a word about what was wrong.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from PIL import Image
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_before_delay

from drpo_rewards.client.retries import may_retry, retry_after_s, wait
from drpo_rewards.errors import (
    ConfigError,
    OverloadedError,
    RewardError,
    RewardTimeoutError,
    RewardUnavailableError,
)
from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.judge.question import LABELS, SCHEMA, Opinion, question, read

BASE_URL, MODEL, API_KEY = "DRPO_JUDGE_BASE_URL", "DRPO_JUDGE_MODEL", "DRPO_JUDGE_API_KEY"

ANSWER_TOKENS = 160
AGAIN = "That was not one JSON object of the output schema. Answer again, with nothing but that object."

logger = logging.getLogger(__name__)

_MARKUP = re.compile(r"<(?=[|/a-z_])", re.IGNORECASE)  # begins special tokens of any model: <|im_end|>, </s>, <image>


class EndpointBackend:
    """`base_url` ends before `/chat/completions`, e.g. http://127.0.0.1:8000/v1.

    What is None comes from the environment: $DRPO_JUDGE_BASE_URL, $DRPO_JUDGE_MODEL. A key only ever comes from there:
    $DRPO_JUDGE_API_KEY. `timeout_s` is for one verdict with all its attempts, `concurrency` how many are asked for at a
    time, `retries` how often a call that failed for a passing reason is made again.
    """

    license: str | None = None

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        timeout_s: float = 60.0,
        concurrency: int = 16,
        retries: int = 3,
    ) -> None:
        self.model = model or _required(MODEL, "model")
        self.base_url = (base_url or _required(BASE_URL, "base_url")).rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"the judge's base_url is {self.base_url!r}; write http://HOST:PORT/v1")
        self.timeout_s, self.retries = timeout_s, retries
        key = os.environ.get(API_KEY)
        self._client = httpx.Client(headers={"authorization": f"Bearer {key}"} if key else {})
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="judge")
        self._takes_schema = True
        self.checkpoint: str | None = self.model
        self.version = f"endpoint/{self.model}"

    def ask(self, pairs: list[PairItem]) -> list[Opinion]:
        coming = [self._threads.submit(self._ask_one, pair) for pair in pairs]
        try:
            return [opinion.result() for opinion in coming]
        finally:
            for opinion in coming:  # after a failure: what has not begun never will
                opinion.cancel()

    def _ask_one(self, pair: PairItem) -> Opinion:
        deadline = time.monotonic() + self.timeout_s
        messages = [{"role": "user", "content": _content(pair)}]
        answer = self._complete(messages, deadline)
        opinion = read(answer)
        if opinion is None:
            again = [{"role": "assistant", "content": answer}, {"role": "user", "content": AGAIN}]
            answer = self._complete([*messages, *again], deadline)
            opinion = read(answer)
        if opinion is None:
            logger.warning("the judge %s gave no verdict, which counts as a tie: %.200r", self.model, answer)
            return Opinion("tie", parsed=False)
        return opinion

    def _complete(self, messages: list[dict[str, Any]], deadline: float) -> str:
        """The model's words; asked for again where that may help and the wait fits the deadline."""
        attempts = Retrying(
            retry=retry_if_exception(may_retry),
            stop=stop_after_attempt(1 + self.retries) | stop_before_delay(deadline - time.monotonic()),
            wait=wait,
            reraise=True,
        )
        return attempts(self._complete_once, messages, deadline)

    def _complete_once(self, messages: list[dict[str, Any]], deadline: float) -> str:
        body = {"model": self.model, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0, "seed": 0}
        if self._takes_schema:
            format = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}
            response = self._post(body | {"response_format": format}, deadline)
            if response.status_code not in (400, 422) or "response_format" not in response.text:
                return self._answer(response)
            logger.warning("%s takes no JSON schema; the judge goes on without one", self.base_url)
            self._takes_schema = False
        return self._answer(self._post(body, deadline))

    def _post(self, body: dict[str, Any], deadline: float) -> httpx.Response:
        left_s = deadline - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            return self._client.post(f"{self.base_url}/chat/completions", json=body, timeout=left_s)
        except (httpx.TimeoutException, TimeoutError):
            raise RewardTimeoutError(f"the judge's endpoint gave no answer within {self.timeout_s:g} s") from None
        except httpx.HTTPError as error:
            logger.warning("the judge's endpoint %s cannot be reached: %s", self.base_url, error)
            raise RewardUnavailableError(f"the judge's endpoint cannot be reached ({type(error).__name__})") from None

    def _answer(self, response: httpx.Response) -> str:
        """The model's words. What a server says of a failure goes to the log: it may name hosts and keys."""
        status = response.status_code
        if not response.is_success:
            logger.warning("the judge's endpoint %s answered %d: %.500s", self.base_url, status, response.text)
            message = f"the judge's endpoint answered {status}{_hint(status)}; the log has what it said"
            wait_s = retry_after_s(response.headers.get("retry-after", ""))
            if status == 429:
                raise OverloadedError(message, retry_after_s=wait_s)
            if status >= 500:
                raise RewardUnavailableError(message, retry_after_s=wait_s)
            raise RewardError(message)
        try:
            return response.json()["choices"][0]["message"].get("content") or ""
        except (ValueError, LookupError, TypeError, AttributeError):
            logger.warning("the judge's endpoint %s answered no chat completion: %.500s", self.base_url, response.text)
            raise RewardError("the judge's endpoint answered what is no chat completion; the log has it") from None


def _hint(status: int) -> str:
    if status in (401, 403):
        return f" (the key is taken from ${API_KEY})"
    return " (is the model's name right, and does base_url end in /v1?)" if status == 404 else ""


def _required(variable: str, option: str) -> str:
    if value := os.environ.get(variable):
        return value
    raise ConfigError(f"the judge's endpoint needs the option `{option}`, or ${variable}")


def _content(pair: PairItem) -> list[dict[str, Any]]:
    """The two pictures, each under its name, and the question: one message, as OpenAI's chat has it."""
    before, between, after = LABELS
    prompt = _MARKUP.sub("< ", pair.prompt)  # whichever model reads it, none of its special tokens comes from there
    return [
        {"type": "text", "text": before},
        {"type": "image_url", "image_url": {"url": _data_uri(pair.first)}},
        {"type": "text", "text": between},
        {"type": "image_url", "image_url": {"url": _data_uri(pair.second)}},
        {"type": "text", "text": after + question(prompt)},
    ]


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
