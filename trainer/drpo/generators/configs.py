"""A pipeline without its weights: what its configs say, with the networks on torch's meta device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig

from drpo.errors import ModelLoadError
from drpo.generators.base import Layout

MODEL_INDEX = "model_index.json"


@dataclass(frozen=True)
class PipelineConfigs:
    """The parts of a pipeline, as far as its configs say.

    Attributes:
        pipeline_class: the name of the diffusers class.
        scheduler: the scheduler.
        unet, vae: without weights, on the meta device.
        texts: the configs of the text encoders.
    """

    pipeline_class: str
    scheduler: Any
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    texts: tuple[CLIPTextConfig, ...]


def read_configs(source: str, text_encoders: tuple[str, ...], vae: str | None = None) -> PipelineConfigs:
    """Reads the configs of a pipeline.

    Args:
        source: a diffusers folder or hub id.
        text_encoders: their names in the pipeline.
        vae: a folder or hub id of another VAE than the pipeline's.

    Raises:
        ModelLoadError: there is no such model, or one of its configs is missing or damaged.
    """
    index = read_index(source)
    other_vae = read_vae(vae) if vae is not None else None
    try:
        scheduler_class = getattr(diffusers, index["scheduler"][1])
        return PipelineConfigs(
            index["_class_name"],
            scheduler_class.from_config(scheduler_class.load_config(source, subfolder="scheduler")),
            read_unet(source),
            other_vae or _build_empty(AutoencoderKL, source, subfolder="vae"),
            tuple(CLIPTextConfig.from_pretrained(source, subfolder=name) for name in text_encoders),
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise load_error(source, error) from error


def read_index(source: str) -> dict[str, Any]:
    """What a pipeline's `model_index.json` says.

    Raises:
        ModelLoadError: there is no such model.
    """
    try:
        index = DiffusionPipeline.load_config(source)
        return {**index, "_class_name": index.get("_class_name")}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise load_error(source, error) from error


def read_unet(source: str) -> UNet2DConditionModel:
    """The U-Net of a pipeline without its weights, for what follows from its layers alone.

    Raises:
        ModelLoadError: there is no such model.
    """
    try:
        return _build_empty(UNet2DConditionModel, source, subfolder="unet")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise load_error(source, error) from error


def read_layout(source: str, vae: str | None = None) -> Layout:
    """What a feature map must fit, from the configs of the U-Net and the VAE.

    Args:
        source: a diffusers folder or hub id.
        vae: a folder or hub id of another VAE than the pipeline's.

    Raises:
        ModelLoadError: there is no such model, or a config is incomplete.
    """
    try:
        unet = UNet2DConditionModel.load_config(source, subfolder="unet")
        place = {"subfolder": "vae"} if vae is None else vae_place(vae)
        return Layout.of(unet, AutoencoderKL.load_config(vae or source, **place))
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise load_error(source, error) from error


def read_vae(source: str) -> AutoencoderKL:
    """A VAE of its own without its weights.

    Raises:
        ModelLoadError: there is no such VAE.
    """
    try:
        found = AutoencoderKL.load_config(source, **vae_place(source))
        if found.get("_class_name") != "AutoencoderKL":
            raise ValueError(f"its class is {found.get('_class_name')}")
        with init_empty_weights():
            return AutoencoderKL.from_config(found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise vae_error(source, error) from error


def vae_place(source: str) -> dict[str, str]:
    """Where a VAE lies in its source: in the folder itself, or in the folder `vae` of a whole pipeline."""
    return {"subfolder": "vae"} if (Path(source) / "vae" / "config.json").is_file() else {}


def vae_error(source: str, reason: object) -> ModelLoadError:
    """The error for a VAE that cannot be loaded."""
    return ModelLoadError(
        f"cannot load a VAE from {source!r}: {reason}. Give the folder or hub id of an AutoencoderKL, such as "
        "madebyollin/sdxl-vae-fp16-fix"
    )


def load_error(source: str, reason: object) -> ModelLoadError:
    """The error for a generator that cannot be loaded."""
    reason = str(reason).rstrip(". ")
    return ModelLoadError(
        f"cannot load a generator from {source!r}: {reason}. Give a diffusers folder or hub id in the layout of "
        "stabilityai/sd-turbo or stabilityai/sdxl-turbo; a hub id needs access to the hub or its files in the cache."
    )


def _build_empty(network_class: Any, source: str, **where: str) -> Any:
    with init_empty_weights():
        return network_class.from_config(network_class.load_config(source, **where))
