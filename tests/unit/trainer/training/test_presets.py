"""Every preset of the paper on tiny weights in the real layouts: training, an adapter for diffusers, an evaluation.

Only sizes and places are changed; what a preset is about stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from support.local_ranker import LocalClient, LocalRanker
from support.preferences import PROMPTS, write_pickapic
from support.rewards import Redness
from support.tiny.sd_turbo import write_tiny_pipeline
from support.tiny.sdxl_turbo import write_tiny_xl_pipeline
from support.tiny.vision import write_tiny_vit_mae
from test_selection import Parity

from drpo.checks import Plan, make_paths_absolute
from drpo.checks.models import check_models
from drpo.checks.settings import check_settings
from drpo.config import Config, load_config, preset_names
from drpo.data.prompts import PromptRecord
from drpo.evaluation import evaluate_adapter
from drpo.generators import OneStepGenerator
from drpo.method.features.latent_mae_model import LatentMAE
from drpo.method.features.latent_mae_network import LatentMAEConfig
from drpo.training.build import build_feature_map, build_generator, build_objective
from drpo.training.encoding import encode_preferences
from drpo.training.offline import OfflineSupervision
from drpo.training.ranking import BackgroundRanker
from drpo.training.trainer import DrPOTrainer

PAPER = [name for name in preset_names() if name.startswith(("sd-turbo-", "sdxl-turbo-"))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presets")
    write_tiny_pipeline(folder / "sd-turbo")
    write_tiny_xl_pipeline(folder / "sdxl-turbo")
    write_tiny_vit_mae(folder / "image_mae", layers=12)
    for name in ("sd-turbo", "sdxl-turbo"):  # as large as the poolings of the public models need
        config = folder / name / "unet" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 16}))
    LatentMAE(LatentMAEConfig(widths=(4, 4, 4, 4), blocks=(3, 4, 6, 3), norm_groups=2)).save(folder / "latent_mae")
    write_pickapic(folder / "pickapic")
    (folder / "train.txt").write_text("\n".join(PROMPTS[:2]))
    (folder / "test.txt").write_text("a blue triangle\n")
    return folder


def tiny(name: str, files: Path) -> Config:
    """A preset with tiny files and few images."""
    config = load_config(name)
    changes = {
        "model.generator": files / config.model.generator.partition("/")[2],
        "features.path": None if config.features.path is None else files / config.features.name,
        "prompts.source": "file",
        "prompts.path": files / "train.txt",
        "prompts.split": "train",
        "prompts.tasks": None,
        "evaluation.source": "file",
        "evaluation.path": files / "test.txt",
        "evaluation.tasks": None,
        "evaluation.images_per_prompt": 2,
        "training.steps": 2,
        "training.groups_per_step": 1,
        "training.candidates": 4,
        "training.pairs": 2,
        "training.num_workers": 1,
        "training.use_gpu": False,
    }
    overrides = [f"{key}={'null' if value is None else value}" for key, value in changes.items()]
    if config.offline is not None:
        overrides += [f"offline.path={files / 'pickapic'}", f"offline.cache={files / 'latents'}"]
    if config.training.selection == "rollouts":
        overrides.append("training.rollouts={rounds: 8, supports: 1, keep: 2}")
    return make_paths_absolute(load_config(name, overrides))


@contextmanager
def supervise(config: Config, generator: OneStepGenerator) -> Iterator[BackgroundRanker | OfflineSupervision]:
    """What says which images are better: given preferences, or a reward in this process."""
    if config.offline is not None:
        yield OfflineSupervision(encode_preferences(config, generator), config.offline, generator)
        return
    reward = Parity() if config.training.selection == "rollouts" else Redness()
    with BackgroundRanker(lambda: LocalRanker("reward", reward, config.rewards.normalize or "zscore")) as ranker:
        yield ranker


@pytest.mark.thorough
@pytest.mark.parametrize("name", PAPER)
def test_a_preset_trains_and_is_evaluated(name: str, files: Path, tmp_path: Path) -> None:
    config = tiny(name, files)
    plan = Plan(config)
    assert not [one for check in (check_models, check_settings) for one in check(plan) if one.state == "wrong"]
    torch.manual_seed(0)
    generator, objective = build_generator(config), build_objective(config)
    feature_map = build_feature_map(config, objective, generator)
    before = generator.adapter.state()
    with supervise(config, generator) as supervision:
        trainer = DrPOTrainer(generator, feature_map, objective, supervision, config.training, config.optimizer)
        for prompt in PROMPTS[:2]:
            line = trainer.run_step([PromptRecord(prompt)])
            assert (line["groups"], line["groups_dropped"]) == (1, 0)
    assert trainer.step == 2
    assert any(not torch.equal(one, before[key]) for key, one in generator.adapter.state().items())

    generator.adapter.save(tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(config.model.generator)
    if config.lora is None:
        pipeline.unet = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    else:
        pipeline.load_lora_weights(tmp_path)
        assert pipeline.get_active_adapters()
    pipeline.set_progress_bar_config(disable=True)
    size = generator.image_size[0]
    image = pipeline("a red circle", height=size, width=size, num_inference_steps=1, guidance_scale=0.0).images[0]
    assert image.size == (size, size)

    evaluated = evaluate_adapter(config, tmp_path, client=LocalClient(Redness(), "reward"))
    assert evaluated.comparison["mean"]["images"] == 2
    assert len({one.rewards["reward"] for side in (evaluated.base, evaluated.tuned) for one in side.images}) > 1


def test_what_differs_between_the_runs_of_the_paper() -> None:
    configs = {name: load_config(name) for name in PAPER}
    pickscore = configs["sd-turbo-pickscore"]
    assert (pickscore.training.candidates, pickscore.training.pairs, pickscore.optimizer.lr) == (24, 12, 1e-4)
    hpsv3 = configs["sd-turbo-hpsv3"]
    assert (hpsv3.training.candidates, hpsv3.optimizer.lr, hpsv3.rewards.weights) == (16, 3e-5, {"hpsv3": 1.0})
    assert hpsv3.model == pickscore.model
    mixture = configs["sd-turbo-clip-aesthetic-pickscore"].rewards
    assert (mixture.weights, mixture.normalize) == ({"clip": 1, "aesthetic": 1, "pickscore": 1}, "zscore")
    assert configs["sd-turbo-pickscore-whole"].lora is None
    assert {configs[name].preset for name in PAPER} == set(PAPER)
    teacher = configs["sdxl-turbo-pickscore-teacher"]
    assert (teacher.features.name, teacher.features.path) == ("teacher_unet", None)
    assert teacher.objective.settings["reference_weight"] == 0.25
    for name, config in configs.items():
        if "released" not in name and "whole" not in name and "teacher" not in name:
            assert config.objective.settings["variant"] == "paper"
            assert (config.training.pair_strategy, config.training.selection) == ("random", "pairs")
