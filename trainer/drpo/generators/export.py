"""Write an adapter for other programs, and a whole pipeline with the adapter in its weights.

diffusers   a folder for `pipeline.load_lora_weights`
peft        a folder for `PeftModel.from_pretrained`, with adapter_config.json
kohya       one file with the names and alphas that ComfyUI, A1111 and kohya's scripts read
merged      a folder for `DiffusionPipeline.from_pretrained`, without any adapter
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from safetensors.torch import save_file
from torch import Tensor

from drpo.errors import ConfigError
from drpo.generators.adapter import LoraAdapter
from drpo.generators.adapter_file import LayerUpdate
from drpo.generators.loading import load_pipeline, no_progress_bars
from drpo.generators.one_step import OneStepPipeline
from drpo.generators.whole import WholeUNet

ExportFormat = Literal["diffusers", "peft", "kohya", "merged"]


def export_adapter(generator: OneStepPipeline, form: ExportFormat, out: Path) -> None:
    """Writes the adapter of a generator in the form of another program, with the strength that it has here.

    Args:
        generator: with its adapter loaded.
        form: any of the forms but "merged".
        out: the folder; with "kohya" the file.

    Raises:
        ConfigError: the generator's adapter is a whole U-Net, which only "diffusers" can hold.
    """
    adapter = generator.adapter
    if form == "diffusers":
        adapter.save(out)
        return
    if not isinstance(adapter, LoraAdapter):
        raise ConfigError(f"a whole U-Net is no adapter, so it cannot be written as {form}: use diffusers or merged")
    updates = adapter.updates()
    if form == "kohya":
        out.parent.mkdir(parents=True, exist_ok=True)
        state, header = _to_kohya(updates)
        save_file(state, out, header)
    else:
        out.mkdir(parents=True, exist_ok=True)
        save_file(_name_factors(updates, "base_model.model."), out / "adapter_model.safetensors", {"format": "pt"})
        adapter.peft_config().save_pretrained(str(out))


def export_merged(generator: OneStepPipeline, out: Path, *, source: str, **loading: Any) -> None:
    """Writes the whole pipeline, with what the adapter adds in the weights of the U-Net.

    Args:
        generator: with its adapter loaded.
        out: the folder.
        source: the diffusers folder or hub id that the generator was loaded from.
        loading: `dtype`, `variant` and `vae` as it was loaded with; see `drpo.generators.loading.load_pipeline`.
    """
    with no_progress_bars():
        pipeline = load_pipeline(source, generator.requirements.pipeline_class, **loading)
    weights = dict(pipeline.unet.named_parameters())
    adapter = generator.adapter
    with torch.no_grad():
        if isinstance(adapter, WholeUNet):
            for name, weight in adapter.state().items():
                weights[name].copy_(weight)
        else:
            # the base may be another U-Net than the pipeline's, see `model.unet`
            for name, weight in adapter.base_weights().items():
                weights[name].copy_(weight)
            for layer, update in adapter.updates().items():
                weight = weights[f"{layer}.weight"]
                weight.copy_(weight.float() + _product(update).reshape(weight.shape))
    pipeline.save_pretrained(out)


def _product(update: LayerUpdate) -> Tensor:
    """What the update adds to the layer's weight, (outputs, inputs * height * width)."""
    return update.alpha / update.rank * (update.up.flatten(1) @ update.down.flatten(1))


def _name_factors(updates: dict[str, LayerUpdate], prefix: str) -> dict[str, Tensor]:
    """The factors by peft's names, after a prefix."""
    factors = {f"{prefix}{layer}.lora_A.weight": one.down.contiguous() for layer, one in updates.items()}
    return factors | {f"{prefix}{layer}.lora_B.weight": one.up.contiguous() for layer, one in updates.items()}


def _to_kohya(updates: dict[str, LayerUpdate]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by kohya's names with their alphas, and what its scripts write into the header."""
    state = convert_state_dict_to_kohya(_name_factors(updates, "unet."))
    for layer, update in updates.items():  # diffusers writes the rank, which is right for an unscaled update only
        state[f"lora_unet_{layer.replace('.', '_')}.alpha"] = torch.tensor(update.alpha)
    ranks, alphas = ({getattr(one, name) for one in updates.values()} for name in ("rank", "alpha"))
    header = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
    }
    return state, header
