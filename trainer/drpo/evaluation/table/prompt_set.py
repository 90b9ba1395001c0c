"""A set of prompts in a table. Written NAME=SOURCE,key=value,... on the command line.

Parti=parti
GenEval=geneval
ours=file,path=prompts.csv,column=caption
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from drpo.config import Config, PromptsConfig
from drpo.data.prompts import PROMPT_SOURCES, load_prompts
from drpo.errors import ConfigError
from drpo.evaluation.plan import PlannedImage, plan_images
from drpo.evaluation.table.named import read_named
from drpo_rewards.api.suggestions import did_you_mean

_KEYS = ("path", "column", "task_column", "split", "tasks", "mean")

Mean = Literal["tasks", "prompts"]


@dataclass(frozen=True)
class PromptSet:
    """The planned images of a set of prompts.

    Attributes:
        name: its name in tables.
        planned: its images, the same for every row.
        mean: what counts the same in a mean: each task, as in GenEval, or each prompt.
        of_shapes: whether they are of the world of shapes, whose colours and places can be read from pictures.
    """

    name: str
    planned: Sequence[PlannedImage]
    mean: Mean
    of_shapes: bool = False

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")[:60] or "prompts"

    @property
    def has_metadata(self) -> bool:
        """Whether every prompt has the metadata that rewards such as GenEval need."""
        return all(one.record.metadata is not None for one in self.planned)


def make_sets(texts: Sequence[str], config: Config) -> list[PromptSet]:
    """Makes the sets of the command line, see `read_named`; without any, that of the settings' evaluation."""
    return read_named("--prompts", texts or [""], lambda text: _make_set(text, config))


def _make_set(text: str, config: Config) -> PromptSet:
    if text:
        name, settings, mean = _parse(text)
    else:
        settings, mean = config.evaluation_prompts(), None
        name = settings.source
    records = load_prompts(settings, section=f"--prompts {name}")
    evaluation = config.evaluation
    planned = plan_images(
        records,
        images_per_prompt=evaluation.images_per_prompt,
        prompts_per_task=evaluation.prompts_per_task,
        seed=evaluation.seed,
    )
    if mean is None:
        mean = "tasks" if all(record.metadata is not None for record in records) else "prompts"
    return PromptSet(name, planned, mean, of_shapes=settings.source == "shapes")


def _parse(text: str) -> tuple[str, PromptsConfig, Mean | None]:
    first, *options = re.split(r",(?=[a-z_]+=)", text)
    name, equals, source = first.partition("=")
    source = source if equals else name
    if not name or source not in PROMPT_SOURCES:
        raise ConfigError(
            f"--prompts {text}: there is no prompt source {source!r}{did_you_mean(source, PROMPT_SOURCES)}; write "
            f"NAME=SOURCE,key=value with a source of {', '.join(PROMPT_SOURCES)}"
        )
    values: dict[str, Any] = {"source": source, "split": "test"}
    mean: Any = None
    for option in options:
        key, _, value = option.partition("=")
        if key not in _KEYS:
            raise ConfigError(f"--prompts {name}: there is no {key}{did_you_mean(key, _KEYS)}; use {', '.join(_KEYS)}")
        if key == "mean":
            if value not in ("tasks", "prompts"):
                raise ConfigError(f"--prompts {name}: mean is tasks or prompts, not {value!r}")
            mean = value
        else:
            values[key] = tuple(value.split("+")) if key == "tasks" else value
    try:
        return name, PromptsConfig(**values), mean
    except ValidationError as error:
        raise ConfigError(f"--prompts {name}: {error.errors()[0]['msg']}") from None
