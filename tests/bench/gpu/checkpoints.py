"""Files of random weights in the sizes of the public models, for the loaders that read the public files.

A network that no other process needs is written as a file with a hole (see `support.tiny.random_weights`), loaded,
and filled at random on its device. So 8 billion parameters need no disk and no minutes of random numbers on a CPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bench.gpu import sizes
from bench.gpu.measure import Bench
from support.tiny.clip import write_tokenizer
from torch import nn

from drpo_rewards.rewards.hpsv3 import HPSv3

PROMPT = "a photo of two red circles left of a blue square, on a wooden table in the morning light"


def once(folder: Path, write: Callable[[Path], Any]) -> Path:
    """Writes a folder, unless an earlier part has written it."""
    done = folder / "complete"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        done.touch()
    return folder


@contextmanager
def new_modules(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Within this block new modules are initialised on the device, with this dtype."""
    earlier = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(earlier)


@torch.no_grad()
def fill_at_random(*modules: nn.Module) -> None:
    """Fills the parameters in place: matrices with deviation 1 / sqrt(inputs), norms with 1, biases with 0."""
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def generator_folder(bench: Bench, kind: str) -> Path:
    """A diffusers folder of `sd_turbo` or `sdxl_turbo`."""
    chosen = {
        ("sd_turbo", False): sizes.SD_TURBO,
        ("sd_turbo", True): sizes.SMALL_SD_TURBO,
        ("sdxl_turbo", False): sizes.SDXL_TURBO,
        ("sdxl_turbo", True): sizes.SMALL_SDXL_TURBO,
    }[kind, bench.small]
    return once(bench.scratch / kind, lambda folder: _write_pipeline(folder, chosen, bench))


def _write_pipeline(folder: Path, chosen: sizes.PipelineSizes, bench: Bench) -> None:
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    write_tokenizer(folder / "words")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "words")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    with new_modules(bench.device, bench.dtype):
        unet, vae = UNet2DConditionModel(**chosen.unet), AutoencoderKL(**chosen.vae)
        configs = [CLIPTextConfig(**text, **ends, pad_token_id=tokenizer.pad_token_id) for text in chosen.texts]
        text_encoder = CLIPTextModel(configs[0])
        more_texts = [CLIPTextModelWithProjection(config) for config in configs[1:]]
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    noise |= {"timestep_spacing": "trailing", "prediction_type": "epsilon"}
    parts = {"unet": unet, "vae": vae, "tokenizer": tokenizer, "text_encoder": text_encoder}
    pipeline: Any
    if more_texts:
        more = {"text_encoder_2": more_texts[0], "tokenizer_2": tokenizer, "add_watermarker": False}
        pipeline = StableDiffusionXLPipeline(**parts, **more, scheduler=EulerAncestralDiscreteScheduler(**noise))
    else:
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = StableDiffusionPipeline(**parts, **none, scheduler=EulerDiscreteScheduler(**noise))
    pipeline.save_pretrained(folder)


def latent_mae_folder(bench: Bench) -> Path:
    """The folder of a latent-MAE: the encoder of the public one with 340M parameters, or a small one."""
    from drpo.method.features.latent_mae_model import LatentMAE
    from drpo.method.features.latent_mae_network import LatentMAEConfig

    def write(folder: Path) -> None:
        with torch.device(bench.device):
            LatentMAE(LatentMAEConfig(**(sizes.SMALL_MAE if bench.small else sizes.MAE))).save(folder)

    return once(bench.scratch / "latent_mae", write)


def latent_mae_keys(bench: Bench) -> list[str]:
    """The six keys of the last stage, as in the authors' launch script; the global ones only, if it is small."""
    layer = f"layer{len((sizes.SMALL_MAE if bench.small else sizes.MAE)['widths'])}"
    suffixes = ("mean", "std") if bench.small else ("mean", "std", "mean_2", "std_2", "mean_4", "std_4")
    return [f"{layer}_{suffix}" for suffix in suffixes]


def pickscore_folder(bench: Bench) -> Path:
    """A PickScore with written random weights, because the service loads it in other processes."""
    from support.tiny.clip import ClipSizes, write_clip

    chosen = ClipSizes() if bench.small else sizes.CLIP_H
    return once(
        bench.scratch / "pickscore",
        lambda folder: write_clip(folder, sizes=chosen, hidden_act="gelu", device=bench.device),
    )


def hpsv3_words() -> list[str]:
    """The words of HPSv3's instruction as tokens, so that it has about as many tokens as with the public tokenizer."""
    from drpo_rewards.rewards import hpsv3

    return _words((Path(hpsv3.__file__).parent / "hpsv3_instruction.txt").read_text())


def judge_words() -> list[str]:
    """The words of the judge's question as tokens."""
    from drpo_rewards.rewards.judge import question

    return _words((Path(question.__file__).parent / "prompt.txt").read_text())


def _words(text: str) -> list[str]:
    return sorted({f" {word}" for word in re.findall(r"[A-Za-z]{2,}", text)})


def load_hpsv3(bench: Bench) -> HPSv3:
    """HPSv3 with random weights on the device."""
    from support.tiny.hpsv3 import TINY, write_hpsv3

    chosen = TINY if bench.small else sizes.HPSV3
    folder = once(
        bench.scratch / "hpsv3",
        lambda folder: write_hpsv3(folder, sizes=chosen, words=hpsv3_words(), device="meta"),
    )
    reward = HPSv3(str(folder))
    fill_at_random(reward.network, reward.head)
    return reward
