"""Where the embedded model lies: made by `drpo shapes pretrain`, shipped in the package."""

from __future__ import annotations

from pathlib import Path

from drpo.errors import ModelLoadError

_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "shapes"


def generator_path() -> Path:
    """The one-step generator: a diffusers folder in the SD-Turbo layout."""
    return _present("generator", "model_index.json")


def feature_map_path() -> Path:
    """The latent-MAE feature map: `config.json` and `model.safetensors`."""
    return _present("latent_mae", "config.json")


def _present(name: str, file: str) -> Path:
    folder = _FOLDER / name
    if not (folder / file).is_file():
        raise ModelLoadError(
            f"the embedded model is not complete: {name}/{file} is missing from the installed package. Install drpo "
            "again, or make the model with `drpo shapes pretrain --out FOLDER` and name that folder as model.generator."
        )
    return folder
