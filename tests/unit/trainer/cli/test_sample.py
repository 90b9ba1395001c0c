"""`drpo sample`: which adapter, which generator, and the same pictures as in stock diffusers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file
from support.tiny.sd_turbo import write_tiny_pipeline

from drpo.checks import make_paths_absolute
from drpo.cli.sample import choose_config, load_with_adapter, sample
from drpo.config import load_config
from drpo.errors import ConfigError, ModelLoadError
from drpo.generators import OneStepGenerator
from drpo.shapes.assets import generator_path
from drpo.training.run_folder import ADAPTER, locate_adapter

PROMPT = "a red star above a blue ring"


@pytest.fixture(scope="module")
def other_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("generators") / "other")


def test_the_pictures_are_those_of_stock_diffusers(run: Path, tmp_path: Path) -> None:
    """The folder in the package loads without further arguments, as the README prints it."""
    pipeline = StableDiffusionPipeline.from_pretrained(generator_path())
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for adapter in (None, run / ADAPTER):
        sample([PROMPT], adapter=adapter, generator=None, count=2, seed=7, out=tmp_path / "out.png", device="cpu")
        if adapter is not None:
            pipeline.load_lora_weights(adapter)
        theirs = pipeline(
            PROMPT,
            num_inference_steps=1,
            guidance_scale=0.0,
            num_images_per_prompt=2,
            generator=torch.Generator().manual_seed(7),
        ).images
        pictures.append(np.asarray(Image.open(tmp_path / "out.png")).astype(int))
        difference = np.abs(pictures[-1] - np.concatenate([np.asarray(image) for image in theirs], axis=1))
        assert difference.max() <= 1  # torch takes other kernels for weights that could be trained
        assert (difference > 0).mean() < 0.001
    assert np.abs(pictures[0] - pictures[1]).max() > 20


def test_an_adapter_is_found_in_a_run_a_folder_or_a_file(run: Path, tmp_path: Path) -> None:
    file = run / ADAPTER / "pytorch_lora_weights.safetensors"
    assert locate_adapter(run) == locate_adapter(run / ADAPTER) == locate_adapter(file) == file
    for nothing in (tmp_path, tmp_path / "none", tmp_path / "none.safetensors"):
        with pytest.raises(ConfigError, match="there is neither a LoRA adapter nor a U-Net"):
            locate_adapter(nothing)


def test_a_run_is_found_by_its_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRPO_SITE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(run.parent)
    assert locate_adapter(Path(run.name)) == run / ADAPTER / "pytorch_lora_weights.safetensors"
    config = make_paths_absolute(load_config("shapes", [f"lora.adapter={run.name}", f"model.unet={run.name}"]))
    assert config.lora is not None
    assert config.lora.adapter == config.model.unet == str(tmp_path / "runs" / run.name)  # workers run in other folders


def load(adapter: Path | None, generator: str | None) -> OneStepGenerator:
    file, config = choose_config(adapter, generator)
    return load_with_adapter(config, file)


def test_somebody_elses_config_near_an_adapter_is_not_read(run: Path, tmp_path: Path) -> None:
    weights = (run / ADAPTER / "pytorch_lora_weights.safetensors").read_bytes()
    for place in ("styles", "adapter", "checkpoints/step-1/adapter"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "style.safetensors").write_bytes(weights)
        (tmp_path / "config.yaml").write_text("\tthis: is not YAML")
        model = load(folder, None)
        assert model.adapter.state()
        assert model.image_size == (64, 64)


def test_the_option_generator_always_wins(run: Path, other_generator: Path) -> None:
    assert load(None, str(other_generator)).unet.config.block_out_channels == [16, 32]
    with pytest.raises(ModelLoadError, match=r"0 of its \d+ layers match|of its \d+ layers match the U-Net"):
        load(run, str(other_generator))
    (run / "config.yaml").rename(run / "kept.yaml")
    try:
        (run / "config.yaml").write_text("preset: shapes\nlora: {rang: 3}\nobjective: {}\nrewards: {}\n")
        with pytest.raises(ConfigError, match=r"lora\.rang"):
            load(run, None)
        assert load(run, "shapes").adapter.state()
    finally:
        (run / "kept.yaml").rename(run / "config.yaml")


def test_a_kohya_file_is_applied_with_its_own_strength(run: Path, tmp_path: Path) -> None:
    """CASES: alpha 4 and rank 16, which is a quarter of the strength of the same factors without an alpha."""
    torch.manual_seed(0)
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{layer}.lora_down.weight": torch.randn(16, 96), f"{layer}.lora_up.weight": torch.randn(96, 16)}
    save_file(factors | {f"{layer}.alpha": torch.tensor(4.0)}, tmp_path / "quarter.safetensors")
    factors[f"{layer}.lora_up.weight"] = factors[f"{layer}.lora_up.weight"] / 4
    save_file(factors, tmp_path / "same.safetensors")
    pictures = []
    for name in ("quarter.safetensors", "same.safetensors"):
        sample([PROMPT], adapter=tmp_path / name, generator=None, count=1, seed=0, out=tmp_path / "a.png", device="cpu")
        pictures.append(np.asarray(Image.open(tmp_path / "a.png")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
