"""Read a public latent-MAE checkpoint into the folder layout of `drpo.method.features.latent_mae`.

    python -m drpo.method.features.public_latent_mae mae_latent_256_torch.pth latent_mae/

The checkpoint is the torch file that the DrPO authors publish (`drpo-mae-latent-256`, an export of the JAX model
`mae_latent_256` of the drifting models): a dict of tensors, bare or under `state_dict` or `model_state_dict`. An
export may keep JAX's names and layouts, so both are accepted: kernels named `kernel` (height, width, in, out) or
`weight` (out, in, height, width), and norms named `scale` or `weight`. The shape of the network is inferred from the
tensors. The decoder is read if the file has one. The classification head `fc` is skipped, because no feature uses it.

Two things that the tensors do not say are the epsilon of the norms and the scale of the latents. They are those of the
authors' trainer, unless the file's own metadata says otherwise: 1e-5, and 0.18215 as in Stable Diffusion.

The feature map reads such a file as it is. A converted folder loads faster. This module follows the public code. It is
tested with a file of the same layout, not with the real file.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from drpo.errors import ModelLoadError
from drpo.method.features.latent_mae_model import LatentMAE
from drpo.method.features.latent_mae_network import LatentMAEConfig

_WRAPPERS = ("module.", "_orig_mod.")
_RENAMED = {"kernel": "weight", "scale": "weight"}
_UNUSED = "fc."
_NORM_EPS = 1e-5
_SCALING_FACTOR = 0.18215


def read_public_checkpoint(path: str | Path) -> LatentMAE:
    """The model of a public checkpoint.

    Raises:
        ModelLoadError: the file cannot be read, or is not a latent-MAE in the public layout.
    """
    path = Path(path)
    tensors, config = _read(path)
    try:
        model = LatentMAE(config)
        expected = model.state_dict()
        model.load_state_dict({name: _to_torch_layout(t.float(), expected.get(name)) for name, t in tensors.items()})
    except RuntimeError as error:
        raise _not_public(path, error) from error
    return model


def read_public_config(path: str | Path) -> LatentMAEConfig:
    """The shape of the network in a public checkpoint, without its weights.

    Raises:
        ModelLoadError: the file cannot be read, or is not a latent-MAE in the public layout.
    """
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[dict[str, Tensor], LatentMAEConfig]:
    """The tensors of the encoder and the decoder, by torch's names, and the shape of the network."""
    content, metadata = _read_file(path)
    named = {_parameter_name(name): tensor for name, tensor in content.items()}
    tensors = {name: tensor for name, tensor in named.items() if not name.startswith(_UNUSED)}
    try:
        return tensors, _infer_config(tensors, metadata)
    except (KeyError, ValueError, TypeError) as error:
        raise _not_public(path, error) from error


def _not_public(path: Path, error: Exception) -> ModelLoadError:
    return ModelLoadError(f"{path} is not a latent-MAE checkpoint in the public layout: {error}")


def _read_file(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """The tensors of a file, which are read only when they are used, and its metadata about the model."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path), {}
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # torch raises many kinds of errors for a file that it cannot read
        raise ModelLoadError(f"cannot read the checkpoint {path}: {error}") from error
    metadata = content.get("metadata") if isinstance(content, dict) else None
    for key in ("state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelLoadError(f"{path} must hold a dict of tensors, bare or under state_dict or model_state_dict")
    config = metadata.get("model_config") if isinstance(metadata, dict) else None
    return content, config if isinstance(config, dict) else {}


def _is_zip(path: Path) -> bool:
    """Whether a file has torch's present format, which can be mapped into memory; the old one cannot."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _parameter_name(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    module, _, parameter = name.rpartition(".")
    return f"{module}.{_RENAMED.get(parameter, parameter)}"


def _infer_config(tensors: dict[str, Tensor], metadata: Mapping[str, Any]) -> LatentMAEConfig:
    """The shape of the network from the names and sizes of its tensors."""
    widths: list[int] = []
    blocks: list[int] = []
    while (norm := tensors.get(f"encoder.layer{len(widths) + 1}_norm.weight")) is not None:
        stage = re.compile(rf"encoder\.stages_{len(widths)}\.layers_(\d+)\.conv1\.weight")
        widths.append(norm.numel())
        blocks.append(sum(stage.fullmatch(name) is not None for name in tensors))
    if not widths:
        raise KeyError("it has no encoder.layer1_norm")
    in_channels = tensors["encoder.conv1.weight"].numel() // (9 * widths[0])
    return LatentMAEConfig(
        in_channels=in_channels,
        widths=tuple(widths),
        blocks=tuple(blocks),
        norm_eps=metadata.get("norm_eps", _NORM_EPS),
        scaling_factor=metadata.get("scaling_factor", _SCALING_FACTOR),
        decoder=any(name.startswith("decoder.") for name in tensors),
    )


def _to_torch_layout(tensor: Tensor, expected: Tensor | None) -> Tensor:
    """Permutes the kernel of a convolution from JAX's (h, w, in, out) to torch's (out, in, h, w), if needed."""
    if tensor.ndim == 4 and expected is not None and tensor.shape != expected.shape:
        tensor = tensor.permute(3, 2, 0, 1)
    return tensor.contiguous()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Convert a public latent-MAE checkpoint into a feature map's folder.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    read_public_checkpoint(arguments.checkpoint).save(arguments.folder)
