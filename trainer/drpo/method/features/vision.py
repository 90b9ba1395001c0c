"""What the vision transformers share as feature maps: how they see an image, and the statistics of their layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from drpo.errors import ConfigError, ModelLoadError
from drpo.method.features.statistics import deviation

_KEY = re.compile(r"layer(?P<layer>[1-9]\d*)_(?P<statistic>patch_mean|patch_std|patch|cls)")


class Preprocessor:
    """Turns decoded images into what a vision transformer takes.

    The whole image is scaled to a square, bicubically and without antialiasing, as in the authors' trainer.

    Args:
        source: a folder or hub id with `preprocessor_config.json`.
        size: the side of the square; None: that of the file's crop, or else of its size.
    """

    def __init__(self, source: str | Path, size: int | None = None) -> None:
        from transformers import BaseImageProcessor

        try:
            settings, _ = BaseImageProcessor.get_image_processor_dict(str(source))
            self.mean, self.std = settings["image_mean"], settings["image_std"]
            self.size = size or _side(settings.get("crop_size") or settings["size"])
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise ModelLoadError(f"cannot read preprocessor_config.json of {source}: {error}") from error

    def __call__(self, images_N3HW: Tensor) -> Tensor:
        """Normalized pixels (N, 3, size, size) of images, roughly in [-1, 1]; differentiable."""
        pixels_N3HW = (images_N3HW.clamp(-1, 1) + 1) / 2
        if pixels_N3HW.shape[2:] != (self.size, self.size):
            pixels_N3HW = F.interpolate(pixels_N3HW, (self.size, self.size), mode="bicubic", align_corners=False)
        mean_311, std_311 = (pixels_N3HW.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels_N3HW - mean_311) / std_311


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size.get("height") or size["shortest_edge"])


def load_transformer(model_class: Any, source: str | Path, **changes: Any) -> Any:
    """Loads a frozen vision transformer of a folder or hub id.

    Args:
        model_class: the class of transformers.
        source: a folder or hub id.
        changes: settings of its config that differ from the file's.

    Raises:
        ModelLoadError: there is no such model, or it is of another type.
    """
    try:
        with _quiet():
            model, report = model_class.from_pretrained(str(source), output_loading_info=True, **changes)
    except Exception as error:  # transformers raises errors of many kinds for files that are not what they should be
        raise ModelLoadError(f"cannot load {model_class.__name__} from {source}: {error}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelLoadError(f"{source} does not hold a whole {model_class.__name__}: {missing}, ... are missing")
    return model.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within this block transformers shows no progress, and does not list the weights that a model does not use."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def check_transformer(model_class: Any, keys: Sequence[str], path: Path | None) -> None:
    """Checks the config in a folder, that there are weights, and the keys. Loads nothing.

    Raises:
        ModelLoadError: a file is missing, or the model is of another type.
        ConfigError: the model has no such layer.
    """
    if path is None:
        return
    try:
        config, _ = model_class.config_class.get_config_dict(str(path))
    except OSError as error:
        raise ModelLoadError(f"cannot read config.json in {path}: {error}") from error
    expected = model_class.config_class.model_type
    if config.get("model_type") != expected:
        found = config.get("model_type")
        raise ModelLoadError(f"{path} holds {f'a model of type {found}' if found else 'another model'}, not {expected}")
    if not (path / "preprocessor_config.json").is_file():
        raise ModelLoadError(f"there is no preprocessor_config.json in {path}")
    if not any(file.suffix in (".safetensors", ".bin") for file in path.iterdir()):
        raise ModelLoadError(f"there are no weights (model.safetensors) in {path}")
    for key in keys:
        split_key(key, config.get("num_hidden_layers", 12))


def split_key(key: str, layers: int) -> tuple[int, str]:
    """The layer and the statistic that a key names.

    Raises:
        ConfigError: there is no such feature.
    """
    match = _KEY.fullmatch(key)
    if match is None or int(match["layer"]) > layers:
        raise ConfigError(
            f"there is no feature {key!r}; a key is layer1 to layer{layers}, followed by _patch_mean, _patch_std, "
            "_patch (a token per patch) or _cls"
        )
    return int(match["layer"]), match["statistic"]


def layer_features(hidden_states: Sequence[Tensor], keys: Sequence[str]) -> dict[str, Tensor]:
    """The features {key: (N, T, D)} of a transformer whose first token is the class token.

    Args:
        hidden_states: (N, 1 + patches, D) before the first layer and after each one, without the final LayerNorm.
        keys: such as "layer12_patch_mean".
    """
    features = {}
    for key in keys:
        layer, kind = split_key(key, len(hidden_states) - 1)
        cls_N1D, patches_NTD = hidden_states[layer].split([1, hidden_states[layer].shape[1] - 1], dim=1)
        if kind == "cls":
            features[key] = cls_N1D
        elif kind == "patch":
            features[key] = patches_NTD
        elif kind == "patch_mean":
            features[key] = patches_NTD.mean(dim=1, keepdim=True)
        else:
            features[key] = deviation(patches_NTD, dim=1).unsqueeze(1).to(patches_NTD.dtype)
    return features
