"""Read a LoRA file of any origin: the layers that it updates, and how strongly.

    diffusers   unet.LAYER.lora.down.weight            alphas in the file's header, else alpha = rank
    peft        base_model.model.LAYER.lora_A.weight   alphas in adapter_config.json beside the file
    kohya       lora_unet_LAYER.lora_down.weight       lora_unet_LAYER.alpha for each layer, else alpha = rank

Rank and alpha may differ from layer to layer. Files of another kind than LoRA are refused by the name of their kind.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from drpo.errors import ModelLoadError, UnsupportedModelError
from drpo.generators.loading import PICKLES

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
_PEFT_WEIGHTS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_HEADER_KEY = "lora_adapter_metadata"  # where diffusers and peft's settings lie in the header of a safetensors file

_FACTOR = re.compile(r"(.+)\.lora_(A|B|down|up)(?:\.default)?\.weight")
_PREFIXES = re.compile(r"^(base_model\.model\.|unet\.)+")
_TEXT_ENCODER = re.compile(r"(?:base_model\.model\.)?(?:text_encoder|lora_te)")
_KINDS = {
    "dora_scale|lora_magnitude_vector": "DoRA",
    "hada_w|hada_t": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "ia3_|on_input": "(IA)^3",
    "lora_mid": "LoCon with a Tucker decomposition",
    "vera_": "VeRA",
    r"\.diff(_b)?$": "differences of whole weights",
    "bias$": "LoRA with biases",
}
"""The kinds of adapters that are refused, by a pattern in the name of one of their tensors."""

_KEEPS_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""The values of peft's `init_lora_weights` that leave the base as it is. The others subtract something from it."""


@dataclass(frozen=True)
class LayerUpdate:
    """The update of one layer: alpha / rank * up @ down, in float32.

    Attributes:
        down: (rank, inputs), or (rank, inputs, height, width) for a convolution.
        up: (outputs, rank), or (outputs, rank, 1, 1) for a convolution.
        alpha: the strength; if it equals the rank, the update is added unscaled.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def find_adapter_file(path: Path) -> Path | None:
    """The adapter's file: `path` itself, or the one in that folder; None if there is none.

    Raises:
        ModelLoadError: the folder has several, and none has the name that diffusers or peft gives it.
    """
    if path.is_file():
        return path
    found = {file.name: file for file in sorted(path.glob("*.safetensors"))}
    if usual := next((found[name] for name in (WEIGHTS_FILE, _PEFT_WEIGHTS) if name in found), None):
        return usual
    if len(found) > 1:
        raise ModelLoadError(f"{path} has several .safetensors files ({', '.join(found)}): give the adapter's file")
    return next(iter(found.values()), None)


def read_adapter(path: Path, unet: nn.Module) -> dict[str, LayerUpdate]:
    """The updates in an adapter's file or folder, by the name of the U-Net's layer.

    Raises:
        ModelLoadError: there is no such file, it is damaged, or not every update in it fits a layer of the U-Net.
        UnsupportedModelError: it is of another kind than LoRA, or it also changes the text encoder.
    """
    file = find_adapter_file(path)
    if file is None:
        raise ModelLoadError(
            f"there is no adapter in {path}: give a folder with {WEIGHTS_FILE}, or a .safetensors file"
        )
    tensors, header = _read_tensors(file)
    factors, alphas = _sort_tensors(file, tensors)
    settings = _read_settings(file, header, tensors)
    layers = _find_layers(unet)
    names = {name for name, _ in factors} | alphas.keys()
    layer_of = _name_layers(names, layers, unet)
    updates: dict[str, LayerUpdate] = {}
    unmatched = []
    for name in sorted(names):
        layer, down, up = layer_of.get(name), factors.get((name, "down")), factors.get((name, "up"))
        if layer is None or down is None or up is None:
            unmatched.append(f"{name} ({'no such layer' if layer is None else 'a factor is missing'})")
        elif layer in updates:
            unmatched.append(f"{name} (a second update of {layer})")
        elif fitted := _fit(layers[layer], down, up):
            alpha = alphas.get(name)
            updates[layer] = LayerUpdate(*fitted, _find_alpha(settings, layer, len(down)) if alpha is None else alpha)
        else:
            unmatched.append(f"{name} (not of the shape {tuple(up.shape)} x {tuple(down.shape)})")
    if unmatched or not updates:
        raise ModelLoadError(
            f"the adapter {file} is not for this generator: {len(updates)} of its {len(updates) + len(unmatched)} "
            f"layers match the U-Net. Without a match: {_list(unmatched)}. Give the generator that it was trained on"
        )
    broken = [
        name
        for name, one in updates.items()
        if not (one.down.isfinite().all() and one.up.isfinite().all() and math.isfinite(one.alpha))
    ]
    if broken:
        raise ModelLoadError(f"the adapter {file} holds numbers that are not finite: {_list(broken)}")
    return updates


def _read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a file, and the texts in its header."""
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        if file.suffix in PICKLES:  # `find_unet` has looked into it
            raise ModelLoadError(
                f"cannot read {file}: it is damaged, or no whole U-Net. A LoRA adapter must be a .safetensors file"
            ) from error
        raise ModelLoadError(f"cannot read {file}: {error}. It must be a whole .safetensors file") from error


def _sort_tensors(file: Path, tensors: dict[str, Tensor]) -> tuple[dict[tuple[str, str], Tensor], dict[str, float]]:
    """Splits the tensors into factors, by the layer's name in the file and "down" or "up", and alphas, by that name."""
    text = [name for name in tensors if _TEXT_ENCODER.match(name)]
    if text:
        raise UnsupportedModelError(
            f"the adapter {file} also changes the text encoder ({len(text)} of its {len(tensors)} tensors: "
            f"{_list(text)}), which stays frozen here. Use an adapter of the U-Net alone"
        )
    for pattern, kind in _KINDS.items():
        found = [name for name in tensors if re.search(pattern, name)]
        if found:
            raise UnsupportedModelError(
                f"the adapter {file} is of the kind {kind} ({_list(found)}); only plain LoRA is supported. "
                "Convert it, or merge it into the generator with the program that made it"
            )
    factors: dict[tuple[str, str], Tensor] = {}
    alphas: dict[str, float] = {}
    unknown = []
    # diffusers knows the names of its older formats (`processor.to_q_lora.down`) and turns them into peft's.
    for name, tensor in convert_unet_state_dict_to_peft(tensors).items():
        name = _PREFIXES.sub("", name)
        match = _FACTOR.fullmatch(name)
        if match and not tensor.is_floating_point():  # whole numbers would be some program's compression
            unknown.append(name)
        elif match and (key := (match[1], "down" if match[2] in ("A", "down") else "up")) not in factors:
            factors[key] = tensor
        elif name.endswith(".alpha") and tensor.numel() == 1:
            alphas[name.removesuffix(".alpha")] = float(tensor)
        else:
            unknown.append(name)
    if not tensors:
        raise ModelLoadError(f"{file} has no tensors")
    if unknown or not factors:
        raise UnsupportedModelError(
            f"{file} is no LoRA adapter: {len(unknown)} of its {len(tensors)} tensors are of an unknown kind, or there "
            f"twice: {_list(unknown)}"
        )
    return factors, alphas


def _read_settings(file: Path, header: dict[str, str], names: Iterable[str]) -> dict[str, Any] | None:
    """The settings of peft's LoraConfig that belong to a file; None if there are none, which means alpha = rank."""
    beside = file.parent / _PEFT_CONFIG
    if _HEADER_KEY in header:
        source, text = f"the header of {file}", header[_HEADER_KEY]
    elif beside.is_file():
        source, text = str(beside), beside.read_text(encoding="utf-8", errors="replace")
    elif any(name.startswith("base_model.model.") for name in names):
        raise ModelLoadError(
            f"the strength of the adapter {file} is not known: peft writes it to {beside}, which is missing"
        )
    else:
        return None
    try:
        settings = {name.removeprefix("unet."): value for name, value in json.loads(text).items()}
        if settings.get("peft_type", "LORA") != "LORA" or settings.get("use_dora"):
            kind = "DoRA" if settings.get("use_dora") else settings["peft_type"]
            raise UnsupportedModelError(f"{source} is of an adapter of the kind {kind}; only plain LoRA is supported")
        if (start := settings.get("init_lora_weights")) not in _KEEPS_BASE:
            raise UnsupportedModelError(
                f"{source} has init_lora_weights {start!r}, which also changes the base. Save the adapter as plain "
                "LoRA: peft's save_pretrained converts it if path_initial_model_for_weight_conversion is given"
            )
        for pattern, alpha in {**(settings.get("alpha_pattern") or {}), "": settings["lora_alpha"]}.items():
            re.compile(pattern), float(alpha)
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        raise ModelLoadError(f"{source} is not a LoRA config of peft: {type(error).__name__}: {error}") from error
    return settings


def _find_alpha(settings: dict[str, Any] | None, layer: str, rank: int) -> float:
    """The alpha of a layer for the plain scaling alpha / rank, from the settings as peft reads them."""
    if settings is None:
        return float(rank)
    patterns: dict[str, float] = settings.get("alpha_pattern") or {}
    alpha = float(patterns.get(get_pattern_key(list(patterns), layer), settings["lora_alpha"]))
    return alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha


def _find_layers(unet: nn.Module) -> dict[str, nn.Module]:
    """The layers of a U-Net that can have an update. A layer that has one already stands for itself."""
    layers = {name: getattr(module, "base_layer", module) for name, module in unet.named_modules()}
    inner = re.compile(r"\.(base_layer|lora_\w+)(\.|$)")
    return {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not inner.search(name)
    }


def _name_layers(names: set[str], layers: dict[str, nn.Module], unet: nn.Module) -> dict[str, str]:
    """The U-Net's layer for each name of a layer in a file; without those that have none.

    kohya writes the names with underscores, for SDXL with the block numbers of the original code.
    """
    known = {name: name for name in layers} | {f"lora_unet_{name.replace('.', '_')}": name for name in layers}
    found = {name: known[name] for name in names if name in known}
    rest = [name for name in names - found.keys() if re.match("lora_unet_(input|middle|output)_block", name)]
    if rest:  # diffusers knows these numbers, but not how to say which of its names stands for which: mark the tensors
        marks = {name: torch.empty(0) for name in rest}
        state = {f"{name}.lora_down.weight": mark for name, mark in marks.items()}
        state |= {f"{name}.lora_up.weight": torch.empty(0) for name in rest}
        try:
            converted, _ = StableDiffusionPipeline.lora_state_dict(state, unet_config=unet.config)
        except (ValueError, LookupError):
            return found  # no block of any U-Net has such a number
        name_of = {id(tensor): name for name, tensor in convert_unet_state_dict_to_peft(converted).items()}
        theirs = {
            name: name_of[id(mark)].removeprefix("unet.").removesuffix(".lora_A.weight") for name, mark in marks.items()
        }
        found |= {name: layer for name, layer in theirs.items() if layer in layers}
    return found


def _fit(layer: nn.Module, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both factors in the shapes that the layer needs; None if they are of another layer.

    Some programs write the factors of a Linear layer as those of a 1x1 convolution.
    """
    outputs, *inputs = cast(Tensor, layer.weight).shape
    if down.ndim < 2 or up.ndim < 2 or not down.numel():
        return None
    rank = down.shape[0]
    if (down.shape[1], down.numel()) != (inputs[0], rank * math.prod(inputs)):
        return None
    if (*up.shape[:2], up.numel()) != (outputs, rank, outputs * rank):
        return None
    return down.float().reshape(rank, *inputs), up.float().reshape(outputs, rank, *[1] * (len(inputs) - 1))


def _list(names: list[str]) -> str:
    """The first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
