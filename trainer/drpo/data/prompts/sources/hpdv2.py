"""The benchmark of HPSv2: 3,200 prompts, 800 in each of four styles."""

from __future__ import annotations

import json
from pathlib import Path

from drpo.config import PromptsConfig
from drpo.data.prompts.downloads import find_files
from drpo.data.prompts.problems import Problems, find_text_problem
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.source import Origin, PromptSource, RemoteFile
from drpo.errors import ConfigError
from drpo_rewards.reading import why_unreadable

STYLES = ("anime", "concept-art", "paintings", "photo")

ORIGIN = Origin(
    homepage="https://huggingface.co/datasets/zhwang/HPDv2",
    licence="Apache-2.0, as the authors' second copy of it (ymhao/HPDv2) states",
    revision="260dbde75ab1c68e86d32a8e7739f1b49b100578",
    repository="zhwang/HPDv2",
    files=tuple(RemoteFile(f"benchmark/{style}.json") for style in STYLES),
)


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """The prompts of all styles, with the style as task.

    Raises:
        ConfigError: a file was not downloaded, or is another one.
    """
    records = []
    for style in STYLES:
        (path,) = find_files("hpdv2", ORIGIN, f"benchmark/{style}.json")
        records += [PromptRecord(prompt, task=style) for prompt in _read_list(path)]
    return records


def _read_list(path: Path) -> list[str]:
    try:
        prompts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {why_unreadable(error)}") from error
    if not isinstance(prompts, list):
        raise ConfigError(f"{path} must be a list of prompts")
    problems = Problems(str(path))
    for number, prompt in enumerate(prompts, start=1):
        if not isinstance(prompt, str) or not prompt.strip():
            problems.add(f"entry {number}", "must be text that is not empty")
        elif problem := find_text_problem(prompt):
            problems.add(f"entry {number}", problem)
    problems.raise_if_any()
    return prompts


SOURCE = PromptSource("HPSv2's benchmark: 3,200 prompts in four styles", load, origin=ORIGIN)
