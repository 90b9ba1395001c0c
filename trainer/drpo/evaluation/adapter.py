"""An adapter against its base, from settings to numbers; all but the start of the ranking service."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from drpo.config import Config
from drpo.data.prompts import PromptRecord, load_prompts
from drpo.errors import ConfigError
from drpo.evaluation.compare import compare
from drpo.evaluation.evaluate import Progress, evaluate, plan
from drpo.evaluation.result import EvaluationResult
from drpo.training.build import build_generator
from drpo_rewards.client import RankingClient

SAMPLES = "samples"
SCORES_FILE = "evaluation.jsonl"


@dataclass(frozen=True)
class AdapterEvaluation:
    """Both sides, their comparison (see `drpo.evaluation.compare`), and the seconds that it took in all."""

    base: EvaluationResult
    tuned: EvaluationResult
    comparison: dict[str, Any]
    seconds: float

    def save(self, run_dir: Path) -> None:
        """Writes every image's scores to evaluation.jsonl, and the example pictures with an index.json to samples/."""
        lines = []
        for base, tuned in zip(self.base.images, self.tuned.images, strict=True):
            shot = base.shot
            line = {"task": shot.record.task, "prompt": shot.record.prompt, "image": shot.number, "seed": shot.seed}
            lines.append(json.dumps({**line, "base": base.rewards, "tuned": tuned.rewards}))
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / SCORES_FILE).write_text("\n".join(lines) + "\n")
        _save_samples(run_dir / SAMPLES, self.base, self.tuned)


def evaluate_adapter(
    config: Config,
    adapter: Path | None,
    *,
    generator: Any = None,
    client: RankingClient | None = None,
    records: list[PromptRecord] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> AdapterEvaluation:
    """Compares an adapter with its base on the prompts of `config.evaluation`, with matched seeds.

    Args:
        config: `rewards.address` names a running service.
        adapter: folder of the adapter; None: as it is in `generator`.
        generator, client, records: what is there already; each is otherwise made from the config.
        device: where a generator made here computes.
        progress: called with the images scored so far and those of both sides together.

    The comparison also says how many of the prompts are training prompts too ("seen_in_training"); none should be.

    Raises:
        ConfigError: no service is named.
        EvaluationError, drpo_rewards.errors.RewardsError: see `drpo.evaluation.evaluate`.
    """
    started = time.perf_counter()
    settings = config.evaluation
    generator = generator if generator is not None else build_generator(config, device=device)
    if adapter is not None:
        generator.load_adapter(adapter)
    shots = plan(
        records if records is not None else evaluation_prompts(config),
        images_per_prompt=settings.images_per_prompt,
        prompts_per_task=settings.prompts_per_task,
        seed=settings.seed,
    )
    own_client = None if client is not None else _client(config)
    asked = {"rewards": config.rewards.weights, "mixture": config.rewards.mixture}
    try:

        def side(done_before: int) -> EvaluationResult:
            def both(done: int, total: int) -> None:
                if progress is not None:
                    progress(done_before + done, 2 * total)

            return evaluate(
                generator,
                client or own_client,  # type: ignore[arg-type]  # one of the two is there
                shots,
                reward=settings.reward,
                batch_size=settings.batch_size,
                progress=both,
                **asked,  # type: ignore[arg-type]
            )

        with generator.reference():
            base = side(0)
        tuned = side(len(shots))
    finally:
        if own_client is not None:
            own_client.close()
    comparison = compare(base, tuned)
    trained = {record.prompt for record in load_prompts(config.prompts)}
    comparison["seen_in_training"] = len({shot.record.prompt for shot in shots} & trained)
    return AdapterEvaluation(base, tuned, comparison, time.perf_counter() - started)


def evaluation_prompts(config: Config) -> list[PromptRecord]:
    """The prompts of `config.evaluation`: its split and file, all else as in `config.prompts`."""
    evaluation = config.evaluation
    change: dict[str, Any] = {"split": evaluation.split, "path": evaluation.path or config.prompts.path}
    return load_prompts(config.prompts.model_copy(update=change))


def _client(config: Config) -> RankingClient:
    rewards = config.rewards
    if rewards.address is None:
        raise ConfigError("rewards.address: start a ranking service first, and give its address")
    api_key = os.environ.get(rewards.api_key_env) if rewards.api_key_env else None
    return RankingClient(rewards.address, api_key=api_key, timeout_s=rewards.timeout_s, retries=rewards.retries)


def _save_samples(folder: Path, base: EvaluationResult, tuned: EvaluationResult) -> None:
    """One lossless WebP a picture, and what each shows in index.json."""
    folder.mkdir(parents=True, exist_ok=True)
    index, places = [], dict.fromkeys(base.task_means(), 0)
    for before, after in zip(base.images, tuned.images, strict=True):
        if before.picture_HWC is None or after.picture_HWC is None:
            continue
        record = before.shot.record
        stem = f"{record.task or 'prompt'}-{places[record.task]:02d}"
        places[record.task] += 1
        entry: dict[str, Any] = {"task": record.task, "prompt": record.prompt, "seed": before.shot.seed}
        for side, image, picture in (("base", before, before.picture_HWC), ("tuned", after, after.picture_HWC)):
            file = f"{stem}-{side}.webp"
            Image.fromarray(picture).save(folder / file, lossless=True, quality=100)
            entry[side] = {"file": file, "score": image.score, "reasons": list(image.reasons)}
        index.append(entry)
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
