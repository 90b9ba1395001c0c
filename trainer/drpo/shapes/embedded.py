"""The name "shapes" in a config: it stands for the generator and the feature map inside the package."""

from __future__ import annotations

from drpo.shapes.assets import feature_map_path, generator_path

EMBEDDED = "shapes"


def is_embedded(source: str | None) -> bool:
    """Whether a value of `model.generator` or `features.path` names the embedded model, not a folder or hub id."""
    return source == EMBEDDED


def generator_source(source: str) -> str:
    """The folder or hub id of a generator, with the embedded name resolved."""
    return str(generator_path()) if is_embedded(source) else source


def feature_map_source(source: str | None) -> str | None:
    """The folder of a feature map's weights, with the embedded name resolved; None: it has no weights."""
    return str(feature_map_path()) if is_embedded(source) else source
