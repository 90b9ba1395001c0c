"""The judge behind an OpenAI-compatible endpoint: vLLM, ray.serve.llm, `transformers serve`, or a hosted service.

Pictures are sent as PNG in `data:` URIs. Answers are requested with a JSON schema (`response_format`) and without
sampling. If an answer has no verdict, the judge is asked once more and told what was wrong.
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

from drpo_rewards.client.retries import may_retry, parse_retry_after, wait
from drpo_rewards.errors import (
    LOGS,
    ConfigError,
    OverloadedError,
    RewardError,
    RewardTimeoutError,
    RewardUnavailableError,
)
from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.judge.question import LABELS, SCHEMA, Opinion, parse_answer, write_question

BASE_URL, MODEL, API_KEY = "DRPO_JUDGE_BASE_URL", "DRPO_JUDGE_MODEL", "DRPO_JUDGE_API_KEY"

ANSWER_TOKENS = 160
AGAIN = "That was not one JSON object of the output schema. Answer again, with nothing but that object."

logger = logging.getLogger(__name__)

_MARKUP = re.compile(r"<(?=[|/a-z_])", re.IGNORECASE)  # the start of special tokens: <|im_end|>, </s>, <image>


class EndpointBackend:
    """A vision-language model behind an HTTP endpoint. Its API key is taken from $DRPO_JUDGE_API_KEY only.

    Args:
        model: the model's name at the endpoint; $DRPO_JUDGE_MODEL by default.
        base_url: the endpoint's address up to `/chat/completions`, e.g. http://127.0.0.1:8000/v1;
            $DRPO_JUDGE_BASE_URL by default.
        timeout_s: seconds for one verdict, with all attempts.
        concurrency: how many verdicts are requested at the same time.
        retries: how often a call that failed for a temporary reason is repeated.

    Raises:
        ConfigError: `model` or `base_url` is missing or not valid.
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
        self.model = model or _from_environment(MODEL, "model")
        self.base_url = (base_url or _from_environment(BASE_URL, "base_url")).rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"the judge's base_url is {self.base_url!r}; write http://HOST:PORT/v1")
        self.timeout_s, self.retries = timeout_s, retries
        key = os.environ.get(API_KEY)
        self._client = httpx.Client(headers={"authorization": f"Bearer {key}"} if key else {})
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="judge")
        self._accepts_schema = True
        self.checkpoint: str | None = self.model
        self.version = f"endpoint/{self.model}"

    def ask(self, pairs: list[PairItem]) -> list[Opinion]:
        """Return one opinion per pair, in order; see `Backend.ask`."""
        opinions = [self._threads.submit(self._ask_about_pair, pair) for pair in pairs]
        try:
            return [opinion.result() for opinion in opinions]
        finally:
            for opinion in opinions:  # after a failure, drop the calls that have not started
                opinion.cancel()

    def _ask_about_pair(self, pair: PairItem) -> Opinion:
        deadline = time.monotonic() + self.timeout_s
        messages = [{"role": "user", "content": _content(pair)}]
        answer = self._complete(messages, deadline)
        opinion = parse_answer(answer)
        if opinion is None:
            retry = [{"role": "assistant", "content": answer}, {"role": "user", "content": AGAIN}]
            answer = self._complete([*messages, *retry], deadline)
            opinion = parse_answer(answer)
        if opinion is None:
            logger.warning("the judge %s gave no verdict, which counts as a tie: %.200r", self.model, answer)
            return Opinion("tie", parsed=False)
        return opinion

    def _complete(self, messages: list[dict[str, Any]], deadline: float) -> str:
        """Return the model's answer. A failed call is repeated if that may help and fits the deadline."""
        attempts = Retrying(
            retry=retry_if_exception(may_retry),
            stop=stop_after_attempt(1 + self.retries) | stop_before_delay(deadline - time.monotonic()),
            wait=wait,
            reraise=True,
        )
        return attempts(self._complete_once, messages, deadline)

    def _complete_once(self, messages: list[dict[str, Any]], deadline: float) -> str:
        body = {"model": self.model, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0, "seed": 0}
        if self._accepts_schema:
            format = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}
            response = self._post(body | {"response_format": format}, deadline)
            if response.status_code not in (400, 422) or "response_format" not in response.text:
                return self._read_response(response)
            logger.warning("%s does not accept a JSON schema; the judge continues without one", self.base_url)
            self._accepts_schema = False
        return self._read_response(self._post(body, deadline))

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

    def _read_response(self, response: httpx.Response) -> str:
        """Return the model's answer. A server's error text goes to the log only, because it may name hosts and keys."""
        status = response.status_code
        if not response.is_success:
            logger.warning("the judge's endpoint %s answered %d: %.500s", self.base_url, status, response.text)
            message = f"the judge's endpoint answered {status}{_hint(status)}; {LOGS}"
            wait_s = parse_retry_after(response.headers.get("retry-after", ""))
            if status == 429:
                raise OverloadedError(message, retry_after_s=wait_s)
            if status >= 500:
                raise RewardUnavailableError(message, retry_after_s=wait_s)
            raise RewardError(message)
        try:
            return response.json()["choices"][0]["message"].get("content") or ""
        except (ValueError, LookupError, TypeError, AttributeError):
            logger.warning("the judge's endpoint %s sent no chat completion: %.500s", self.base_url, response.text)
            raise RewardError(f"the judge's endpoint sent no chat completion; {LOGS}") from None


def _hint(status: int) -> str:
    if status in (401, 403):
        return f" (is the key in ${API_KEY} right?)"
    return " (is the model's name right, and does base_url end in /v1?)" if status == 404 else ""


def _from_environment(variable: str, option: str) -> str:
    if value := os.environ.get(variable):
        return value
    raise ConfigError(f"the judge's endpoint needs the option `{option}`, or ${variable}")


def _content(pair: PairItem) -> list[dict[str, Any]]:
    """Make a message of OpenAI's chat format: the two pictures, each under its label, and the question."""
    before, between, after = LABELS
    prompt = _MARKUP.sub("< ", pair.prompt)  # breaks special tokens of any model
    return [
        {"type": "text", "text": before},
        {"type": "image_url", "image_url": {"url": _data_uri(pair.first)}},
        {"type": "text", "text": between},
        {"type": "image_url", "image_url": {"url": _data_uri(pair.second)}},
        {"type": "text", "text": after + write_question(prompt)},
    ]


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
