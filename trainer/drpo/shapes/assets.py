"""The paths of the embedded models. The package contains them; `drpo shapes pretrain` made them."""

from __future__ import annotations

from pathlib import Path

from drpo.errors import ModelLoadError

GENERATORS = {"shapes": "generator", "shapes-honest": "generator_honest", "shapes-xl": "generator_xl"}
"""The generators by name, and their folders. All have the same autoencoder, so the feature map fits all."""

_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "shapes"


def generator_path(name: str = "shapes") -> Path:
    """The path of a one-step generator: a diffusers folder.

    Args:
        name: one of `GENERATORS`: "shapes" or "shapes-honest", in SD-Turbo's layout, or "shapes-xl", in SDXL-Turbo's.
    """
    return _find_folder(GENERATORS[name], "model_index.json")


def feature_map_path() -> Path:
    """The path of the latent-MAE feature map: a folder with `config.json` and `model.safetensors`."""
    return _find_folder("latent_mae", "config.json")


def clip_path() -> Path:
    """The path of the CLIP, a differentiable reward: a folder in the layout of transformers' CLIPModel."""
    return _find_folder("clip", "config.json")


def _find_folder(name: str, file: str) -> Path:
    folder = _FOLDER / name
    if not (folder / file).is_file():
        raise ModelLoadError(
            f"the embedded model is not complete: {name}/{file} is missing from the installed package. Reinstall drpo, "
            "or make the model with `drpo shapes pretrain --out FOLDER` and set model.generator to FOLDER/generator "
            "and features.path to FOLDER/latent_mae. With --layout sdxl or --honest it makes only the generator, with "
            "--clip FOLDER/clip, the model of a reward."
        )
    return folder
