"""Evaluation during training, with a real (tiny) trainer and a real reward in this process."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.local_ranker import LocalClient
from support.rewards import Redness

from drpo.config import Config, EmaConfig, parse_config
from drpo.data.prompts import PromptRecord
from drpo.evaluation.diversity import measure_diversity
from drpo.evaluation.plan import plan_images
from drpo.method.features import load_feature_map
from drpo.method.features.base import FeatureContext
from drpo.training.best import read_best
from drpo.training.evaluations import read_evaluations
from drpo.training.trainer import DrPOTrainer
from drpo.watching import RunWatch, guards
from drpo.watching.guards import choose_groups

PROMPTS = {"a red circle": "one", "two green squares": "two", "a blue triangle": "one"}


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """Makes the config of a run that is evaluated every two steps; takes settings of `training` and `evaluation`."""
    lines = [json.dumps({"prompt": prompt, "task": task}) for prompt, task in PROMPTS.items()]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))

    def make(training: dict[str, Any] | None = None, **evaluation: Any) -> Config:
        return parse_config(
            {
                "prompts": {"source": "file", "path": str(tmp_path / "prompts.jsonl"), "allow_overlap": True},
                "training": {"steps": 4, **(training or {})},
                "evaluation": {"every": 2, "images_per_prompt": 3, "batch_size": 4, **evaluation},
            }
        )

    return make


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def make_watch(config: Config, run_dir: Path, trainer: DrPOTrainer, client: Any = None) -> RunWatch:
    client = client or LocalClient(Redness(), name="redness")
    return RunWatch(config, run_dir, trainer, load_feature_map("raw_latent"), client)


def train(trainer: DrPOTrainer, watch: RunWatch | None, records: list[PromptRecord], steps: int = 4) -> list[str]:
    """Trains as the loop does, and returns what the watch said."""
    said = [watch.visit(0.0)] if watch is not None else []
    while trainer.step < steps:
        trainer.run_step(records)
        if watch is not None:
            said.append(watch.visit(1.0 * trainer.step))
    return said


def weights(trainer: DrPOTrainer) -> dict[str, torch.Tensor]:
    return trainer.generator.adapter.state()


def test_it_evaluates_from_step_0_on_and_training_stays_the_same_bit_for_bit(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    plain, watched = make_trainer(lr=0.2), make_trainer(lr=0.2, ema=EmaConfig(decay=0.5))
    torch.manual_seed(1)
    train(plain, None, records)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert train(watched, make_watch(config(), run_dir, watched), records) == [""] * 5
    assert torch.equal(torch.rand(3), after)
    assert all(torch.equal(one, weights(watched)[name]) for name, one in weights(plain).items())

    lines = read_evaluations(run_dir / "evaluations.jsonl")
    assert [line["step"] for line in lines] == [0, 2, 4]
    assert all(line["images"] == 2 * 9 and line["seconds"] > 0 for line in lines)
    present = [line["present"] for line in lines]
    assert present[2]["redness"] > present[0]["redness"] + 0.1
    assert present[0]["guard/diversity"] == pytest.approx(1)
    assert present[0]["guard/distance_to_base"] == pytest.approx(0, abs=1e-6)
    assert min(line["guard/distance_to_base"] for line in present[1:]) > 0.1
    # the average follows the weights
    assert lines[0]["averaged"] == present[0]
    assert present[0]["redness"] < lines[2]["averaged"]["redness"] < present[2]["redness"]


def test_its_numbers_are_those_of_the_pictures_generated_one_by_one(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    trainer = make_trainer()
    watch = make_watch(config(), run_dir, trainer)
    train(trainer, watch, records)
    [*_, line] = read_evaluations(run_dir / "evaluations.jsonl")

    generator, feature_map = trainer.generator, load_feature_map("raw_latent")
    redness: dict[str, list[float]] = {"one": [], "two": []}
    diversity: dict[bool, dict[str, list[float]]] = {side: {"one": [], "two": []} for side in (False, True)}
    for prompt, task in PROMPTS.items():
        planned = [image for image in watch._evaluator.planned if image.record.prompt == prompt]
        assert len(planned) == 3
        conditions = generator.encode_prompts([prompt])
        noise = torch.cat([generator.noise(1, torch.Generator().manual_seed(one.seed)) for one in planned])
        with torch.no_grad():
            latents = generator.sample(noise, conditions)
            with generator.reference():
                base = generator.sample(noise, conditions)
        images = generator.decode(latents).astype(float)
        redness[task] += list((images[..., 0] - images[..., 1:].mean(axis=-1)).mean(axis=(1, 2)))
        for side, one in ((True, latents), (False, base)):
            features = feature_map.of_latents(one, FeatureContext(conditions))
            diversity[side][task].append(measure_diversity(features))
    means = {task: np.mean(values) for task, values in redness.items()}
    assert line["present"]["redness"] == pytest.approx(np.mean(list(means.values())), rel=1e-3)
    present, base_diversity = (np.mean([np.mean(one) for one in diversity[side].values()]) for side in (True, False))
    assert line["present"]["guard/diversity"] == pytest.approx(present / base_diversity, rel=1e-4)


def test_the_grid_has_the_same_prompts_and_noises_at_every_step(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    trainer = make_trainer()
    watch = make_watch(config(grid={"count": 2, "images": 4}), run_dir, trainer)  # one more than is evaluated
    train(trainer, watch, records)
    rows = json.loads((run_dir / "samples" / "grid.json").read_text())
    assert {PROMPTS[row["prompt"]] for row in rows} == {"one", "two"}  # of all tasks in turn
    generator = trainer.generator
    height, width = generator.image_size
    for step in (0, 4):
        grid = np.asarray(Image.open(run_dir / "samples" / f"step-{step}.png"))
        assert grid.shape == (2 * height, 4 * width, 3)
    for (number, row), column in itertools.product(enumerate(rows), (1, 3)):
        noise = generator.noise(1, torch.Generator().manual_seed(row["seeds"][column]))
        with torch.no_grad():
            picture = generator.decode(generator.sample(noise, generator.encode_prompts([row["prompt"]])))[0]
        found = grid[number * height : (number + 1) * height, column * width : (column + 1) * width]
        assert np.abs(found.astype(int) - picture).max() <= 1  # batches round differently


class Flaky(LocalClient):
    """Fails in the second evaluation."""

    def rank(self, *arguments: Any, **options: Any) -> Any:
        if len(self.requests) == 4:
            self.requests.append(("", 0))
            raise ConnectionError("the service has gone")
        return super().rank(*arguments, **options)


def test_an_evaluation_that_fails_is_logged_and_does_not_end_the_run(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    trainer = make_trainer()
    assert train(trainer, make_watch(config(), run_dir, trainer, Flaky(Redness(), "redness")), records) == [""] * 5
    lines = read_evaluations(run_dir / "evaluations.jsonl")
    assert [line.get("error") for line in lines] == [None, "ConnectionError: the service has gone", None]
    assert "present" not in lines[1]


def test_the_best_adapter_is_kept(config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]) -> None:
    trainer = make_trainer(lr=0.2)
    watch = make_watch(config(training={"keep_best": "redness"}), run_dir, trainer)
    train(trainer, watch, records, steps=2)
    best = weights(trainer)
    with torch.no_grad():  # a step that spoils everything
        for parameter in trainer.parameters:
            parameter.neg_()
    train(trainer, watch, records, steps=4)
    lines = read_evaluations(run_dir / "evaluations.jsonl")
    values = [line["present"]["redness"] for line in lines]
    assert values[1] > max(values[0], values[2])
    assert [line["best"] for line in lines] == [True, True, False]
    assert read_best(run_dir) == {"step": 2, "metric": "redness", "value": values[1]}
    trainer.generator.load_adapter(run_dir / "adapter-best")
    assert all(torch.equal(one, weights(trainer)[name]) for name, one in best.items())


def test_with_a_lower_distance_to_the_base_being_better_the_first_adapter_is_the_best(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    trainer = make_trainer()
    train(trainer, make_watch(config(training={"keep_best": "guard/distance_to_base"}), run_dir, trainer), records)
    best = read_best(run_dir)
    assert best is not None
    assert best["step"] == 0


def test_a_guard_ends_the_run_with_a_sentence(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    trainer = make_trainer()
    watch = make_watch(config(training={"stop_if": "guard/distance_to_base > 1e-4"}), run_dir, trainer)
    said = train(trainer, watch, records)
    assert said[:2] == ["", ""]
    value = read_evaluations(run_dir / "evaluations.jsonl")[1]["present"]["guard/distance_to_base"]
    assert said[2] == f"guard/distance_to_base is {value:.4g}, above 0.0001 (training.stop_if)"


def test_a_run_that_a_guard_has_ended_ends_again_unless_the_condition_is_another(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    """Such as after a worker was lost between the last checkpoint and the end."""
    trainer, distance = make_trainer(), "guard/distance_to_base"
    stopping = config(training={"stop_if": f"{distance} > 1e-4"})
    [*_, why] = train(trainer, make_watch(stopping, run_dir, trainer), records, steps=2)
    assert why.startswith(distance)
    assert make_watch(stopping, run_dir, trainer).visit(0.0) == why
    assert make_watch(config(training={"stop_if": f"{distance} > 1e9"}), run_dir, trainer).visit(0.0) == ""
    other = config(training={"stop_if": "blueness < 9"})  # of another reward, which has not scored there
    assert make_watch(other, run_dir, trainer).visit(0.0) == ""


def test_a_run_that_has_ended_anyway_is_not_ended_by_its_guard(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    trainer = make_trainer()
    watch = make_watch(config(training={"stop_if": "guard/distance_to_base > 1e-4"}), run_dir, trainer)
    train(trainer, watch, records, steps=1)
    assert watch.visit(1.0, last=True) == ""
    [*_, line] = read_evaluations(run_dir / "evaluations.jsonl")
    assert (line["step"], line.get("stopped")) == (1, None)
    assert line["present"]["guard/distance_to_base"] > 1e-4


def test_guard_metrics_are_of_prompts_of_all_tasks_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [PromptRecord(f"{task} {number}", task=task) for task in ("many", "few") for number in range(9)][:12]
    planned = plan_images(records, images_per_prompt=4)
    monkeypatch.setattr(guards, "MOST_IMAGES", 33)
    chosen = choose_groups(planned)
    assert [[image.number for image in group] for group in chosen] == [[0, 1, 2, 3]] * 8
    assert [group[0].record.task for group in chosen] == ["many", "few"] * 3 + ["many"] * 2
    assert choose_groups(plan_images(records)[:1]) == []


def test_a_resumed_run_evaluates_only_what_is_missing(
    config: Any, run_dir: Path, make_trainer: Any, records: list[PromptRecord]
) -> None:
    settings, client = config(), LocalClient(Redness(), "redness")
    trainer = make_trainer()
    train(trainer, make_watch(settings, run_dir, trainer, client), records)
    whole = (run_dir / "evaluations.jsonl").read_text().splitlines()

    resumed = make_trainer()
    train(resumed, None, records, steps=2)
    watch = make_watch(settings, run_dir, resumed, client)  # the line of step 4 will be made again
    assert (run_dir / "evaluations.jsonl").read_text().splitlines() == whole[:2]
    requests = len(client.requests)
    assert watch.visit(0.0) == ""
    assert len(client.requests) == requests
    train(resumed, watch, records)
    line, expected = (
        json.loads(text) for text in ((run_dir / "evaluations.jsonl").read_text().splitlines()[2], whole[2])
    )
    assert line["present"] == expected["present"]
    watch.visit(0.0, last=True)
    assert len(read_evaluations(run_dir / "evaluations.jsonl")) == 3
