"""The whole evaluation of an adapter, from a run's settings. It needs a running ranking service."""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from drpo.config import Config
from drpo.data.prompts import PromptRecord, load_prompts
from drpo.data.prompts.overlap import find_overlap
from drpo.data.training import load_training_prompts
from drpo.evaluation.compare import compare
from drpo.evaluation.evaluate import Progress, evaluate
from drpo.evaluation.plan import plan_images
from drpo.evaluation.result import EvaluationResult
from drpo.evaluation.summary import write_comparison
from drpo.generators.base import OneStepGenerator
from drpo.training.build import build_generator
from drpo.training.files import replace_folder, storing, write_text
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
        """Writes `save_scores` and `save_pictures`."""
        self.save_scores(run_dir)
        self.save_pictures(run_dir)

    def save_scores(self, run_dir: Path) -> None:
        """Writes the scores of every image to evaluation.jsonl, and the comparison to evaluation.json.

        A line of evaluation.jsonl has scores under REWARD and metrics under REWARD/METRIC, for example
            {"task": "colors", "prompt": "a red ring", "image": 0, "seed": 7,
             "base": {"geneval": 0.5, "geneval/strict": 0.0}, "tuned": {"geneval": 1.0, "geneval/strict": 1.0}}

        Raises:
            StorageError: they could not be written.
        """
        lines = []
        for base, tuned in zip(self.base.images, self.tuned.images, strict=True):
            plan = base.planned
            line = {"task": plan.record.task, "prompt": plan.record.prompt, "image": plan.number, "seed": plan.seed}
            lines.append(json.dumps({**line, "base": base.rewards, "tuned": tuned.rewards}))
        with storing(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / SCORES_FILE, "\n".join(lines) + "\n")
        write_comparison(run_dir, self.comparison)

    def save_pictures(self, run_dir: Path) -> None:
        """Writes the example pictures to samples/, as lossless WebP files that index.json describes.

        The name of a file says which task and prompt it is of by their numbers. What follows is for readers: no part of
        it is taken as it is, because a task may have any name.

        Raises:
            StorageError: they could not be written. Earlier ones are unchanged.
        """
        index: list[dict[str, Any]] = []
        numbers = {task: number for number, task in enumerate(self.base.task_means())}
        counts = dict.fromkeys(numbers, 0)
        with replace_folder(run_dir / SAMPLES) as folder:
            for kept in [*(run_dir / SAMPLES).glob("step-*.png"), *(run_dir / SAMPLES).glob("grid.json")]:
                shutil.copy2(kept, folder)  # pictures from during the training
            for before, after in zip(self.base.images, self.tuned.images, strict=True):
                if before.picture_HWC is None or after.picture_HWC is None:
                    continue
                record = before.planned.record
                slug = re.sub(r"[^a-z0-9]+", "-", record.task.lower())[:40].strip("-")
                stem = "-".join(filter(None, [f"{numbers[record.task]:02d}", slug, f"{counts[record.task]:02d}"]))
                counts[record.task] += 1
                entry: dict[str, Any] = {"task": record.task, "prompt": record.prompt, "seed": before.planned.seed}
                for side, image, picture in (("base", before, before.picture_HWC), ("tuned", after, after.picture_HWC)):
                    file = f"{stem}-{side}.webp"
                    Image.fromarray(picture).save(folder / file, lossless=True, quality=100)
                    entry[side] = {"file": file, "score": image.score, "reasons": list(image.reasons)}
                index.append(entry)
            write_text(folder / "index.json", json.dumps(index, indent=1) + "\n")


def scoring_rewards(config: Config) -> dict[str, Any]:
    """The arguments `rewards` and `mixture` of `evaluate`: `evaluation.rewards`, or the rewards that rank."""
    if config.evaluation.rewards is not None:
        return {"rewards": dict.fromkeys(config.evaluation.rewards, 1.0), "mixture": None}
    return {"rewards": config.rewards.weights, "mixture": config.rewards.mixture}


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
        adapter: the file or folder of a LoRA adapter or a whole U-Net; None: the adapter in `generator`.
        generator, client, records: None: made from the config.
        device: the device of a generator that is made from the config.
        progress: called with (images scored so far, images of both sides).

    Returns:
        Both sides and their comparison. The comparison has one more entry, "seen_in_training": the number of prompts
        that are also training prompts, which should be 0; None if these are not known.

    Raises:
        ConfigError: `rewards.address` is not set.
        EvaluationError, drpo_rewards.errors.RewardsError: see `drpo.evaluation.evaluate`.
    """
    started = time.perf_counter()
    settings = config.evaluation
    generator = generator if generator is not None else build_generator(config, device=device, adapter=adapter is None)
    if adapter is not None:
        generator.load_adapter(adapter)
    planned = plan_images(
        records if records is not None else load_prompts(config.evaluation_prompts(), section="evaluation"),
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
                **scoring_rewards(config),
                batch_size=settings.batch_size,
                progress=report,
            )

        with generator.reference():
            base = evaluate_side(0)
        tuned = evaluate_side(len(planned))
    comparison = compare(base, tuned)
    evaluated = {image.planned.record.prompt: image.planned.record for image in base.images}
    trained = load_training_prompts(config)
    seen = find_overlap(trained, list(evaluated.values())) if trained is not None else None
    comparison["seen_in_training"] = len(seen) if seen is not None else None
    return AdapterEvaluation(base, tuned, comparison, time.perf_counter() - started)
