"""A vision-language model behind an OpenAI-compatible endpoint: vLLM, ray.serve.llm, `transformers serve`, or hosted.

Pictures are sent as PNG in `data:` URIs, and answers are requested with a JSON schema (`response_format`).
"""

from __future__ import annotations

import base64
import io
import logging
import math
import os
import re
from typing import Any

import httpx
import numpy as np
from PIL import Image

from drpo_rewards.errors import LOGS, ConfigError, RewardError
from drpo_rewards.rewards.shared.http_endpoint import HttpEndpoint, check_address, read_json

BASE_URL, MODEL, API_KEY = "DRPO_JUDGE_BASE_URL", "DRPO_JUDGE_MODEL", "DRPO_JUDGE_API_KEY"

PATH = "/chat/completions"
TOP_TOKENS = 20  # the most that OpenAI's API and vLLM give

logger = logging.getLogger(__name__)

_MARKUP = re.compile(r"<(?=[|/a-z_])", re.IGNORECASE)  # the start of special tokens: <|im_end|>, </s>, <image>


class ChatEndpoint(HttpEndpoint):
    """The endpoint of a vision-language model. Its API key is taken from $DRPO_JUDGE_API_KEY only.

    Args:
        owner: whose endpoint it is, for messages, e.g. "judge".
        model: the model's name at the endpoint; $DRPO_JUDGE_MODEL by default.
        base_url: the endpoint's address up to `/chat/completions`, e.g. http://127.0.0.1:8000/v1;
            $DRPO_JUDGE_BASE_URL by default.
        timeout_s: seconds for one answer, with all attempts.
        concurrency, retries: see HttpEndpoint.

    Raises:
        ConfigError: `model` or `base_url` is missing or not valid.
    """

    def __init__(
        self,
        owner: str,
        model: str | None = None,
        base_url: str | None = None,
        timeout_s: float = 60.0,
        concurrency: int = 16,
        retries: int = 3,
    ) -> None:
        self.model = model or _from_environment(owner, MODEL, "model")
        url = base_url or _from_environment(owner, BASE_URL, "base_url")
        check_address(f"the {owner}'s base_url", url, PATH, "http://HOST:PORT/v1")
        key_hint = f" (is the key in ${API_KEY} right?)"
        super().__init__(
            f"the {owner}'s endpoint",
            url,
            PATH,
            api_key=os.environ.get(API_KEY),
            timeout_s=timeout_s,
            concurrency=concurrency,
            retries=retries,
            hints={
                401: key_hint,
                403: key_hint,
                404: " (is the model's name right, and does base_url end in /v1?)",
            },
        )
        self._accepts_schema = True

    def complete(self, messages: list[dict[str, Any]], schema: dict[str, Any], deadline: float, **settings: Any) -> str:
        """Return the model's answer, whatever it is. A failed call is repeated if that may help and fits the deadline.

        Args:
            messages: the conversation, in OpenAI's format.
            schema: the JSON Schema of the answer. A server that does not accept one is asked without.
            deadline: when to give up, of time.monotonic.
            settings: further fields of the request, such as `max_tokens`.
        """
        body = {"model": self.model, "messages": messages, **settings}
        return self.repeat(lambda: self._complete_once(body, schema, deadline), deadline)

    def read_first_tokens(self, messages: list[dict[str, Any]], deadline: float) -> dict[str, float]:
        """Return what the answer may begin with: the most probable tokens as text, each with its probability.

        Args:
            messages: the conversation, in OpenAI's format.
            deadline: when to give up, of time.monotonic.

        Raises:
            RewardError: the endpoint gives no probabilities.
        """
        # The probabilities that a temperature of 1 leaves as they are; the token that is drawn is not read.
        settings = {"max_tokens": 1, "temperature": 1, "logprobs": True, "top_logprobs": TOP_TOKENS}
        body = {"model": self.model, "messages": messages, **settings}
        response = self.repeat(lambda: self._ask_for_tokens(body, deadline), deadline)
        try:
            entries = read_json(response)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found = [(str(entry["token"]), math.exp(min(float(entry["logprob"]), 0.0))) for entry in entries]
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            logger.warning("%s at %s sent no logprobs: %.500s", self.name, self.url, response.text)
            found = []
        if not found or any(math.isnan(chance) for _, chance in found):
            raise RewardError(f"{self.name} sent no probabilities of the answer's first token (logprobs); {LOGS}")
        chances: dict[str, float] = {}
        for token, chance in found:  # different tokens may have the same text
            chances[token] = chances.get(token, 0.0) + chance
        return chances

    def _ask_for_tokens(self, body: dict[str, Any], deadline: float) -> httpx.Response:
        response = self.post(deadline, json=body)
        if response.status_code in (400, 422) and "logprobs" in response.text:
            logger.warning("%s at %s does not accept logprobs: %.500s", self.name, self.url, response.text)
            raise RewardError(f"{self.name} does not accept top_logprobs: {TOP_TOKENS}, which are needed; {LOGS}")
        return self.check(response)

    def _complete_once(self, body: dict[str, Any], schema: dict[str, Any], deadline: float) -> str:
        if self._accepts_schema:
            format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
            response = self.post(deadline, json=body | {"response_format": format})
            if response.status_code not in (400, 422) or "response_format" not in response.text:
                return self._read(response)
            logger.warning("%s does not accept a JSON schema and is asked without one from now on", self.name)
            self._accepts_schema = False
        return self._read(self.post(deadline, json=body))

    def _read(self, response: httpx.Response) -> str:
        self.check(response)
        try:
            answer = read_json(response)["choices"][0]["message"].get("content") or ""
        except (ValueError, LookupError, TypeError, AttributeError):
            answer = None
        if not isinstance(answer, str):
            logger.warning("%s at %s sent no chat completion: %.500s", self.name, self.url, response.text)
            raise RewardError(f"{self.name} sent no chat completion; {LOGS}")
        return answer


def _from_environment(owner: str, variable: str, option: str) -> str:
    if value := os.environ.get(variable):
        return value
    raise ConfigError(f"the {owner}'s endpoint needs the option `{option}`, or ${variable}")


def break_markup(prompt: str) -> str:
    """Return a prompt in which the special tokens of any model are broken by a space."""
    return _MARKUP.sub("< ", prompt)


def text_part(text: str) -> dict[str, Any]:
    """Make a text part of a message."""
    return {"type": "text", "text": text}


def image_part(image_HW3: np.ndarray) -> dict[str, Any]:
    """Make a part of a message with a picture."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "PNG", compress_level=1)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": uri}}
