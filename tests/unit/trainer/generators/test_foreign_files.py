"""Files in forms of other programs that depend on the layout: kohya's names for SDXL, and peft's for a whole U-Net."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from support.stock import World, our_latents, stock_images
from torch import Tensor

from drpo.errors import ModelLoadError, UnsupportedModelError
from drpo.generators.unet_file import find_unet

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def adapt(unet: UNet2DConditionModel, layers: list[str], alpha: int) -> PeftModel:
    """A U-Net with peft's adapter of rank 4 around its layers, as after training: no factor is 0."""
    torch.manual_seed(1)
    model = get_peft_model(unet, LoraConfig(r=4, lora_alpha=alpha, target_modules=layers))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_kohya_names(model: PeftModel, layers_per_block: int) -> dict[str, Tensor]:
    """The state of an adapter as kohya's scripts write it for SDXL: the original code's numbers of the blocks."""

    def number(match: re.Match[str]) -> str:
        side, block, layer = match[1], int(match[2]), int(match[3])
        if side == "down":
            return f"input_blocks_{block * (layers_per_block + 1) + layer + 1}_1"
        return f"output_blocks_{block * (layers_per_block + 1) + layer}_1"

    state: dict[str, Tensor] = {}
    for name, one in get_peft_model_state_dict(model).items():
        layer, _, factor = name.removeprefix("base_model.model.").rpartition(".lora_")
        layer = re.sub(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", number, layer)
        layer = layer.replace("mid_block.attentions.0", "middle_block_1").replace(".", "_")
        state[f"lora_unet_{layer}.lora_{'down' if factor.startswith('A') else 'up'}.weight"] = one.contiguous()
        state[f"lora_unet_{layer}.alpha"] = torch.tensor(2.0)
    return state


@torch.no_grad()
def test_kohyas_names_for_sdxl(sdxl_turbo: Path, tmp_path: Path) -> None:
    world, file = World(sdxl_turbo, StableDiffusionXLPipeline), tmp_path / "style.safetensors"
    ours = world.load()
    base = our_latents(ours)
    model = adapt(world.stock().unet, ATTENTION, 4)
    state = make_kohya_names(model, model.config["layers_per_block"])
    assert {"input_blocks", "output_blocks", "middle_block"} == {"_".join(name.split("_")[2:4]) for name in state}
    save_file(state, file)
    ours.load_adapter(file)
    stock = world.stock(file)
    theirs = stock_images(stock, output_type="latent")
    assert (our_latents(ours) - base).abs().max() > 0.05
    torch.testing.assert_close(our_latents(ours), theirs, rtol=1e-4, atol=1e-4)

    save_file(state | {"lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}, file)
    with pytest.raises(UnsupportedModelError, match="also changes the text encoder"):
        ours.load_adapter(file)


@torch.no_grad()
def test_a_unet_that_was_saved_with_an_adapter_around_its_layers(world: World, tmp_path: Path) -> None:
    """peft names a layer's own weight `to_q.base_layer.weight`. Linear layers and convolutions, any alpha."""
    model = adapt(world.stock().unet, [*ATTENTION, "conv_in", "conv1"], alpha=6)
    state = {name: one.clone().contiguous() for name, one in model.state_dict().items()}
    model.peft_config["default"].save_pretrained(tmp_path)
    expected = dict(model.merge_and_unload().named_parameters())
    file, settings = tmp_path / "whole.safetensors", tmp_path / "adapter_config.json"
    for prefix in ("base_model.model.", ""):
        save_file({name.replace("base_model.model.", prefix): one for name, one in state.items()}, file)
        assert find_unet(file) is not None
        loaded = world.load()
        loaded.load_adapter(file)
        for name, one in loaded.adapter.state().items():
            torch.testing.assert_close(one, expected[name].data, rtol=1e-5, atol=1e-6)

    magnitudes = {"base_model.model.conv_in.lora_magnitude_vector.default.weight": torch.ones(8)}
    first = next(name for name in state if ".lora_A" in name)
    for changed, words in (
        (state | magnitudes, "is no single plain LoRA: .*lora_magnitude_vector"),
        ({name: one for name, one in state.items() if name != first}, "is damaged at "),
    ):
        save_file(changed, file)
        with pytest.raises(ModelLoadError, match=words):
            loaded.load_adapter(file)
    save_file(state, file)
    settings.write_text('{"r": 0}')
    with pytest.raises(ModelLoadError, match="does not give the adapter's strength"):
        loaded.load_adapter(file)
    settings.unlink()  # then alpha is the rank, as diffusers assumes too
    loaded.load_adapter(file)
    name = "conv_in.weight"
    own = state["base_model.model.conv_in.base_layer.weight"]
    torch.testing.assert_close(loaded.adapter.state()[name] - own, (expected[name] - own) / 1.5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["a.bin", "a.ckpt", "a.pt"])
def test_damaged_pickles_are_called_what_they_are(world: World, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02junk" * 100)
    loaded = world.load()
    message = rf"{name}: it is damaged, or no whole U-Net\. A LoRA adapter must"
    with warnings.catch_warnings(action="error"), pytest.raises(ModelLoadError, match=message):
        loaded.load_adapter(tmp_path / name)
