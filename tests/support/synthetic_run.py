"""The folder of a made-up run, as training and evaluation leave it: rendered scenes, and random scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from drpo.config import load_config
from drpo.data.prompts.record import PromptRecord
from drpo.evaluation import (
    EvaluationResult,
    PlannedImage,
    ScoredImage,
    ShownMetric,
    compare,
    plan_images,
    write_summary,
)
from drpo.evaluation.adapter import AdapterEvaluation
from drpo.shapes.prompts import TASKS, prompts
from drpo.shapes.world import render, sample_scene

CHANCES = {
    "single_object": (0.93, 0.97),
    "two_object": (0.52, 0.81),
    "counting": (0.41, 0.66),
    "colors": (0.71, 0.78),
    "position": (0.34, 0.62),
    "color_attr": (0.22, 0.41),
}
"""For each task, how often base and tuned are right."""


RIGHT = ShownMetric("geneval", "strict", "GenEval's own score", percentage=True)
RAW = ShownMetric("pickscore")


def write_synthetic_run(run_dir: Path, *, metric: ShownMetric = RIGHT, steps: int = 150) -> Path:
    """Writes everything but report.html to `run_dir` and returns it.

    Args:
        metric: a percentage, where an image has 0 or 100; or a reward's raw score, around 21.
        steps: lines of metrics.jsonl.
    """
    config = load_config("shapes", ["run.seed=3"])
    records = [PromptRecord(one.prompt, one.metadata, one.task) for task in TASKS for one in prompts("test", task)]
    planned = plan_images(records, images_per_prompt=2, seed=12345)
    random = np.random.default_rng(0)
    base = _side(planned, 0, metric, random)
    tuned = _side(planned, 1, metric, random)
    AdapterEvaluation(base, tuned, compare(base, tuned) | {"seen_in_training": 0}, 21.0).save(run_dir)
    (run_dir / "config.yaml").write_text(config.to_yaml())
    with (run_dir / "metrics.jsonl").open("w") as lines:
        for step in range(1, steps + 1):
            rise = 1 - np.exp(-step / 60)
            seconds = {"generate": 0.41, "rank_wait": 0.06, "rank": 0.3, "features": 0.13, "backward": 0.42}
            line = {
                "step": step,
                "time_s": 1.1 * step,
                "loss": 1.9 - 0.4 * rise + random.normal(0, 0.08),
                "reward/geneval": 0.62 + 0.17 * rise + random.normal(0, 0.03),
                "metric/geneval/strict": 0.45 + 0.22 * rise + random.normal(0, 0.05),
                "images": 96,
                "images_per_s": 87.0,
                "seconds": {**seconds, "optimizer": 0.02, "total": 1.04},
            }
            lines.write(json.dumps(line) + "\n")
    seconds = {"startup": 27.0, "training": 1.1 * steps, "evaluation": 21.0, "total": 60.0 + 1.1 * steps}
    write_summary(run_dir, config, seconds=seconds)
    return run_dir


def _side(planned: list[PlannedImage], side: int, metric: ShownMetric, random: np.random.Generator) -> EvaluationResult:
    images = []
    for one in planned:
        right = random.random() < CHANCES[one.record.task][side]
        spec = one.record.metadata if right else {"include": [{"class": "ring"}, {"class": "moon"}]}
        assert spec is not None
        picture = render(sample_scene(dict(spec), random), random) if one.example else None
        score = 100.0 * right if metric.percentage else random.normal(21 + 0.5 * side, 0.4)
        reasons = () if right else ("expected another object, found ring, moon",)
        images.append(ScoredImage(one, score, {"geneval": score / 100}, reasons, picture))
    return EvaluationResult(metric, images, 10.0)
