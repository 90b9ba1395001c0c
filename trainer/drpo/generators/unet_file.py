"""Read the weights of a whole U-Net of any origin.

diffusers     the folder unet/, or a folder that has it: a pipeline, or the adapter/ of a run with `lora: null`; or
              the folder of such a run
a file        .safetensors, .bin, .pt, .pth or .ckpt with the names of diffusers, also after "unet." or
              "model.diffusion_model.", or with those of the original code of Stable Diffusion
              also the state of a U-Net with peft's adapter around its layers (`to_q.base_layer.weight`)
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors import safe_open
from torch import Tensor, nn

from drpo.errors import ModelLoadError
from drpo.generators.loading import PICKLES, weights_by_variant

FOLDER = "unet"
_OF_RUN = "adapter"  # where a run puts what it has trained
_ORIGINAL = "model.diffusion_model."  # before the names of the original code, which other programs took over
_PREFIXES = (_ORIGINAL, "base_model.model.unet.", "base_model.model.", "unet.", "")
_WRAPPED = ".base_layer."  # in the names of a layer's own weights, where peft has laid an adapter around it
_FACTOR = re.compile(r"(.+)\.lora_(A|B)(?:\.\w+)?\.weight")
_MARKS = ("conv_in.weight", "input_blocks.0.0.weight", "conv_in.base_layer.weight")
"""The first layer of every U-Net, as diffusers and as the original code name it. No LoRA adapter has such a name."""


def find_unet(path: Path) -> Path | None:
    """The file or folder with a whole U-Net: `path` itself, or in that folder; None if it is something else."""
    if path.is_dir():
        folders = [folder for folder in (path / _OF_RUN / FOLDER, path / FOLDER, path) if _find_parts(folder)]
        if folders:
            return folders[0]
        files = list(path.glob("*.safetensors"))
        return files[0] if len(files) == 1 and find_unet(files[0]) else None
    try:
        return path if _find_prefix(_read(path, weights=False)) is not None else None
    except ModelLoadError:
        return None  # whoever reads it as an adapter will say what is wrong


def check_unet(path: Path, unet: UNet2DConditionModel) -> None:
    """Checks that weights fit a U-Net, without loading them.

    Raises:
        ModelLoadError: see `read_unet_weights`.
    """
    _collect(path, unet, weights=False)


def read_unet_weights(path: Path, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The weights by the names that diffusers gives them, on the CPU.

    Args:
        path: what `find_unet` takes.
        unet: the U-Net that they are for; a LoRA adapter on it does not count.

    Raises:
        ModelLoadError: there is no U-Net, it is damaged, it holds numbers that are not finite, or it does not fit.
    """
    state = _collect(path, unet, weights=True)
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ModelLoadError(f"the U-Net in {path} holds numbers that are not finite: {_list(broken)}")
    return state


@torch.no_grad()
def replace_weights(unet: UNet2DConditionModel, path: Path) -> None:
    """Replaces the weights of a U-Net in place by those of a file or folder.

    Raises:
        ModelLoadError: see `read_unet_weights`. Nothing has changed.
    """
    state = read_unet_weights(path, unet)
    for name, parameter in unet.named_parameters():
        parameter.copy_(state[name])


def _collect(path: Path, unet: UNet2DConditionModel, *, weights: bool) -> dict[str, Tensor]:
    """The weights, or without `weights` tensors on the meta device that have only their shapes."""
    found = find_unet(path)
    if found is None:
        raise ModelLoadError(f"there is no U-Net in {path}: give a run's folder, one with unet/, or a file of weights")
    tensors: dict[str, Tensor] = {}
    for file in _find_parts(found) if found.is_dir() else [found]:
        tensors |= _read(file, weights=weights)
    prefix = _find_prefix(tensors)
    state = {name.removeprefix(prefix): one for name, one in tensors.items() if prefix and name.startswith(prefix)}
    state = state or dict(tensors)
    if _MARKS[1] in state:
        try:
            state = convert_ldm_unet_checkpoint({_ORIGINAL + name: one for name, one in state.items()}, unet.config)
        except (LookupError, ValueError) as error:
            raise ModelLoadError(
                f"the U-Net in {found} is of another layout: {type(error).__name__}: {error}"
            ) from error
    if any(_WRAPPED in name for name in state):
        state = _merge_adapter(found, state)
    expected = _names(unet)
    wrong = [f"{name} ({_describe(state, name)})" for name in expected if _shape(state, name) != expected[name]]
    wrong += [f"{name} (no such weight)" for name in state if name not in expected]
    if wrong:
        raise ModelLoadError(
            f"the U-Net in {found} is not for this generator: {len(wrong)} tensors do not match its "
            f"{len(expected)}: {_list(wrong)}. Give the generator that it was trained from"
        )
    return state


def _merge_adapter(found: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a U-Net that was saved with a LoRA adapter around its layers, with the adapter added to them.

    The adapter's strength, alpha / rank, is that of peft's settings beside the file; without such a file it is 1.
    """
    merged = {name.replace(_WRAPPED, "."): one for name, one in state.items() if ".lora_" not in name}
    factors = {match.groups(): one for name, one in state.items() if (match := _FACTOR.fullmatch(name))}
    strength = _read_strength((found if found.is_dir() else found.parent) / "adapter_config.json")
    if len(factors) + len(merged) < len(state):
        others = [name for name in state if ".lora_" in name and not _FACTOR.fullmatch(name)]
        raise ModelLoadError(f"the adapter around the U-Net in {found} is no single plain LoRA: {_list(others)}")
    for layer in dict.fromkeys(layer for layer, _ in factors):
        name = f"{layer}.weight"
        try:
            weight, down, up = merged[name], factors[layer, "A"], factors[layer, "B"]
            update = up.float().flatten(1) @ down.float().flatten(1)
            merged[name] = (weight.float() + strength * update.reshape(weight.shape)).to(weight.dtype)
        except (LookupError, RuntimeError) as error:
            raise ModelLoadError(f"the adapter around the U-Net in {found} is damaged at {layer}: {error}") from error
    return merged


def _read_strength(file: Path) -> float:
    """The alpha / rank in peft's settings; 1 if there are none."""
    if not file.is_file():
        return 1.0
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        rank = float(settings["r"])
        strength = float(settings["lora_alpha"]) / (rank**0.5 if settings.get("use_rslora") else rank)
    except (OSError, ValueError, LookupError, AttributeError, TypeError, ZeroDivisionError) as error:
        raise ModelLoadError(f"{file} does not give the adapter's strength: {error}") from error
    if settings.get("rank_pattern") or settings.get("alpha_pattern"):
        raise ModelLoadError(f"{file} gives some layers a strength of their own. Merge the adapter before saving")
    return strength


def _names(unet: nn.Module) -> dict[str, torch.Size]:
    """The shapes of the U-Net's own weights. The layers of a LoRA adapter lie around them."""
    return {
        name.replace(".base_layer.", "."): one.shape for name, one in unet.named_parameters() if ".lora_" not in name
    }


def _shape(state: dict[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _describe(state: dict[str, Tensor], name: str) -> str:
    return f"of the shape {tuple(state[name].shape)}" if name in state else "missing"


def _find_prefix(names: dict[str, Tensor]) -> str | None:
    """What stands before the names of a U-Net's weights; None if there is no U-Net."""
    return next((prefix for prefix in _PREFIXES for mark in _MARKS if prefix + mark in names), None)


def _find_parts(folder: Path) -> list[Path]:
    """The files with weights in a folder of diffusers; the plain ones, or else those of a variant.

    Raises:
        ModelLoadError: the index of shards is damaged.
    """
    names = {file.name for file in folder.glob("diffusion_pytorch_model*")} if folder.is_dir() else set()
    variants = weights_by_variant(names)
    if not variants:
        return []
    found = variants.get("") or variants.get("fp16") or variants[min(variants)]
    safe = {name for name in found if "safetensors" in name} or found
    index = next((name for name in safe if name.endswith(".json")), None)
    if index is None:
        return [folder / name for name in sorted(safe)]
    try:
        shards = set(json.loads((folder / index).read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ModelLoadError(f"{folder / index} is damaged: {error}") from error
    return [folder / name for name in sorted(shards)]


def _read(file: Path, *, weights: bool) -> dict[str, Tensor]:
    """The tensors in a file, or without `weights` their shapes on the meta device."""
    if not file.is_file():  # opening a pipe would wait forever
        raise ModelLoadError(f"cannot read {file}: there is no such file")
    try:
        if file.suffix in PICKLES:
            with warnings.catch_warnings(action="ignore"):  # torch has some for what is no file of its own
                content = torch.load(file, map_location="cpu" if weights else "meta", weights_only=True)
            content = content.get("state_dict", content)
            return {name: one for name, one in content.items() if isinstance(one, Tensor)}
        with safe_open(file, framework="pt", device="cpu") as opened:
            if weights:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    except Exception as error:  # unpickling a damaged file raises nearly every kind of exception
        raise ModelLoadError(f"cannot read {file}: {(str(error).splitlines() or [''])[0]}") from error


def _list(names: list[str]) -> str:
    """The first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
