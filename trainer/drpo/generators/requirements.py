"""What a model must have to be of a layout. Only its configs are read, so a model is refused before its weights are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler

from drpo.errors import UnsupportedModelError
from drpo.generators.configs import PipelineConfigs, read_configs, read_index

SCHEDULERS = (EulerDiscreteScheduler, EulerAncestralDiscreteScheduler)
"""Both take the same single step from the first sigma to 0: the noise of the ancestral one is multiplied by 0."""


@dataclass(frozen=True)
class Requirements:
    """What the pipelines of a layout have in common.

    Attributes:
        name: of the model that the layout is named after.
        pipeline_class: the diffusers class.
        text_encoders: their names in the pipeline. The U-Net takes their hidden states side by side; if there are two,
            it also takes the second one's projected vector and the time ids.
    """

    name: str
    pipeline_class: Any
    text_encoders: tuple[str, ...]

    def check_class(self, source: str) -> None:
        """Checks that a model's pipeline is of this layout's class.

        Raises:
            ModelLoadError: there is no such model.
            UnsupportedModelError: it is of another class.
        """
        found = read_index(source)["_class_name"]
        if found != self.pipeline_class.__name__:
            raise self._error(source, f"its pipeline is {found}")

    def check(self, source: str, vae: str | None = None) -> PipelineConfigs:
        """Reads the configs of a model, and checks that the one step of this project is right for it.

        Args:
            source: a diffusers folder or hub id.
            vae: a folder or hub id of another VAE than the pipeline's.

        Raises:
            ModelLoadError: there is no such model, or one of its configs is missing or damaged.
            UnsupportedModelError: the model has another layout.
        """
        configs = read_configs(source, self.text_encoders, vae)
        for problem in (self._scheduler_problem(configs), self._unet_problem(configs), _vae_problem(configs)):
            if problem:
                raise self._error(source, problem)
        return configs

    def _error(self, source: str, problem: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{source!r} is not a one-step generator in the {self.name} layout: {problem}. Use a "
            f"{self.pipeline_class.__name__} with an Euler scheduler, epsilon prediction and trailing spacing, such as "
            f"stabilityai/{self.name.lower()}"
        )

    def _scheduler_problem(self, configs: PipelineConfigs) -> str:
        scheduler = configs.scheduler
        if not isinstance(scheduler, SCHEDULERS):
            return f"its scheduler is {type(scheduler).__name__}"
        settings = scheduler.config
        if settings.prediction_type != "epsilon" or settings.timestep_spacing != "trailing":
            return f"its scheduler has {settings.prediction_type} prediction with {settings.timestep_spacing} spacing"
        return ""

    def _unet_problem(self, configs: PipelineConfigs) -> str:
        settings, pooled = configs.unet.config, len(self.text_encoders) > 1
        if not settings.sample_size:
            return "its U-Net's config has no sample_size, the size of a latent"
        other = [
            name
            for name in ("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
            if settings.get(name) is not None
        ]
        if other or settings.addition_embed_type != ("text_time" if pooled else None):
            names = ", ".join(other) or f"addition_embed_type {settings.addition_embed_type}"
            return f"its U-Net takes other conditions than the {self.name} layout has ({names})"
        width = sum(text.hidden_size for text in configs.texts)
        if settings.cross_attention_dim != width:
            return f"its U-Net takes {settings.cross_attention_dim} features of a token, its text encoders give {width}"
        if pooled:
            taken = settings.projection_class_embeddings_input_dim
            given = configs.texts[-1].projection_dim + 6 * settings.addition_time_embed_dim
            if taken != given:
                return f"its U-Net takes {taken} features of the pooled vector and the time ids, but gets {given}"
        return ""


def _vae_problem(configs: PipelineConfigs) -> str:
    unet, vae = configs.unet.config, configs.vae.config
    if not unet.in_channels == unet.out_channels == vae.latent_channels:
        return (
            f"its U-Net maps {unet.in_channels} channels to {unet.out_channels}, and the VAE's latents have "
            f"{vae.latent_channels}"
        )
    return ""
