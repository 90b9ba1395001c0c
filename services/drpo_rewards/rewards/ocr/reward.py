"""The reward for rendered text: a reader, and the comparison of what it reads with what the prompt quotes."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from drpo_rewards.api.contract import Metric
from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.ocr.text import compare, find_targets

READERS = {"rapidocr": "drpo_rewards.rewards.ocr.rapid_reader:RapidReader"}


class Reader(Protocol):
    """Reads text in pictures. A class of your own may also have `checkpoint` and `license`.

    Attributes:
        version: names the code and the weights.
    """

    version: str

    def read(self, images: Sequence[np.ndarray]) -> list[list[str]]:
        """Return the lines of text in each (H, W, 3) uint8 RGB picture, in reading order."""
        ...


class OcrReward:
    """Does the picture show the text that the prompt puts in quotes?

    The score is 1 minus the normalised edit distance, 0 to 1, as flow_grpo computes it: 1 if the text occurs in what
    was read, whatever else was read. The metric `exact` is 1 if nothing else was read. Neither case nor white space
    counts. The text is what the prompt has in quotes, or `metadata.text`: a text, or a list of texts. Without
    either, the request is refused.

    Args:
        reader: "rapidocr", or a Reader of your own as package.module:Class.
        reader_options: the arguments of its class; for rapidocr see `RapidReader`.
    """

    range = (0.0, 1.0)
    extra = "ocr"
    metrics = (Metric(name="exact", description="the picture has this text and no other", unit="share"),)
    needs_in_prompt = 'the text to show, in quotes: a sign that says "OPEN"; or metadata.text has it'
    metadata_schema: ClassVar = {
        "type": "object",
        "properties": {
            "text": {
                "description": "What the picture shall show; by default what the prompt has in quotes.",
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            }
        },
    }
    probe = ScoreItem(np.full((64, 64, 3), 127, dtype=np.uint8), 'a sign that says "A"')

    def __init__(self, reader: str = "rapidocr", reader_options: dict[str, Any] | None = None) -> None:
        self.reader = _create_reader(reader, reader_options or {})
        self.version = f"ocr-1/{self.reader.version}"
        self.checkpoint = getattr(self.reader, "checkpoint", None)
        self.license = getattr(self.reader, "license", None)

    @staticmethod
    def files(**options: Any) -> tuple[ModelFiles, ...]:
        return ()

    @staticmethod
    def check_request(prompt: str, metadata: Mapping[str, Any] | None, **options: Any) -> None:
        """Check that the prompt or its metadata has the text to show."""
        find_targets(prompt, metadata)

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        targets = [find_targets(item.prompt, item.metadata) for item in items]  # before the pictures are read
        return [
            self._score(lines, wanted)
            for lines, wanted in zip(self.reader.read([item.image for item in items]), targets, strict=True)
        ]

    def _score(self, lines: list[str], targets: list[str]) -> Score:
        agreement = compare("".join(lines), targets)
        details = {"exact": int(agreement.exact), "read": lines, "wanted": targets}
        return Score(agreement.similarity, details)


def _create_reader(name: str, options: dict[str, Any]) -> Reader:
    try:
        cls = pkgutil.resolve_name(READERS.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(READERS)
        raise ConfigError(f"ocr: no reader {name!r} ({error}); write {known}, or package.module:Class") from error
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigError(f"ocr: reader {name!r} does not take reader_options {options}: {error}") from error
