"""Exported adapters change stock diffusers and peft as they change this project's generator, in both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from support.stock import World, our_latents, stock_images
from torch import Tensor

from drpo.config import LoraConfig
from drpo.errors import ConfigError
from drpo.generators import OneStepGenerator
from drpo.generators.export import export_adapter, export_merged

LORA = LoraConfig(rank=3, alpha=5, target_modules=("to_q", "to_out.0", "ff.net.0.proj", "conv1"))


@pytest.fixture(scope="module")
def generator(world: World) -> OneStepGenerator:
    """With an adapter as after training, whose strength is not its rank."""
    torch.manual_seed(0)
    generator = world.load(lora=LORA)
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return generator


@pytest.fixture(scope="module")
def expected(generator: OneStepGenerator) -> Tensor:
    with torch.no_grad():
        latents = our_latents(generator)
        with generator.reference():
            assert (our_latents(generator) - latents).abs().max() > 0.05  # the adapter matters
    return latents


def stock_latents(pipeline: object) -> Tensor:
    return torch.as_tensor(stock_images(pipeline, output_type="latent"))


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_stock_diffusers_loads_it_with_the_same_pictures(
    world: World, generator: OneStepGenerator, expected: Tensor, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "lora.safetensors" if form == "kohya" else tmp_path / "lora"
    export_adapter(generator, form, out)
    torch.testing.assert_close(stock_latents(world.stock(out)), expected, atol=1e-4, rtol=1e-4)


def test_the_names_and_alphas_of_kohya(generator: OneStepGenerator, tmp_path: Path) -> None:
    """The names by which ComfyUI and A1111 look a layer up: its name in diffusers, with underscores."""
    export_adapter(generator, "kohya", tmp_path / "lora.safetensors")
    tensors = load_file(tmp_path / "lora.safetensors")
    layers = generator.adapter.updates()
    assert any(".ff.net.0.proj" in layer for layer in layers)
    assert any(layer.endswith("conv1") for layer in layers)
    names = {f"lora_unet_{layer.replace('.', '_')}" for layer in layers}
    parts = ("alpha", "lora_down.weight", "lora_up.weight")
    assert set(tensors) == {f"{name}.{part}" for name in names for part in parts}
    assert all(float(tensors[f"{name}.alpha"]) == pytest.approx(5) for name in names)
    assert all(len(tensors[f"{name}.lora_down.weight"]) == 3 for name in names)
    with safe_open(tmp_path / "lora.safetensors", framework="pt") as file:
        assert file.metadata()["ss_network_dim"] == "3"


def test_peft_loads_it_with_the_same_pictures(
    world: World, generator: OneStepGenerator, expected: Tensor, tmp_path: Path
) -> None:
    export_adapter(generator, "peft", tmp_path / "lora")
    pipeline = world.stock()
    pipeline.unet = PeftModel.from_pretrained(pipeline.unet, tmp_path / "lora").merge_and_unload()
    torch.testing.assert_close(stock_latents(pipeline), expected, atol=1e-4, rtol=1e-4)


def test_a_merged_pipeline_draws_the_same_pictures_without_an_adapter(
    world: World, generator: OneStepGenerator, expected: Tensor, tmp_path: Path
) -> None:
    export_merged(generator, tmp_path / "merged", source=str(world.folder), dtype=torch.float32)
    merged = World(tmp_path / "merged", world.stock_class)
    torch.testing.assert_close(stock_latents(merged.stock()), expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(our_latents(merged.load()), expected, atol=1e-4, rtol=1e-4)


def test_a_whole_unet_becomes_a_pipeline_and_no_adapter(world: World, tmp_path: Path) -> None:
    generator = world.load(whole=True)
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.mul_(1.02)
        expected = our_latents(generator)
    export_merged(generator, tmp_path / "merged", source=str(world.folder), dtype=torch.float32)
    merged = World(tmp_path / "merged", world.stock_class)
    torch.testing.assert_close(stock_latents(merged.stock()), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="a whole U-Net is no adapter, so it cannot be written as kohya"):
        export_adapter(generator, "kohya", tmp_path / "lora.safetensors")


@pytest.mark.parametrize("form", ["diffusers", "peft", "kohya"])
def test_every_form_is_read_again_with_its_strength(
    world: World, generator: OneStepGenerator, expected: Tensor, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "lora.safetensors" if form == "kohya" else tmp_path / "lora"
    export_adapter(generator, form, out)
    again = world.load()
    again.load_adapter(out)
    with torch.no_grad():
        torch.testing.assert_close(our_latents(again), expected, atol=1e-5, rtol=1e-5)
