"""Reference pipelines of many steps, as stock diffusers runs them: SD 1.5, SD 2.1, SDXL, LCM and others.

    pipeline = StockPipeline.load("runwayml/stable-diffusion-v1-5", steps=50, guidance=7.5)
    images_NHWC = pipeline.paint(["a red ring"], seeds=[7])

They are only looked at, never trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray

from drpo.errors import ModelLoadError, UnsupportedModelError
from drpo.generators.configs import load_error, read_index
from drpo.generators.loading import check_source, load_pipeline, no_progress_bars

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
}
"""The schedulers that can be chosen by a short name, instead of the pipeline's own."""


class StockPipeline:
    """A text-to-image pipeline of diffusers.

    Args:
        pipeline: the loaded pipeline.
        steps: steps for each image.
        guidance: the scale of classifier-free guidance; None: the pipeline's own.
        size: height and width in pixels; None: the pipeline's own.
    """

    def __init__(self, pipeline: Any, *, steps: int, guidance: float | None = None, size: int | None = None) -> None:
        self._pipeline = pipeline
        self._arguments: dict[str, Any] = {"num_inference_steps": steps}
        if guidance is not None:
            self._arguments["guidance_scale"] = guidance
        if size is not None:
            self._arguments |= {"height": size, "width": size}
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        steps: int,
        guidance: float | None = None,
        size: int | None = None,
        scheduler: str | None = None,
        lora: str | None = None,
        unet: str | None = None,
        variant: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> StockPipeline:
        """Loads a pipeline.

        Args:
            source: a diffusers folder or hub id.
            steps, guidance, size: see the class.
            scheduler: a name in `SCHEDULERS`; None: the pipeline's own.
            lora: a folder, file or hub id of LoRA weights, which are fused.
            unet: a folder or hub id of another U-Net than the pipeline's.
            variant: see `drpo.generators.loading.load_pipeline`.
            device, dtype: of all parts.

        Raises:
            ModelLoadError: there is no such model, or some of its files are missing or damaged.
            UnsupportedModelError: it is no pipeline that makes images from text.
        """
        source = str(source)
        name = read_index(source)["_class_name"]
        pipeline_class = getattr(diffusers, name, None)
        if pipeline_class is None or not hasattr(pipeline_class, "encode_prompt"):
            raise UnsupportedModelError(f"{source!r} makes no images from text: its pipeline is {name}")
        with no_progress_bars():
            check_source(source, variant)
            pipeline = load_pipeline(source, pipeline_class, dtype=dtype, variant=variant)
            try:
                if unet is not None:
                    pipeline.unet = _load_unet(unet, dtype)
                if scheduler is not None:
                    kind = getattr(diffusers, SCHEDULERS[scheduler])
                    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
                if lora is not None:
                    pipeline.load_lora_weights(lora)
                    pipeline.fuse_lora()
            except Exception as error:  # the libraries raise errors of a dozen kinds for files that do not fit
                raise load_error(source, error) from error
        return cls(pipeline.to(device), steps=steps, guidance=guidance, size=size)

    @torch.no_grad()
    def paint(self, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Images (N, H, W, 3), one for each prompt and seed. No batch and no device changes an image's noise."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        images_NHWC = self._pipeline(list(prompts), generator=generators, output_type="np", **self._arguments).images
        return np.asarray((images_NHWC * 255).round(), dtype=np.uint8)


def _load_unet(source: str, dtype: torch.dtype) -> UNet2DConditionModel:
    """The U-Net in a folder or repository, which may hold a whole pipeline.

    Raises:
        ModelLoadError: there is none.
    """
    for place in ({}, {"subfolder": "unet"}):
        try:
            return UNet2DConditionModel.from_pretrained(source, dtype=dtype, **place)
        except (OSError, ValueError):
            continue
    raise ModelLoadError(f"there is no U-Net in {source}, neither there nor in unet/")
