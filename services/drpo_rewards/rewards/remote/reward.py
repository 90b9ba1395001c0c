"""The reward that asks another HTTP service for its scores."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx
import numpy as np
from PIL import Image

from drpo_rewards.errors import LOGS, ConfigError, InvalidRequestError, RewardError
from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.remote.forms import FORMS, Form, choose_form, read_pickle
from drpo_rewards.rewards.remote.templates import Sent, check_template, fill, find, has_pictures
from drpo_rewards.rewards.shared.http_endpoint import HttpEndpoint, read_json

PROBE_METADATA = {
    "tag": "single_object",
    "include": [{"class": "bench", "count": 1}],
    "prompt": "a photo of a bench",
}  # GenEval's, which one form needs

logger = logging.getLogger(__name__)


class RemoteReward:
    """The scores of another HTTP service. Its address comes from the config, never from a request.

    Whatever goes wrong is a typed error and never a score: no answer in time, a wrong number of scores, a score that is
    not a finite number, or a page in the place of an answer.

    Args:
        url: the service's address; the form appends its path.
        form: how it wants its requests: "json", "multipart", "flow_factory", "unirl", "flow_grpo" or
            "flow_grpo_geneval".
        reward: for "unirl", the name of the reward at that service.
        path, request, answer, image: replace what the form says; see `Form`.
        version: names what the service computes. Change it whenever its scores change.
        unsafe_pickle: must be True for the forms of flow_grpo. An answer in pickle could run code of whoever answers.
            Only plain numbers are read from it; even so, use it with a service of your own only.
        api_key_env: the variable with the service's key, which is sent as a bearer token.
        images_per_call: the most pictures of one call.
        timeout_s: seconds for one call, with all attempts.
        concurrency: how many calls are made at the same time.
        retries: how often a call that failed for a temporary reason is repeated.

    Raises:
        ConfigError: the options do not fit each other.
    """

    def __init__(
        self,
        url: str,
        form: str = "json",
        reward: str | None = None,
        path: str | None = None,
        request: Any = None,
        answer: str | None = None,
        image: Literal["png", "jpeg"] | None = None,
        version: str = "1",
        unsafe_pickle: bool = False,
        api_key_env: str | None = None,
        images_per_call: int = 16,
        timeout_s: float = 30.0,
        concurrency: int = 4,
        retries: int = 3,
    ) -> None:
        changes = {"path": path, "request": request, "answer": answer, "image": image}
        self._form_name = form
        self.form = _check_form(choose_form(form, reward, changes), form, unsafe_pickle)
        if not isinstance(images_per_call, int) or images_per_call < 1:
            raise ConfigError(f"remote: images_per_call is {images_per_call!r}; write a whole number of at least 1")
        key = None
        if api_key_env is not None and not (key := os.environ.get(api_key_env)):
            raise ConfigError(f"remote: ${api_key_env}, which api_key_env names, is not set")
        hint = f" (is the key in ${api_key_env} right?)" if api_key_env else " (does it need a key? set api_key_env)"
        self._endpoint = HttpEndpoint(
            "the remote scorer",
            url,
            self.form.path,
            api_key=key,
            timeout_s=timeout_s,
            concurrency=concurrency,
            retries=retries,
            hints={401: hint, 403: hint, 404: " (are `url` and `path` right?)"},
        )
        self._most = images_per_call
        self.version = f"remote-1/{form}/{version}"
        self.description = f"scores of another service, asked in the form {form}"
        self.needs_metadata = self.form.needs_metadata
        self.probe = ScoreItem(np.full((64, 64, 3), 127, dtype=np.uint8), "a photo of a bench", PROBE_METADATA)

    @staticmethod
    def files(**options: Any) -> tuple[ModelFiles, ...]:
        return ()

    @staticmethod
    def check_request(prompt: str, metadata: Mapping[str, Any] | None, **options: Any) -> None:
        """Check that there is metadata if the form needs them."""
        if metadata is None and FORMS[options.get("form", "json")].needs_metadata:
            raise InvalidRequestError(
                "this remote scorer needs the prompt's GenEval spec as `metadata`", field="metadata"
            )

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        for item in items:
            self.check_request(item.prompt, item.metadata, form=self._form_name)
        calls = [items[start : start + self._most] for start in range(0, len(items), self._most)]
        return [Score(value) for values in self._endpoint.map(self._ask, calls) for value in values]

    def _ask(self, items: Sequence[ScoreItem]) -> list[float]:
        content = self._write(items)
        deadline = self._endpoint.deadline()
        response = self._endpoint.repeat(
            lambda: self._endpoint.check(self._endpoint.post(deadline, **content)), deadline
        )
        return self._read_scores(self._read(response), len(items))

    def _write(self, items: Sequence[ScoreItem]) -> dict[str, Any]:
        """Make the body of a call, as httpx takes it."""
        files = [_encode(item.image, self.form.image) for item in items]
        images: list[Any] = files if self.form.body == "pickle" else [base64.b64encode(file).decode() for file in files]
        sent = [Sent(item.prompt, image, item.metadata) for item, image in zip(items, images, strict=True)]
        request = fill(self.form.request, sent)
        if self.form.body == "json":
            return {"json": request}
        if self.form.body == "pickle":
            return {"content": pickle.dumps(request), "headers": {"content-type": "application/octet-stream"}}
        parts: list[Any] = [(self.form.request_field, (None, json.dumps(request), "application/json"))]
        for index, file in enumerate(files):
            name = f"{index}.{self.form.image}"
            parts.append((self.form.images_field, (name, file, f"image/{self.form.image}")))
        return {"files": parts}

    def _read(self, response: httpx.Response) -> Any:
        try:
            return read_pickle(response.content) if self.form.body == "pickle" else read_json(response)
        except ValueError as error:
            kind = "pickle of plain numbers" if self.form.body == "pickle" else "JSON"
            sort = response.headers.get("content-type") or "no content type"
            logger.warning("the remote scorer sent no %s (%s): %.500r", kind, error, response.content)
            raise RewardError(f"the remote scorer sent no {kind} ({sort}); {LOGS}") from None

    def _read_scores(self, answer: Any, count: int) -> list[float]:
        try:
            found = [_plain(value) for value in find(_plain(answer), self.form.answer)]
        except LookupError as error:
            logger.warning("the remote scorer's answer has no %s: %.500r", self.form.answer, answer)
            raise RewardError(f"the remote scorer's answer has no scores at {self.form.answer}: {error}") from None
        if len(found) != count:
            raise RewardError(f"the remote scorer sent {len(found)} scores for {count} pictures")
        for index, value in enumerate(found):
            if not _is_score(value):
                raise RewardError(f"the remote scorer's score {index} is {_show(value)}, and not a finite number")
        return [float(value) for value in found]


def _check_form(form: Form, name: str, unsafe_pickle: bool) -> Form:
    if form.body == "pickle" and unsafe_pickle is not True:
        raise ConfigError(
            f"remote: the form {name} is pickle, and an answer in pickle can run code of whoever answers. "
            "If the service is your own, write unsafe_pickle: true"
        )
    if not (isinstance(form.answer, str) and form.answer.startswith("/")):
        raise ConfigError(f"remote: answer is {form.answer!r}; write a JSON pointer such as /scores")
    if form.image not in ("png", "jpeg"):
        raise ConfigError(f"remote: image is {form.image!r}; write png or jpeg")
    check_template(form.request)
    if form.body != "multipart" and not has_pictures(form.request):  # whose pictures are files of their own
        raise ConfigError("remote: the request has no {images} or {image}, so the service would see no picture")
    return form


def _encode(image_HW3: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    settings = {"quality": 95} if format == "jpeg" else {"compress_level": 1}
    Image.fromarray(image_HW3).save(file, format.upper(), **settings)
    return file.getvalue()


def _is_score(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _show(value: Any) -> str:
    return "an integer of many digits" if isinstance(value, int) and abs(value) > 10**80 else f"{value!r:.80}"


def _plain(value: Any) -> Any:
    """Return NumPy's arrays and numbers, which pickle may hold, as Python's."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
