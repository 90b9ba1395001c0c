"""DPO in one step: the candidates shall be nearer to chosen than to rejected outputs, compared with the references.

    s(a, b) = -||psi(a) - psi(b)||^2
    g = s(mu, y+) - s(mu, y-),  g_ref = s(mu_ref, y+) - s(mu_ref, y-)
    L = -log sigma(beta (g - g_ref)) + lambda_ref ||mu - mu_ref||^2

(paper, appendix C.3). psi is the latent itself or a feature map. The squares of g - g_ref cancel, which leaves
2 <psi(mu) - psi(mu_ref), psi(y+) - psi(y-)>: this is what the code computes, because it is exact where mu = mu_ref.

paper      One logit for each candidate and each pair (y+, y-), the mean of the losses.
released   y+ are the best candidates of the group, y- the worst. s is the mean over all pairs of a candidate and a
           target, and over the numbers of a latent, so a group has one logit. All candidates get the same gradient.

Online, the targets are candidates of the same group, without their graph. Offline, y+ are the given positives and y-
the given negatives, each with its weight; the paper's form takes every pair of a positive and a negative.

Axes: K candidates, M pairs, D numbers of a latent or of features, T tokens, P chosen and N rejected targets, S given
images of one side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from drpo.errors import ShapeError
from drpo.method.objectives.base import Group, Needs, ObjectiveResult, Supports
from drpo.method.objectives.latents import (
    LatentSettings,
    Variant,
    make_settings,
    read,
    read_scores,
    reference_penalty,
    widen,
)
from drpo.transfer import move

_LATENTS = "latents"
"""The key of the space psi that is the latent itself."""


class DPOSettings(LatentSettings):
    """Settings of the objective. Without `variant: released`, the pairs of the ranking are used.

    Example:
        objective:
          name: dpo
          space: latent
          beta: 30
    """

    beta: float = Field(30.0, gt=0, description="inverse temperature; a larger one follows each pair more strictly")
    space: Literal["latent", "features"] = Field(
        "latent", description="psi: latent needs no feature map; features uses that of the section `features`"
    )
    chosen: int = Field(8, ge=1, description="released: this many of the best candidates are y+")
    rejected: int = Field(8, ge=1, description="released: this many of the worst candidates are y-")


@dataclass(frozen=True)
class Targets:
    """y+ and y- in the space psi, without a graph. In the paper's form P = N = M: they are in the order of the pairs.

    Attributes:
        chosen_PTD, rejected_NTD: psi(y+) and psi(y-).
        chosen_weights_P, rejected_weights_N: how much each counts. A pair counts as much as the product of its two.
    """

    chosen_PTD: Tensor
    rejected_NTD: Tensor
    chosen_weights_P: Tensor
    rejected_weights_N: Tensor


class DPOObjective:
    """The loss of a ranked group, or of one with given positives and negatives.

    Args:
        settings: the settings, as a model or a mapping; None: the defaults.
    """

    settings_class: ClassVar[type[BaseModel]] = DPOSettings

    def __init__(self, settings: DPOSettings | Mapping[str, Any] | None = None) -> None:
        self.settings = make_settings(DPOSettings, settings)

    @property
    def needs(self) -> Needs:
        """A ranking; latents or features with those of the references; both if the latents have a reference weight."""
        features = self.settings.space == "features"
        latents = not features or self.settings.reference_weight > 0
        return Needs(
            latents=latents,
            reference_latents=latents,
            features=features,
            reference_features=features,
            takes_supports=True,
        )

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group (see `drpo.method.objectives.base.Objective`).

        Raises:
            ShapeError: a tensor is missing or does not fit the others.
        """
        margins = []
        for key, (candidates_KTD, references_KTD) in self._spaces(group).items():
            targets = self._choose(group, key, candidates_KTD.detach())
            margins.append(measure_margin(candidates_KTD, references_KTD, targets, self.settings.variant))
        margin = torch.stack(margins).mean(dim=0)
        losses = F.softplus(-self.settings.beta * margin)
        if self.settings.variant == "paper":
            losses = losses @ _normalize(targets.chosen_weights_P * targets.rejected_weights_N)
        loss = losses.mean()
        if self.settings.reference_weight:
            loss = loss + reference_penalty(read(group, "latents_KChw"), group, self.settings)
        metrics = {"margin": margin.mean(), "margin_positive": (margin > 0).float().mean()}
        return ObjectiveResult(loss, metrics)

    def _spaces(self, group: Group) -> dict[str, tuple[Tensor, Tensor]]:
        """Candidates and references in the space psi, (K, T, D): one pair for latents, one for each key of features."""
        if self.settings.space == "latent":
            latents_KChw = read(group, "latents_KChw")
            reference_KChw = read(group, "reference_KChw", like=latents_KChw).detach()
            return {_LATENTS: (_as_token(latents_KChw), _as_token(reference_KChw))}
        features, reference = group.features or {}, group.reference_features or {}
        if not features or features.keys() != reference.keys():
            raise ShapeError(f"DPO: features have keys {sorted(features)}, the reference has {sorted(reference)}")
        return {key: (widen(tokens), widen(reference[key].detach())) for key, tokens in features.items()}

    def _choose(self, group: Group, key: str, candidates_KTD: Tensor) -> Targets:
        """y+ and y- in one space: the given ones, or candidates of the group."""
        if group.positives is not None and group.negatives is not None:
            return self._take_given(group.positives, group.negatives, key, candidates_KTD)
        if self.settings.variant == "paper":
            if group.pairs_M2 is None or not len(group.pairs_M2):
                raise ShapeError("DPO: the group has no pairs")
            chosen, rejected = move(group.pairs_M2, candidates_KTD.device).T
        else:
            scores_K = read_scores(group, candidates_KTD[:, :, :, None])
            # As in the authors' trainer both are chosen independently, so a candidate of a small group can be in both.
            chosen = scores_K.argsort(descending=True, stable=True)[: self.settings.chosen]
            rejected = scores_K.argsort(stable=True)[: self.settings.rejected]
        ones_K = candidates_KTD.new_ones(len(candidates_KTD))
        return Targets(candidates_KTD[chosen], candidates_KTD[rejected], ones_K[chosen], ones_K[rejected])

    def _take_given(self, positives: Supports, negatives: Supports, key: str, like_KTD: Tensor) -> Targets:
        """The given images as targets; in the paper's form every pair of a positive and a negative."""
        sides = []
        for name, side in (("positives", positives), ("negatives", negatives)):
            latents = key == _LATENTS and self.settings.space == "latent"
            given = _as_token(side.latents_SChw) if latents else (side.features or {}).get(key)
            count = len(side.weights_S)
            if given is None or not count or given.shape != (count, *like_KTD.shape[1:]):
                found = None if given is None else tuple(given.shape)
                needed = (max(count, 1), *like_KTD.shape[1:])
                raise ShapeError(f"DPO: {key!r} of the {name} must be {needed}, not {found}")
            sides.append((given.to(like_KTD).detach(), side.weights_S.to(like_KTD)))
        (chosen_PTD, weights_P), (rejected_NTD, weights_N) = sides
        if self.settings.variant == "paper":
            count, other = len(weights_P), len(weights_N)
            chosen_PTD, weights_P = chosen_PTD.repeat_interleave(other, 0), weights_P.repeat_interleave(other)
            rejected_NTD, weights_N = rejected_NTD.repeat(count, 1, 1), weights_N.repeat(count)
        return Targets(chosen_PTD, rejected_NTD, weights_P, weights_N)


def measure_margin(candidates_KTD: Tensor, references_KTD: Tensor, targets: Targets, variant: Variant) -> Tensor:
    """g - g_ref.

    Args:
        candidates_KTD: psi(mu), with its graph.
        references_KTD: psi(mu_ref).
        targets: y+ and y-.
        variant: paper: (K, M), one margin for each candidate and pair. released: one margin, a scalar.
    """
    moved_KTD = candidates_KTD - references_KTD
    if variant == "paper":
        return 2 * moved_KTD.flatten(1) @ (targets.chosen_PTD - targets.rejected_NTD).flatten(1).T
    # Tokens count as further candidates and targets.
    chosen_D = _normalize(targets.chosen_weights_P) @ targets.chosen_PTD.mean(dim=1)
    rejected_D = _normalize(targets.rejected_weights_N) @ targets.rejected_NTD.mean(dim=1)
    towards_D = chosen_D - rejected_D
    return 2 * (moved_KTD.mean(dim=(0, 1)) * towards_D).mean()


def _as_token(latents_NChw: Tensor) -> Tensor:
    """Latents as one token each, (N, 1, D)."""
    return latents_NChw.flatten(1).unsqueeze(1)


def _normalize(weights: Tensor) -> Tensor:
    """Weights with the sum 1."""
    return weights / weights.sum()
