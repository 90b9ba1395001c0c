"""Names in a config that stand for what is in the package: models, and a service that ranks with one of them.

The models have the names of `drpo.shapes.assets.GENERATORS`. The feature map and the CLIP fit every one of these
generators, so each name means the same ones.
"""

from __future__ import annotations

from pathlib import Path

from drpo.shapes.assets import GENERATORS, clip_path, feature_map_path, generator_path

_SERVICES = Path(__file__).resolve().parent / "services"


def is_embedded(source: str | None) -> bool:
    """Whether a value of `model.generator`, `features.path` or a reward's `model` is the name of an embedded model."""
    return source in GENERATORS


def generator_source(source: str) -> str:
    """The folder or hub id of a generator. A name becomes the folder in the package."""
    return str(generator_path(source)) if is_embedded(source) else source


def feature_map_source(source: str | None) -> str | None:
    """The folder of a feature map's weights. A name becomes the folder in the package; None if it has no weights."""
    return str(feature_map_path()) if is_embedded(source) else source


def reward_source(source: str) -> str:
    """The folder or hub id of a reward's weights. A name becomes the folder of the CLIP in the package."""
    return str(clip_path()) if is_embedded(source) else source


def service_source(source: str) -> str:
    """The name or file of a service config. The name of one that this package has becomes its file."""
    file = _SERVICES / f"{source}.yaml"
    return str(file) if file.is_file() and not Path(source).exists() else source
