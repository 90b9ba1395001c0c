"""The whole U-Net as what is trained: exact copies, gradients, files of any origin, and the reference beside it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING, convert_ldm_unet_checkpoint
from safetensors.torch import save_file
from support.stock import World, our_latents, stock_images
from torch import Tensor

from drpo.config import LoraConfig
from drpo.errors import ModelLoadError
from drpo.generators import OneStepGenerator, check_adapter, find_adapter
from drpo.generators.unet_file import find_unet


def trained(world: World, **arguments: object) -> OneStepGenerator:
    """A generator with a U-Net as after training: every weight has moved."""
    generator = world.load(whole=True, **arguments)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0.1)
    return generator


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stock_diffusers_draws_the_same_with_the_saved_unet(world: World, tmp_path: Path, dtype: torch.dtype) -> None:
    generator = trained(world)
    generator.adapter.save(tmp_path)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    unet = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet", dtype=dtype)
    pipeline = world.stock(dtype=dtype, unet=unet)
    loaded = world.load(dtype=dtype)
    loaded.load_adapter(tmp_path)
    latents = our_latents(loaded)
    assert torch.equal(latents, stock_images(pipeline, output_type="latent"))
    assert np.array_equal(loaded.decode(latents), stock_images(pipeline, output_type="pil"))
    with loaded.reference():
        base = our_latents(loaded)
    assert torch.equal(base, our_latents(world.load(dtype=dtype)))
    assert (latents - base).abs().max() > 1e-2
    as_base = world.load(dtype=dtype, unet=str(tmp_path))
    assert torch.equal(our_latents(as_base), latents)
    with as_base.reference():
        assert torch.equal(our_latents(as_base), latents)


def test_every_weight_of_the_unet_is_trained_and_nothing_else(world: World) -> None:
    generator = world.load(whole=True)
    latents = our_latents(generator)
    expected = our_latents(world.load())
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)  # torch has other kernels for what is trained
    with generator.reference(), torch.no_grad():  # as in training: between the forward and the backward pass
        our_latents(generator)
    latents.square().mean().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in generator.adapter.parameters())
    assert len(generator.adapter.parameters()) == len(list(generator.unet.parameters()))
    assert not any(one.requires_grad for model in (generator.unet, generator.vae) for one in model.parameters())
    with generator.reference():
        assert not our_latents(generator).requires_grad


def test_weights_are_trained_in_float32_beside_a_half_precision_base(world: World) -> None:
    generator = world.load(whole=True, dtype=torch.bfloat16, gradient_checkpointing=True)
    assert {one.dtype for one in generator.adapter.parameters()} == {torch.float32}
    assert {one.dtype for one in generator.unet.parameters()} == {torch.bfloat16}
    latents = our_latents(generator)
    assert latents.dtype == torch.bfloat16
    torch.testing.assert_close(latents, our_latents(world.load(dtype=torch.bfloat16)), rtol=0.1, atol=0.3)
    latents.float().square().mean().backward()
    assert {one.grad.dtype for one in generator.adapter.parameters()} == {torch.float32}


def test_gradient_checkpointing_gives_the_same_gradient(world: World) -> None:
    found = []
    for checkpointing in (False, True):
        generator = trained(world, gradient_checkpointing=checkpointing)
        found.append(torch.autograd.grad(our_latents(generator).square().mean(), generator.adapter.parameters()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_state_is_restored_in_place(world: World) -> None:
    generator = trained(world)
    parameters, state, before = generator.adapter.parameters(), generator.adapter.state(), our_latents(generator)
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    generator.adapter.load_state(pickle.loads(pickle.dumps(state)))
    assert torch.equal(our_latents(generator), before)
    assert all(a is b for a, b in zip(parameters, generator.adapter.parameters(), strict=True))
    with pytest.raises(ModelLoadError, match="not those of this generator's whole U-Net: 0 of its"):
        generator.adapter.load_state(world.load(lora=LoraConfig(rank=2)).adapter.state())


def test_files_of_other_programs_are_read(world: World, tmp_path: Path) -> None:
    state, loaded = trained(world).adapter.state(), world.load()
    for number, prefix in enumerate(("", "unet.", "model.diffusion_model.", None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if prefix is None:
            torch.save({"state_dict": state}, folder / "some.ckpt")
        else:
            others = {"first_stage_model.conv.weight": torch.ones(2)} if prefix else {}
            named = {prefix + name: one for name, one in state.items()}
            save_file(named | others, folder / "some.safetensors")
        file = next(folder.iterdir())
        check_adapter(file, world.folder)
        assert find_adapter(file) == file
        assert find_adapter(folder) == (file if prefix is not None else None)
        with torch.no_grad():
            for parameter in loaded.adapter.parameters():
                parameter.zero_()
        loaded.load_adapter(file)
        assert all(torch.equal(one, state[name]) for name, one in loaded.adapter.state().items())


def test_the_names_of_the_original_code_are_read(world: World, tmp_path: Path) -> None:
    """A file is made by the inverse of what diffusers does to each name; diffusers' own function then reads it."""
    generator = trained(world)
    state, mark = generator.adapter.state(), DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"]["conv_in.weight"]
    original = to_original_names(state, generator.unet)
    assert mark in original
    assert not original.keys() & {"conv_in.weight"}
    save_file({f"model.diffusion_model.{name}": one for name, one in original.items()}, tmp_path / "a.safetensors")
    loaded = world.load()
    loaded.load_adapter(tmp_path / "a.safetensors")
    assert all(torch.equal(one, state[name]) for name, one in loaded.adapter.state().items())


def to_original_names(state: dict[str, Tensor], unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The state by the names of the original code, found by asking diffusers' converter about every candidate name."""
    prefix = "model.diffusion_model."
    layers = DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"] | DIFFUSERS_TO_LDM_MAPPING["unet"]["addition_embed_type"]
    found = {layers[name]: one for name, one in state.items() if name in layers}
    blocks: list[tuple[str, str]] = []
    number = 1
    for index, down in enumerate(unet.down_blocks):
        for layer in range(len(down.resnets)):
            blocks.append((f"down_blocks.{index}.resnets.{layer}", f"input_blocks.{number}.0"))
            if hasattr(down, "attentions"):
                blocks.append((f"down_blocks.{index}.attentions.{layer}", f"input_blocks.{number}.1"))
            number += 1
        if down.downsamplers:
            blocks.append((f"down_blocks.{index}.downsamplers.0.conv", f"input_blocks.{number}.0.op"))
            number += 1
    for ours, theirs in (("resnets.0", "0"), ("attentions.0", "1"), ("resnets.1", "2")):
        blocks.append((f"mid_block.{ours}", f"middle_block.{theirs}"))
    number = 0
    for index, up in enumerate(unet.up_blocks):
        attends = hasattr(up, "attentions")
        for layer in range(len(up.resnets)):
            blocks.append((f"up_blocks.{index}.resnets.{layer}", f"output_blocks.{number}.0"))
            if attends:
                blocks.append((f"up_blocks.{index}.attentions.{layer}", f"output_blocks.{number}.1"))
            if up.upsamplers and layer == len(up.resnets) - 1:
                blocks.append((f"up_blocks.{index}.upsamplers.0.conv", f"output_blocks.{number}.{1 + attends}.conv"))
            number += 1
    parts = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    for name, one in state.items():
        for ours, theirs in blocks:
            if name.startswith(f"{ours}."):
                rest = name.removeprefix(f"{ours}.")
                if ".resnets." in f".{ours}.":
                    part, _, last = rest.rpartition(".")
                    rest = f"{parts[part]}.{last}"
                found[f"{theirs}.{rest}"] = one
    again = convert_ldm_unet_checkpoint({prefix + name: one for name, one in found.items()}, unet.config)
    assert again.keys() == state.keys()
    return found


def test_what_does_not_fit_is_refused_and_changes_nothing(world: World, tmp_path: Path) -> None:
    state, other = trained(world).adapter.state(), world.load(lora=LoraConfig(rank=2))
    before = our_latents(other).detach()
    cases = [
        (dict(list(state.items())[:-1]), r"1 tensors do not match .*conv_out.bias \(missing\)"),
        (state | {"extra.weight": torch.ones(2)}, r"extra.weight \(no such weight\)"),
        (state | {"conv_in.weight": torch.ones(3, 3)}, r"conv_in.weight \(of the shape \(3, 3\)\)"),
        (state | {"conv_in.bias": state["conv_in.bias"] * float("nan")}, "not finite"),
    ]
    for changed, words in cases:
        save_file(changed, tmp_path / "a.safetensors")
        with pytest.raises(ModelLoadError, match=words):
            other.load_adapter(tmp_path / "a.safetensors")
    with pytest.raises(ModelLoadError, match="not finite"):
        world.load(unet=str(tmp_path / "a.safetensors"))
    assert torch.equal(our_latents(other), before)
    assert other.adapter.parameters()


@torch.no_grad()
def test_adapters_and_unets_replace_each_other(world: World, tmp_path: Path) -> None:
    whole, lora = trained(world), world.load(lora=LoraConfig(rank=2))
    for parameter in lora.adapter.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    whole.adapter.save(tmp_path / "whole")
    lora.adapter.save(tmp_path / "lora")
    generator = world.load()
    for path, expected in ((tmp_path / "lora", lora), (tmp_path / "whole", whole), (tmp_path / "lora", lora)):
        generator.load_adapter(path)
        torch.testing.assert_close(our_latents(generator), our_latents(expected), rtol=1e-4, atol=1e-4)
        with generator.reference():
            assert torch.equal(our_latents(generator), our_latents(world.load()))


def test_shards_a_variant_and_a_whole_pipeline_are_found(world: World, tmp_path: Path) -> None:
    generator = trained(world)
    state = generator.adapter.state()
    generator.adapter.network.save_pretrained(tmp_path / "shards" / "unet", max_shard_size="50KB")
    assert len(list((tmp_path / "shards" / "unet").glob("*.safetensors"))) > 1
    generator.adapter.network.save_pretrained(tmp_path / "half", variant="fp16")
    pipeline = Path(shutil.copytree(world.folder, tmp_path / "pipeline"))
    generator.adapter.save(pipeline)
    run = tmp_path / "run"
    generator.adapter.save(run / "adapter")
    for path in (tmp_path / "shards", tmp_path / "shards" / "unet", tmp_path / "half", pipeline, run, run / "adapter"):
        assert find_unet(path) is not None
        loaded = world.load()
        loaded.load_adapter(path)
        assert all(torch.equal(one, state[name]) for name, one in loaded.adapter.state().items())
    min((tmp_path / "shards" / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(ModelLoadError, match=r"cannot read .*00001-of-"):
        check_adapter(tmp_path / "shards", world.folder)
