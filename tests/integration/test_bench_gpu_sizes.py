"""The networks of the benchmark for one GPU have the public sizes, and fit the loaders. No weights are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bench.gpu import sizes
from bench.gpu.checkpoints import hpsv3_words, judge_words
from support.tiny.clip import write_clip
from support.tiny.hpsv2 import write_hpsv2
from support.tiny.hpsv3 import write_hpsv3
from support.tiny.image_reward import write_image_reward
from support.tiny.qwen3_vl import write_qwen3_vl
from torch import nn

from drpo_rewards import rewards

pytestmark = pytest.mark.thorough


def _write_judge(folder: Path, chosen: Any, sharded: bool) -> None:
    write_qwen3_vl(folder, sharded=sharded, words=judge_words(), sizes=chosen, device="meta")


@pytest.mark.parametrize(
    ("kind", "write", "network", "millions"),
    [
        (
            "pickscore",
            lambda folder: write_clip(folder, sizes=sizes.CLIP_H, hidden_act="gelu", device="meta"),
            lambda reward: reward.clip.model,
            986.1,
        ),
        (
            "clip",
            lambda folder: write_clip(folder, sizes=sizes.CLIP_L, device="meta"),
            lambda reward: reward.clip.model,
            427.6,
        ),
        (
            "hpsv2",
            lambda folder: write_hpsv2(folder, sizes=sizes.HPSV2, device="meta"),
            lambda reward: reward.clip.model,
            986.1,
        ),
        (
            "image_reward",
            lambda folder: write_image_reward(folder, sizes=sizes.IMAGE_REWARD, device="meta"),
            lambda reward: reward.network,
            446.0,
        ),
        (
            "hpsv3",
            lambda folder: write_hpsv3(folder, sizes=sizes.HPSV3, words=hpsv3_words(), device="meta"),
            lambda reward: reward.network,
            7200.0,  # the public one has 545M more: embeddings of words that the bench's prompts do not have
        ),
        (
            "judge",
            lambda folder: _write_judge(folder, sizes.QWEN3_VL_2B, sharded=False),
            lambda reward: reward._backend.network,
            2127.5,
        ),
        (
            "judge",
            lambda folder: _write_judge(folder, sizes.QWEN3_VL_8B, sharded=True),
            lambda reward: reward._backend.network,
            8767.1,
        ),
    ],
)
def test_a_reward_has_the_public_size(
    tmp_path: Path,
    kind: str,
    write: Callable[[Path], Any],
    network: Callable[[Any], nn.Module],
    millions: float,
) -> None:
    write(tmp_path)
    reward = rewards.create(kind, {"model": str(tmp_path)}, headers_only=True)
    assert _millions(network(reward)) == pytest.approx(millions, rel=1e-3)
    on_disk = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
    assert on_disk < 20e6


def test_a_generator_has_the_public_size() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        assert _millions(UNet2DConditionModel(**sizes.SD_TURBO.unet)) == pytest.approx(865.9, rel=1e-4)
        assert _millions(UNet2DConditionModel(**sizes.SDXL_TURBO.unet)) == pytest.approx(2567.5, rel=1e-4)
        assert _millions(AutoencoderKL(**sizes.SD_TURBO.vae)) == pytest.approx(83.65, rel=1e-3)
        assert _millions(CLIPTextModel(CLIPTextConfig(**sizes.SD_TURBO.texts[0]))) == pytest.approx(340.4, rel=1e-3)
        first, second = (CLIPTextConfig(**text) for text in sizes.SDXL_TURBO.texts)
        assert _millions(CLIPTextModel(first)) == pytest.approx(123.1, rel=1e-3)
        assert _millions(CLIPTextModelWithProjection(second)) == pytest.approx(694.7, rel=1e-3)


def test_the_latent_mae_has_the_public_size() -> None:
    from drpo.method.features.latent_mae import LatentMAE
    from drpo.method.features.latent_mae_network import LatentMAEConfig

    with torch.device("meta"):
        assert _millions(LatentMAE(LatentMAEConfig(**sizes.MAE))) == pytest.approx(340.0, rel=0.02)


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
