"""What the objectives over latents share: their settings, distances, Gaussian actions, and tensors that must be there.

The paper's ||.||^2 is a sum over the numbers of a latent, the authors' trainers take the mean. `variant` decides.

Axes: K candidates of a group, (C, h, w) of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from drpo.config.section import Section
from drpo.errors import ShapeError
from drpo.method.objectives.base import Group
from drpo.transfer import move

Variant = Literal["paper", "released"]

_MIN_STD = 1e-6


class LatentSettings(Section):
    """Settings that every objective over latents has.

    Attributes:
        released_defaults: the defaults that `variant: released` changes.
    """

    model_config = ConfigDict(frozen=True)
    released_defaults: ClassVar[Mapping[str, Any]] = {}

    variant: Variant = Field("paper", description="paper: as published; released: as in the authors' trainer")
    reference_weight: float = Field(
        0.0, ge=0, description="lambda_ref, the weight of the squared distance between candidates and references"
    )

    @model_validator(mode="before")
    @classmethod
    def _add_released_defaults(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("variant") == "released":
            return {**cls.released_defaults, **values}
        return values


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def make_settings(kind: type[SettingsT], settings: SettingsT | Mapping[str, Any] | None) -> SettingsT:
    """The settings as a model, from a model, a mapping, or None for the defaults."""
    return settings if isinstance(settings, kind) else kind.model_validate(settings or {})


def read(group: Group, name: str, *, like: Tensor | None = None) -> Tensor:
    """A tensor of a group, in float32 or finer.

    Args:
        group: the group.
        name: an attribute of `Group`.
        like: a tensor of the shape that it must have; None: any shape.

    Raises:
        ShapeError: the group has no such tensor, or it has another shape.
    """
    tensor = getattr(group, name)
    if tensor is None:
        raise ShapeError(f"the group has no {name}, which the objective needs")
    if like is not None and tensor.shape != like.shape:
        raise ShapeError(f"{name} must be {tuple(like.shape)}, not {tuple(tensor.shape)}")
    return widen(tensor) if like is None else move(widen(tensor), like.device)


def widen(tensor: Tensor) -> Tensor:
    """A tensor in float32 if its precision is lower, otherwise unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def read_scores(group: Group, latents_KChw: Tensor) -> Tensor:
    """The scores of a group, one for each candidate, on the latents' device.

    Raises:
        ShapeError: there are none, or not K.
    """
    return read(group, "scores_K", like=latents_KChw[:, 0, 0, 0]).detach()


def squared_distance(first_KChw: Tensor, second_KChw: Tensor, variant: Variant) -> Tensor:
    """||first - second||^2 of each candidate, (K,): the sum (paper) or the mean (released) over its numbers."""
    squares_KD = (first_KChw - second_KChw).square().flatten(1)
    return squares_KD.sum(dim=1) if variant == "paper" else squares_KD.mean(dim=1)


def reference_penalty(latents_KChw: Tensor, group: Group, settings: LatentSettings) -> Tensor:
    """lambda_ref / K sum_k ||mu_k - mu_ref,k||^2; 0 without a weight, and then the references need not be known."""
    if not settings.reference_weight:
        return latents_KChw.new_zeros(())
    reference_KChw = read(group, "reference_KChw", like=latents_KChw).detach()
    return settings.reference_weight * squared_distance(latents_KChw, reference_KChw, settings.variant).mean()


def explore_with_noise(latents_KChw: Tensor, noise_KChw: Tensor, sigma: float) -> Tensor:
    """Actions mu + sigma u, where u is each candidate's own noise, shifted and scaled to mean 0 and variance 1."""
    noise_KD = widen(noise_KChw).flatten(1)
    centred_KD = noise_KD - noise_KD.mean(dim=1, keepdim=True)
    unit_KD = centred_KD / noise_KD.std(dim=1, correction=0, keepdim=True).clamp_min(_MIN_STD)
    return (latents_KChw + sigma * unit_KD.view_as(noise_KChw)).to(latents_KChw.dtype)


def log_probability(actions_KChw: Tensor, means_KChw: Tensor, sigma: float) -> Tensor:
    """-1/2 mean [((a - mu) / sigma)^2] over the numbers of a latent, (K,)."""
    return -0.5 * ((actions_KChw - means_KChw) / sigma).square().flatten(1).mean(dim=1)
