"""Evaluation with a real (tiny, random) generator and the real GenEval reward, but without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.local_ranker import LocalClient
from support.rewards import FailsOn, Redness
from support.tiny.sd_turbo import write_tiny_pipeline

from drpo.config import Config, LoraConfig, parse_config
from drpo.data.prompts.record import PromptRecord
from drpo.errors import ConfigError, EvaluationError
from drpo.evaluation import PlannedImage, evaluate, evaluate_adapter, plan_images, read_summary, write_summary
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.shapes.prompts import TASKS, prompts
from drpo_rewards.errors import RewardsError
from drpo_rewards.rewards.geneval.reward import GenevalReward

RECORDS = [PromptRecord(each.prompt, each.metadata, each.task) for task in TASKS for each in prompts("test", task)[:4]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "generator")


@pytest.fixture(scope="module")
def generator(folder: Path) -> SDTurboGenerator:
    """A generator with an adapter that visibly changes the picture."""
    torch.manual_seed(3)
    generator = SDTurboGenerator.load(folder, lora=LoraConfig(rank=4))
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.normal_(std=0.5)
    return generator


def keys(planned: Sequence[PlannedImage]) -> set[tuple[str, str, int]]:
    return {image.key for image in planned}


def test_the_plan_keeps_its_prompts_and_noises_when_it_grows() -> None:
    small = plan_images(RECORDS, images_per_prompt=1, prompts_per_task=2, seed=7)
    more_images = plan_images(RECORDS, images_per_prompt=3, prompts_per_task=2, seed=7)
    more_prompts = plan_images(RECORDS, images_per_prompt=1, seed=7)
    one_task = plan_images([record for record in RECORDS if record.task == "colors"], images_per_prompt=1, seed=7)
    reordered = plan_images(RECORDS[::-1], images_per_prompt=1, seed=7)
    assert keys(small) <= keys(more_images) & keys(more_prompts)
    assert [image.key for image in one_task] == [image.key for image in more_prompts if image.record.task == "colors"]
    assert keys(reordered) == keys(more_prompts)
    assert len({image.seed for image in more_images}) == len(more_images) == 6 * 2 * 3
    assert not keys(small) & keys(plan_images(RECORDS, seed=8))


def test_the_plan_keeps_pictures_of_the_first_prompts_of_each_task() -> None:
    planned = plan_images(RECORDS, images_per_prompt=2, examples_per_task=3)
    kept = [image for image in planned if image.example]
    assert len(kept) == 3 * len(TASKS)
    assert all(image.number == 0 for image in kept)


def test_scores_belong_to_the_pictures_as_generated_one_by_one(generator: SDTurboGenerator) -> None:
    reward = GenevalReward(score="graded")
    planned = plan_images(RECORDS, images_per_prompt=2, examples_per_task=99)
    result = evaluate(generator, LocalClient(reward), planned, batch_size=10)
    assert result.metric.name == "geneval/strict"
    assert result.metric.percentage
    assert [image.planned for image in result.images] == planned
    assert list(result.task_means()) == list(TASKS)
    for image in result.images[:: len(result.images) // 6]:
        noise = generator.noise(1, torch.Generator().manual_seed(image.planned.seed))
        with torch.no_grad():
            latents = generator.sample(noise, generator.encode_prompts([image.planned.record.prompt]))
        single_HWC = generator.decode(latents)[0]
        assert set(image.rewards) == {"geneval", "geneval/strict", "geneval/graded"}
        assert image.score == 100 * image.rewards["geneval/strict"]
        if image.picture_HWC is not None:  # batches round a little differently
            assert np.abs(image.picture_HWC.astype(int) - single_HWC).max() <= 1


def test_the_shown_metric_can_be_chosen(generator: SDTurboGenerator) -> None:
    planned = plan_images(RECORDS[:2], images_per_prompt=2)
    client = LocalClient(GenevalReward(score="graded"))
    graded = evaluate(generator, client, planned, reward="geneval", metric="graded")
    assert graded.metric.name == "geneval/graded"
    assert [image.score for image in graded.images] == [100 * image.rewards["geneval"] for image in graded.images]
    with pytest.raises(EvaluationError, match=r"evaluation\.metric: .*no metric 'colour'; it declares strict, graded"):
        evaluate(generator, client, planned, metric="colour")


def test_a_reward_without_metrics_is_shown_by_its_score(generator: SDTurboGenerator) -> None:
    result = evaluate(generator, LocalClient(FailsOn(), "fails"), plan_images([PromptRecord("a red ring")]))
    assert (result.metric.name, result.metric.percentage) == ("fails", False)
    assert [image.score for image in result.images] == [image.rewards["fails"] for image in result.images]


def test_a_single_image_is_scored_as_in_a_group(generator: SDTurboGenerator) -> None:
    single = evaluate(
        generator, LocalClient(Redness(), "redness"), plan_images(RECORDS, images_per_prompt=1), batch_size=24
    )
    client = LocalClient(Redness(), "redness")
    grouped = evaluate(generator, client, plan_images(RECORDS, images_per_prompt=5), batch_size=3)
    expected = {image.planned.key: image.rewards["redness"] for image in grouped.images}
    for image in single.images:
        assert image.rewards["redness"] == pytest.approx(expected[image.planned.key], abs=0.5)
    assert {count for _, count in client.requests} == {3, 2}, "five images, sent in requests no larger than a batch"


def test_a_group_without_a_score_ends_the_evaluation(generator: SDTurboGenerator) -> None:
    records = [PromptRecord("a red circle", None, "colors"), PromptRecord("a blue circle", None, "colors")]
    with pytest.raises(RewardsError, match="no score for blue"):
        evaluate(generator, LocalClient(FailsOn()), plan_images(records))
    with pytest.raises(EvaluationError, match="no scores of 'pickscore', only of redness"):
        evaluate(generator, LocalClient(Redness(), "redness"), plan_images(records), reward="pickscore")
    with pytest.raises(EvaluationError, match="plan has no images"):
        evaluate(generator, LocalClient(Redness()), [])
    with pytest.raises(EvaluationError, match="no prompts"):
        plan_images([])


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return parse_config(
        {
            "preset": "tiny",
            "model": {"generator": str(folder)},
            "lora": {"rank": 4},
            "run": {"seed": 5},
            "evaluation": {"images_per_prompt": 2, "prompts_per_task": 3, "split": "validation"},
        }
    )


def test_an_adapter_is_compared_with_its_base_and_the_results_are_written(
    config: Config, generator: SDTurboGenerator, tmp_path: Path
) -> None:
    generator.adapter.save(tmp_path / "adapter")
    calls: list[tuple[int, int]] = []
    evaluated = evaluate_adapter(
        config,
        tmp_path / "adapter",
        client=LocalClient(Redness(), "redness"),  # type: ignore[arg-type]
        progress=lambda done, total: calls.append((done, total)),
    )
    tuned = evaluate(generator, LocalClient(Redness(), "redness"), [image.planned for image in evaluated.tuned.images])
    assert [image.score for image in evaluated.tuned.images] == [image.score for image in tuned.images]
    with generator.reference():
        base = evaluate(
            generator, LocalClient(Redness(), "redness"), [image.planned for image in evaluated.base.images]
        )
    assert [image.score for image in evaluated.base.images] == [image.score for image in base.images]
    assert any(
        not np.array_equal(before.picture_HWC, after.picture_HWC)
        for before, after in zip(evaluated.base.images, evaluated.tuned.images, strict=True)
        if before.picture_HWC is not None and after.picture_HWC is not None
    )
    assert calls[-1] == (72, 72)
    held_out = {each.prompt for each in prompts("validation")}
    assert {image.planned.record.prompt for image in evaluated.base.images} <= held_out

    evaluated.save(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert len(lines) == 36
    assert set(lines[0]) == {"task", "prompt", "image", "seed", "base", "tuned"}
    index = json.loads((tmp_path / "samples" / "index.json").read_text())
    assert len(index) == 18
    picture = np.asarray(Image.open(tmp_path / "samples" / index[0]["tuned"]["file"]).convert("RGB"))
    kept = [image for image in evaluated.tuned.images if image.picture_HWC is not None]
    np.testing.assert_array_equal(picture, kept[0].picture_HWC)

    steps = [{"step": step, "images": 96, "seconds": {"generate": 0.5, "rank": 0.25, "total": 1.0}} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    written = write_summary(tmp_path, config, seconds={"training": 2.0, "total": 9.0})
    assert written == read_summary(tmp_path)
    assert (written["steps"], written["images"], written["seed"], written["preset"]) == (2, 192, 5, "tiny")
    assert written["seconds"] == {"training": 2.0, "total": 9.0, "by_stage": {"generate": 1.0, "rank": 0.5}}
    again = write_summary(tmp_path, config, seconds={"evaluation": 3.0})
    assert again["seconds"] == {**written["seconds"], "evaluation": 3.0}, "a later evaluation keeps the training time"
    assert set(written["tasks"]) == set(TASKS)
    assert set(written["mean"]) == {"base", "tuned", "difference", "ci95", "images", "prompts"}
    assert {"python", "torch", "drpo"} <= set(written["versions"])


def test_an_error_names_what_is_missing(config: Config, generator: SDTurboGenerator, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.address"):
        evaluate_adapter(config, None, generator=generator)
    with pytest.raises(EvaluationError, match=r"has no summary\.json"):
        read_summary(tmp_path)
