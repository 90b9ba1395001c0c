"""The whole evaluation of an adapter, from a run's settings. It needs a running ranking service."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from drpo.config import Config
from drpo.data.prompts import PromptRecord, load_prompts
from drpo.evaluation.compare import compare
from drpo.evaluation.evaluate import Progress, evaluate
from drpo.evaluation.plan import plan_images
from drpo.evaluation.result import EvaluationResult
from drpo.generators.base import OneStepGenerator
from drpo.training.build import build_generator
from drpo.training.ranking_client import make_ranking_client
from drpo_rewards.client import RankingClient

SAMPLES = "samples"
SCORES_FILE = "evaluation.jsonl"


@dataclass(frozen=True)
class AdapterEvaluation:
    """The evaluation of base and adapter.

    Attributes:
        base: the images of the base.
        tuned: the images with the adapter, for the same prompts and noises.
        comparison: see `drpo.evaluation.compare`, and "seen_in_training" in `evaluate_adapter`.
        seconds: of the whole evaluation.
    """

    base: EvaluationResult
    tuned: EvaluationResult
    comparison: dict[str, Any]
    seconds: float

    def save(self, run_dir: Path) -> None:
        """Writes the scores of every image to evaluation.jsonl, and the example pictures and an index.json to samples/.

        A line of evaluation.jsonl has scores under REWARD and metrics under REWARD/METRIC, for example
            {"task": "colors", "prompt": "a red ring", "image": 0, "seed": 7,
             "base": {"geneval": 0.5, "geneval/strict": 0.0}, "tuned": {"geneval": 1.0, "geneval/strict": 1.0}}
        """
        lines = []
        for base, tuned in zip(self.base.images, self.tuned.images, strict=True):
            plan = base.planned
            line = {"task": plan.record.task, "prompt": plan.record.prompt, "image": plan.number, "seed": plan.seed}
            lines.append(json.dumps({**line, "base": base.rewards, "tuned": tuned.rewards}))
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / SCORES_FILE).write_text("\n".join(lines) + "\n")
        _save_samples(run_dir / SAMPLES, self.base, self.tuned)


def evaluate_adapter(
    config: Config,
    adapter: Path | None,
    *,
    generator: OneStepGenerator | None = None,
    client: RankingClient | None = None,
    records: list[PromptRecord] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> AdapterEvaluation:
    """Compares an adapter with its base on the prompts of `config.evaluation`, from the same noise.

    Args:
        config: the settings of the run. A ranking service must run at `rewards.address`.
        adapter: the adapter's file or folder; None: the adapter in `generator`.
        generator, client, records: None: made from the config.
        device: the device of a generator that is made from the config.
        progress: called with (images scored so far, images of both sides).

    Returns:
        Both sides and their comparison. The comparison has one more entry, "seen_in_training": the number of prompts
        that are also training prompts. It should be 0.

    Raises:
        ConfigError: `rewards.address` is not set.
        EvaluationError, drpo_rewards.errors.RewardsError: see `drpo.evaluation.evaluate`.
    """
    started = time.perf_counter()
    settings = config.evaluation
    generator = generator if generator is not None else build_generator(config, device=device, lora=adapter is None)
    if adapter is not None:
        generator.adapter.load(adapter)
    planned = plan_images(
        records if records is not None else evaluation_prompts(config),
        images_per_prompt=settings.images_per_prompt,
        prompts_per_task=settings.prompts_per_task,
        seed=settings.seed,
    )
    with nullcontext(client) if client is not None else make_ranking_client(config.rewards) as service:

        def evaluate_side(done_before: int) -> EvaluationResult:
            def report(done: int, total: int) -> None:
                if progress is not None:
                    progress(done_before + done, 2 * total)

            return evaluate(
                generator,
                service,
                planned,
                reward=settings.reward,
                metric=settings.metric,
                rewards=config.rewards.weights,
                mixture=config.rewards.mixture,
                batch_size=settings.batch_size,
                progress=report,
            )

        with generator.reference():
            base = evaluate_side(0)
        tuned = evaluate_side(len(planned))
    comparison = compare(base, tuned)
    trained = {record.prompt for record in load_prompts(config.prompts)}
    comparison["seen_in_training"] = len({image.record.prompt for image in planned} & trained)
    return AdapterEvaluation(base, tuned, comparison, time.perf_counter() - started)


def evaluation_prompts(config: Config) -> list[PromptRecord]:
    """The prompts of `config.evaluation`: its split and file, and otherwise the settings of `config.prompts`."""
    evaluation = config.evaluation
    change: dict[str, Any] = {"split": evaluation.split, "path": evaluation.path or config.prompts.path}
    return load_prompts(config.prompts.model_copy(update=change))


def _save_samples(folder: Path, base: EvaluationResult, tuned: EvaluationResult) -> None:
    """Writes each picture as a lossless WebP, and describes all of them in index.json."""
    folder.mkdir(parents=True, exist_ok=True)
    index, counts = [], dict.fromkeys(base.task_means(), 0)
    for before, after in zip(base.images, tuned.images, strict=True):
        if before.picture_HWC is None or after.picture_HWC is None:
            continue
        record = before.planned.record
        stem = f"{record.task or 'prompt'}-{counts[record.task]:02d}"
        counts[record.task] += 1
        entry: dict[str, Any] = {"task": record.task, "prompt": record.prompt, "seed": before.planned.seed}
        for side, image, picture in (("base", before, before.picture_HWC), ("tuned", after, after.picture_HWC)):
            file = f"{stem}-{side}.webp"
            Image.fromarray(picture).save(folder / file, lossless=True, quality=100)
            entry[side] = {"file": file, "score": image.score, "reasons": list(image.reasons)}
        index.append(entry)
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
