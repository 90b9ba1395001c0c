"""Feature maps: the spaces in which the drift field measures distances.

Each has one file, and one line in `FEATURE_MAPS`, which names the classes without importing them. `load_feature_map`
imports the class it needs. docs/methods.md compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from drpo.errors import CatalogueError, ConfigError, ModelLoadError
from drpo.generators.base import Layout, OneStepGenerator
from drpo.method.features.base import (
    FeatureContext,
    FeatureMap,
    ImageFeatureMap,
    LatentFeatureMap,
    ListedFeatureMap,
)
from drpo.method.features.source import find_files

FEATURE_MAPS = {
    "latent_mae": "drpo.method.features.latent_mae:LatentMAEFeatures",
    "image_mae": "drpo.method.features.image_mae:ImageMAEFeatures",
    "dinov2": "drpo.method.features.dinov2:DINOv2Features",
    "teacher_unet": "drpo.method.features.teacher_unet:TeacherUNetFeatures",
    "raw_latent": "drpo.method.features.raw_latent:RawLatentFeatures",
}


def load_feature_map(
    name: str,
    path: str | Path | None = None,
    *,
    generator: OneStepGenerator | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> FeatureMap:
    """Loads a feature map, once it is known to fit the generator.

    Args:
        name: a key of `FEATURE_MAPS`.
        path: the folder, file or hub id of its weights; None if it has none.
        generator: whose latents or images it is for; None: not known.
        device, dtype: of a map that has weights of its own.
        options: its settings.

    Raises:
        CatalogueError: there is no feature map of that name.
        pydantic.ValidationError: the settings are wrong.
        ConfigError: it does not fit the generator, or it needs one.
        ModelLoadError: there are no weights, or they do not fit.
    """
    cls = feature_map_class(name)
    settings = cls.settings_class.model_validate(options)
    check_feature_map(name, path, options, generator.layout if generator is not None else None)
    if cls.weights == "files":
        return cls(path, settings, device=device, dtype=dtype)
    if cls.weights == "generator":
        if generator is None:
            raise ConfigError(f"the feature map {name} is a part of the generator; give the generator")
        return cls(generator, settings)
    return cls(settings)


def check_feature_map(
    name: str, path: str | Path | None, options: Mapping[str, Any], layout: Layout | None = None
) -> None:
    """Checks what can be known of a feature map without its weights: its settings, its files, and the generator.

    Args:
        name, path, options: see `load_feature_map`. Files that are not on this machine are not looked at.
        layout: of the generator; None: not known.

    Raises:
        CatalogueError: there is no feature map of that name.
        pydantic.ValidationError: the settings are wrong.
        ConfigError: it does not fit the generator.
        ModelLoadError: a file is missing or damaged, or the map needs files and there is no path.
    """
    cls = feature_map_class(name)
    settings = cls.settings_class.model_validate(options)
    if cls.weights != "files":
        return cls.check(settings, None, layout)
    if path is None:
        raise ModelLoadError(f"the feature map {name} needs the folder, file or hub id of its weights")
    return cls.check(settings, find_files(path), layout)


def feature_map_class(name: str) -> Any:
    """The class of a feature map, a `ListedFeatureMap`.

    Raises:
        CatalogueError: there is no feature map of that name.
    """
    if name not in FEATURE_MAPS:
        raise CatalogueError(f"there is no feature map {name!r}; choose from {', '.join(sorted(FEATURE_MAPS))}")
    module, _, attribute = FEATURE_MAPS[name].partition(":")
    return getattr(import_module(module), attribute)


__all__ = [
    "FEATURE_MAPS",
    "FeatureContext",
    "FeatureMap",
    "ImageFeatureMap",
    "LatentFeatureMap",
    "ListedFeatureMap",
    "check_feature_map",
    "feature_map_class",
    "find_files",
    "load_feature_map",
]
