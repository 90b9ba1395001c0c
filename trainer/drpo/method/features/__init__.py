"""Feature maps: the spaces in which the drift field measures distances.

Each has one file, and one line in `FEATURE_MAPS`, which names the classes without importing them. `load_feature_map`
imports the class it needs.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from drpo.errors import CatalogueError
from drpo.method.features.base import FeatureContext, FeatureMap, ImageFeatureMap, LatentFeatureMap

FEATURE_MAPS = {
    "latent_mae": "drpo.method.features.latent_mae:LatentMAEFeatures",
    "raw_latent": "drpo.method.features.raw_latent:RawLatentFeatures",
}


def load_feature_map(name: str, path: str | Path | None = None, **options: Any) -> FeatureMap:
    """Loads a feature map.

    Args:
        name: a key of `FEATURE_MAPS`.
        path: the folder of its weights; None if it has none.
        options: further arguments of its constructor, such as `device`.

    Raises:
        CatalogueError: there is no feature map of that name.
        ModelLoadError: the folder has no weights, or they do not fit.
    """
    return feature_map_class(name)(path, **options)


def feature_map_class(name: str) -> Any:
    """The class of a feature map.

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
    "feature_map_class",
    "load_feature_map",
]
