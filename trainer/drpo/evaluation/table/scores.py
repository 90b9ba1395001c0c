"""The scores of a row's pictures on the disk. What is scored is never asked again, unless the reward or the prompt's
metadata have changed.

OUT/scores/ROW/SET.jsonl has a line for each picture: its task, prompt and seed, a digest of its "metadata", "numbers"
such as {"geneval": 0.5, "geneval/strict": 0.0}, and the "versions" of the rewards that gave them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from drpo.config import RewardsConfig
from drpo.errors import ConfigError
from drpo.evaluation.metric import ShownMetric, show_metric
from drpo.evaluation.plan import PlannedImage
from drpo.evaluation.table.pictures import Key, PictureFolder, append_lines, digest_metadata, read_lines
from drpo.evaluation.table.prompt_set import PromptSet
from drpo.training.files import storing
from drpo_rewards.api.contract import DEFAULT_MIXTURE, ModelInfo
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.client import RankingClient

Numbers = Mapping[str, float]

_NONE: dict[str, Any] = {"numbers": {}, "versions": {}, "metadata": None}
"""What is known of a picture that was not scored."""
_CONCURRENT_REQUESTS = 4
_GROUP = 32
"""The most pictures in one request."""


def choose_columns(
    texts: Sequence[str], settings: RewardsConfig, models: Sequence[ModelInfo]
) -> dict[ShownMetric, ModelInfo]:
    """The numbers that a table shows, with the rewards that give them.

    Args:
        texts: REWARD or REWARD/METRIC; none: the rewards of the settings, or those of their mixture.
        settings: the rewards of the settings.
        models: what the service offers.

    Raises:
        ConfigError: the service has no such reward, or the reward no such metric. A line for each problem.
    """
    rewards = {model.name: model for model in models if model.kind == "reward"}
    if not texts:
        mixtures = {model.name: model.weights or {} for model in models if model.kind == "mixture"}
        named = settings.weights or mixtures.get(settings.mixture or DEFAULT_MIXTURE) or rewards
        texts = [name for name in named if name in rewards and rewards[name].mode == "pointwise"]
    columns, problems = {}, []
    for text in texts:
        name, _, metric = text.partition("/")
        info = rewards.get(name)
        if info is None:
            problems.append(f"--reward: there is no reward {name!r}{did_you_mean(name, rewards)}; the service has")
            problems[-1] += f" {', '.join(rewards) or 'none'}"
        elif info.mode == "pairwise":
            problems.append(f"--reward: {name} compares two pictures; use it with `drpo judge`")
        elif metric and metric not in [one.name for one in info.metrics]:
            declared = ", ".join(one.name for one in info.metrics) or "none"
            problems.append(f"--reward: {name} has no metric {metric!r}; it declares {declared}")
        else:
            columns[show_metric(info, metric or None)] = info
    if problems:
        raise ConfigError("\n".join(problems))
    return columns


class ScoreFile:
    """The scores of one row for one set of prompts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[Key, dict[str, Any]] = {}
        for line in read_lines(path):
            self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        key, metadata = (line["task"], line["prompt"], line["seed"]), line.get("metadata")
        earlier = self._lines.get(key, _NONE)
        if earlier["metadata"] != metadata:
            earlier = _NONE
        joined = {part: {**earlier[part], **line[part]} for part in ("numbers", "versions")}
        self._lines[key] = {**joined, "metadata": metadata}

    def missing(self, planned: Sequence[PlannedImage], rewards: Mapping[str, ModelInfo]) -> list[PlannedImage]:
        """The planned images without the scores of these rewards, in their present versions, for their metadata."""
        versions = {name: info.version for name, info in rewards.items()}

        def has_all(one: PlannedImage) -> bool:
            line = self._lines.get(one.key, _NONE)
            is_same = line["metadata"] == digest_metadata(one.record.metadata)
            return is_same and versions.items() <= line["versions"].items()

        return [one for one in planned if not has_all(one)]

    def numbers(self, planned: PlannedImage) -> Numbers:
        """All numbers of an image; none if it was not scored."""
        return self._lines.get(planned.key, _NONE)["numbers"]

    def score(
        self,
        planned: Sequence[PlannedImage],
        pictures: PictureFolder,
        client: RankingClient,
        rewards: Mapping[str, ModelInfo],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Asks the service for scores, and keeps them as they arrive.

        Args:
            planned: the images to score; see `missing`.
            pictures: where they are.
            client: a client of the service.
            rewards: the rewards to ask, by name.
            progress: called with the number of pictures of each answer.

        Raises:
            drpo_rewards.errors.RewardsError: a picture could not be scored. What was scored is kept.
        """
        with storing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        weights = dict.fromkeys(rewards, 1.0)

        def ask(group: Sequence[PlannedImage]) -> list[dict[str, Any]]:
            # A ranking needs two images. A single one is sent twice: raw scores do not depend on the group.
            images = [pictures.read(one.key) for one in group]
            sent_KHWC = np.stack(images if len(images) > 1 else images * 2)
            record = group[0].record
            metadata = dict(record.metadata) if record.metadata is not None else None
            response = client.rank(record.prompt, sent_KHWC, rewards=weights, metadata=metadata, details=True)
            lines = []
            for i, one in enumerate(group):
                numbers = {}
                for name, result in response.rewards.items():
                    numbers[name] = result.scores[i]
                    numbers |= {f"{name}/{metric}": values[i] for metric, values in (result.metrics or {}).items()}
                versions = {name: rewards[name].version for name in response.rewards}
                entry = {"task": record.task, "prompt": record.prompt, "seed": one.seed}
                entry["metadata"] = digest_metadata(metadata)
                lines.append({**entry, "numbers": numbers, "versions": versions})
            return lines

        with ThreadPoolExecutor(_CONCURRENT_REQUESTS, thread_name_prefix="scoring") as pool:
            answers = [pool.submit(ask, group) for group in _groups(planned)]
            try:
                for answer in as_completed(answers):
                    lines = answer.result()
                    append_lines(self._path, lines)
                    for line in lines:
                        self._add(line)
                    if progress is not None:
                        progress(len(lines))
            finally:
                for answer in answers:  # only after an error
                    answer.cancel()


def asked_rewards(columns: Mapping[ShownMetric, ModelInfo], prompts: PromptSet) -> dict[str, ModelInfo]:
    """The rewards of the columns that can score a set of prompts: those that need metadata only if it has theirs."""
    infos = {info.name: info for info in columns.values()}
    return {
        name: info
        for name, info in infos.items()
        if not info.needs_metadata or prompts.has_metadata((info.metadata_schema or {}).get("required", ()))
    }


def _groups(planned: Sequence[PlannedImage]) -> list[list[PlannedImage]]:
    """Groups of at most `_GROUP` images of one prompt."""
    groups = []
    for _, images in groupby(planned, key=lambda one: (one.record.task, one.record.prompt)):
        group = list(images)
        groups += [group[start : start + _GROUP] for start in range(0, len(group), _GROUP)]
    return groups
