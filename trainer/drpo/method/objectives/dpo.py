"""DPO in one step: the candidates shall be nearer to chosen than to rejected outputs, compared with the references.

    s(a, b) = -||psi(a) - psi(b)||^2
    g = s(mu, y+) - s(mu, y-),  g_ref = s(mu_ref, y+) - s(mu_ref, y-)
    L = -log sigma(beta (g - g_ref)) + lambda_ref ||mu - mu_ref||^2

(paper, appendix C.3). psi is the latent itself or a feature map. The squares of g - g_ref cancel, which leaves
2 <psi(mu) - psi(mu_ref), psi(y+) - psi(y-)>: this is what the code computes, because it is exact where mu = mu_ref.

paper      One logit for each candidate and each pair (y+, y-), the mean of the losses.
released   y+ are the best candidates of the group, y- the worst. s is the mean over all pairs of a candidate and a
           target, and over the numbers of a latent, so a group has one logit. All candidates get the same gradient.

Online, the targets are candidates of the same group, without their graph.

Axes: K candidates, M pairs, D numbers of a latent or of features, T tokens, P chosen and N rejected targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from drpo.errors import ShapeError
from drpo.method.objectives.base import Group, Needs, ObjectiveResult
from drpo.method.objectives.latents import (
    LatentSettings,
    Variant,
    make_settings,
    read,
    read_scores,
    reference_penalty,
    widen,
)


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


class DPOObjective:
    """The loss of a ranked group.

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
        return Needs(latents=latents, reference_latents=latents, features=features, reference_features=features)

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group (see `drpo.method.objectives.base.Objective`).

        Raises:
            ShapeError: a tensor is missing or does not fit the others.
        """
        margins = []
        for candidates_KTD, references_KTD in self._spaces(group):
            chosen, rejected = self._choose(group, candidates_KTD.detach())
            margins.append(measure_margin(candidates_KTD, references_KTD, chosen, rejected, self.settings.variant))
        margin = torch.stack(margins).mean(dim=0)
        loss = F.softplus(-self.settings.beta * margin).mean()
        if self.settings.reference_weight:
            loss = loss + reference_penalty(read(group, "latents_KChw"), group, self.settings)
        metrics = {"margin": margin.mean().item(), "margin_positive": (margin > 0).float().mean().item()}
        return ObjectiveResult(loss, metrics)

    def _spaces(self, group: Group) -> list[tuple[Tensor, Tensor]]:
        """Candidates and references in the space psi, (K, T, D): one pair for latents, one for each key of features."""
        if self.settings.space == "latent":
            latents_KChw = read(group, "latents_KChw")
            reference_KChw = read(group, "reference_KChw", like=latents_KChw).detach()
            return [(latents_KChw.flatten(1).unsqueeze(1), reference_KChw.flatten(1).unsqueeze(1))]
        features, reference = group.features or {}, group.reference_features or {}
        if not features or features.keys() != reference.keys():
            raise ShapeError(f"DPO: features have keys {sorted(features)}, the reference has {sorted(reference)}")
        return [(widen(tokens), widen(reference[key].detach())) for key, tokens in features.items()]

    def _choose(self, group: Group, candidates_KTD: Tensor) -> tuple[Tensor, Tensor]:
        """y+ and y- from the candidates of the group: (P, T, D) and (N, T, D), with P = N = M in the paper's form."""
        if self.settings.variant == "paper":
            if group.pairs_M2 is None or not len(group.pairs_M2):
                raise ShapeError("DPO: the group has no pairs")
            winners_MTD, losers_MTD = candidates_KTD[group.pairs_M2.to(candidates_KTD.device).T]
            return winners_MTD, losers_MTD
        scores_K = read_scores(group, candidates_KTD[:, :, :, None])
        # As in the authors' trainer the two are chosen independently, so a candidate of a small group can be in both.
        best_P = scores_K.argsort(descending=True, stable=True)[: self.settings.chosen]
        worst_N = scores_K.argsort(stable=True)[: self.settings.rejected]
        return candidates_KTD[best_P], candidates_KTD[worst_N]


def measure_margin(
    candidates_KTD: Tensor, references_KTD: Tensor, chosen_PTD: Tensor, rejected_NTD: Tensor, variant: Variant
) -> Tensor:
    """g - g_ref.

    Args:
        candidates_KTD: psi(mu), with its graph.
        references_KTD: psi(mu_ref).
        chosen_PTD: psi(y+).
        rejected_NTD: psi(y-); in the paper's form as many as chosen ones, in the order of the pairs.
        variant: paper: (K, P), one margin for each candidate and pair. released: one margin, a scalar.
    """
    moved_KTD = candidates_KTD - references_KTD
    if variant == "paper":
        return 2 * moved_KTD.flatten(1) @ (chosen_PTD - rejected_NTD).flatten(1).T
    # Tokens count as further candidates and targets.
    towards_D = chosen_PTD.mean(dim=(0, 1)) - rejected_NTD.mean(dim=(0, 1))
    return 2 * (moved_KTD.mean(dim=(0, 1)) * towards_D).mean()
