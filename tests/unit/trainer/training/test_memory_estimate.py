"""The estimate of a step's memory against what torch's allocator records for the same step on the CPU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from support.tiny.image_reward import write_image_reward

from drpo.checks import Plan
from drpo.checks.memory import check_memory
from drpo.config import Config, load_config
from drpo.training.build import (
    build_feature_map,
    build_generator,
    build_objective,
    build_reward_gradient,
    ranks_candidates,
)
from drpo.training.memory import estimate_memory, run_groups
from drpo.training.sampling import GroupSampler
from drpo.training.views import make_view

DRAFT_REWARD = "objective.reward={type: clip, options: {model: shapes, dtype: float32}, batch_size: 8}"


def measure_step(config: Config, file: Path) -> int:
    """The peak in bytes of what a step of one group allocates, from the allocator's own record."""
    generator, objective = build_generator(config), build_objective(config)
    feature_map = build_feature_map(config, objective, generator)
    for parameter in generator.adapter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training = config.training
    view = make_view(generator, feature_map, decode_again=training.chunk_size is None)
    sampler = GroupSampler(generator, view, objective.needs, training.chunk_size, ranks=ranks_candidates(config))
    noise_KChw = generator.noise(training.candidates, torch.Generator().manual_seed(0))
    conditions = generator.encode_prompts(["a red star"])
    reward = build_reward_gradient(objective, generator)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run_groups(sampler, noise_KChw, conditions, 1, reward)
    profile.export_chrome_trace(str(file))
    events = json.loads(file.read_text())["traceEvents"]
    totals = [event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]"]
    return max(totals) - totals[0]


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("shapes", []),
        ("shapes", ["training.chunk_size=2"]),
        ("shapes", ["model.gradient_checkpointing=true"]),
        ("shapes", ["lora=null"]),
        ("shapes-xl", []),
        ("shapes-draft", ["training.chunk_size=2", DRAFT_REWARD]),  # the reward's own pass is the peak
    ],
)
def test_the_estimate_is_near_what_is_measured(preset: str, changes: list[str], tmp_path: Path) -> None:
    config = load_config(preset, ["training.candidates=8", "training.groups_in_flight=1", *changes])
    estimate = estimate_memory(config)
    assert not estimate.missing
    assert 1 / 1.25 < estimate.step / measure_step(config, tmp_path / "trace.json") < 1.25


def test_weights_and_optimizer_are_counted_exactly() -> None:
    config = load_config("shapes", ["training.candidates=2"])
    generator, objective = build_generator(config), build_objective(config)
    feature_map = build_feature_map(config, objective, generator)
    networks = (generator.unet, generator.vae, generator.text_encoder, feature_map.model)
    estimate = estimate_memory(config)
    assert estimate.weights == sum(4 * one.numel() for network in networks for one in network.parameters())
    assert estimate.optimizer == 3 * sum(4 * one.numel() for one in generator.adapter.parameters())
    averaged = load_config("shapes", ["training.candidates=2", "training.ema.decay=0.99"])
    assert estimate_memory(averaged).optimizer * 3 == estimate.optimizer * 4
    one, two = (load_config("shapes", [f"training.groups_in_flight={count}"]) for count in (1, 2))
    assert estimate_memory(two).step > 1.5 * estimate_memory(one).step  # each keeps its graph


def write_sdxl_configs(folder: Path) -> Path:
    """The sizes of SDXL-Turbo, as its configs name them."""
    sizes = {"sample_size": 64, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048}
    blocks = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    unet = {"down_block_types": blocks, "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
    unet |= {
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
    }
    unet |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True}
    with torch.device("meta"):
        network = UNet2DConditionModel(**sizes, **unet, projection_class_embeddings_input_dim=2816)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            scaling_factor=0.13025,
        )
    network.save_config(folder / "unet")
    vae.save_config(folder / "vae")
    schedule = {"timestep_spacing": "trailing", "beta_schedule": "scaled_linear"}
    EulerAncestralDiscreteScheduler(**schedule).save_config(folder / "scheduler")
    for name, width, layers, inner in (("text_encoder", 768, 12, 3072), ("text_encoder_2", 1280, 32, 5120)):
        text = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner, "projection_dim": width}
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"vocab_size": 49408, **text}))
    index = {"_class_name": "StableDiffusionXLPipeline", "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.thorough
def test_sdxl_turbo_is_estimated_from_its_configs_alone(tmp_path: Path) -> None:
    changes = [f"model.generator={write_sdxl_configs(tmp_path)}", "features.name=raw_latent", "features.path=null"]
    chunked = estimate_memory(load_config("sdxl-turbo-pickscore", changes))
    assert chunked.weights == pytest.approx(2 * (2567.5e6 + 83.7e6 + 123.1e6 + 694.7e6) + 4 * 23_224_320, rel=0.01)
    assert chunked.optimizer == 3 * 4 * 23_224_320
    whole_graph = estimate_memory(load_config("sdxl-turbo-pickscore", [*changes, "training.chunk_size=null"]))
    assert whole_graph.step > 3 * chunked.step
    more = estimate_memory(load_config("sdxl-turbo-pickscore", [*changes, "training.candidates=48"]))
    assert more.step < 1.2 * chunked.step  # in chunks, a group's size hardly matters
    findings = list(check_memory(Plan(load_config("sdxl-turbo-pickscore", changes))))
    assert [one.state for one in findings] == ["ok"]  # no GPU here: it only says what a step takes
    assert "GiB on each worker's device" in findings[0].named


def test_a_step_that_is_too_large_for_the_card_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the card is made up: this machine may have none."""
    config = load_config("shapes", ["training.use_gpu=true", "training.groups_in_flight=1"])
    needed = estimate_memory(config).total
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    sizes = [needed, needed - 1]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda one: SimpleNamespace(total_memory=sizes[one]))
    [refused] = check_memory(Plan(config))
    assert refused.state == "wrong"
    assert re.fullmatch(
        r"training\.candidates: a step takes about [\d.]+ GiB on each worker's device \(weights .*\), "
        r"but a GPU of this machine has [\d.]+ GiB",
        refused.found,
    )
    assert refused.fix.startswith("lower training.chunk_size")
    sizes[1] = needed
    assert [one.state for one in check_memory(Plan(config))] == ["ok"]
    missing = load_config("sdxl-turbo-pickscore", ["model.generator=nobody/nothing"])
    assert [one.state for one in check_memory(Plan(missing))] == ["skipped"]


def test_the_network_of_a_differentiable_reward_is_counted(tmp_path: Path) -> None:
    """Its weights exactly. What it makes of a picture is in the test above, where that is the step's peak."""
    config = load_config("shapes-draft", ["training.candidates=2"])
    reward = build_reward_gradient(build_objective(config), build_generator(config))
    assert reward is not None
    clip = reward.reward.clip.model  # type: ignore[attr-defined]
    without = estimate_memory(load_config("shapes-dpo", ["training.candidates=2"]))
    # It is counted in the precision that a GPU takes by default, half.
    assert estimate_memory(config).weights - without.weights == sum(2 * one.numel() for one in clip.parameters())
    missing = load_config("shapes-draft", ["objective.reward={type: pickscore, options: {model: nobody/nothing}}"])
    assert "without the reward pickscore (its files are not here yet" in str(estimate_memory(missing))


def test_a_reward_that_reads_numbers_is_counted_by_its_weights(tmp_path: Path) -> None:
    write_image_reward(tmp_path)
    changes = [f"objective.reward={{type: image_reward, options: {{model: {tmp_path}}}}}"]
    estimate = estimate_memory(load_config("shapes-draft", changes))
    assert estimate.missing == ("what the reward image_reward makes of a picture (only its weights are counted)",)
    assert estimate.weights > estimate_memory(load_config("shapes-dpo")).weights
