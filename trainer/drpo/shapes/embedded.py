"""The name "shapes" in a config, which stands for the generator, the feature map or the CLIP in the package."""

from __future__ import annotations

from drpo.shapes.assets import clip_path, feature_map_path, generator_path

EMBEDDED = "shapes"


def is_embedded(source: str | None) -> bool:
    """Whether a value of `model.generator`, `features.path` or a reward's `model` is the name of the embedded model."""
    return source == EMBEDDED


def generator_source(source: str) -> str:
    """The folder or hub id of a generator. "shapes" becomes the folder in the package."""
    return str(generator_path()) if is_embedded(source) else source


def feature_map_source(source: str | None) -> str | None:
    """The folder of a feature map's weights. "shapes" becomes the folder in the package; None if it has no weights."""
    return str(feature_map_path()) if is_embedded(source) else source


def reward_source(source: str) -> str:
    """The folder or hub id of a reward's weights. "shapes" becomes the folder of the CLIP in the package."""
    return str(clip_path()) if is_embedded(source) else source
