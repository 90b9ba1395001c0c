"""The DrPO objective: lines 7 to 12 of Algorithm 1 (Eq. 12 and 15-17), for each key of a feature map.

The preference field and the reference field are two calls of Algorithm A2 (`drpo.method.drift`). The loss is a
regression on a detached target, so its gradient with respect to the features is the negative field, up to a positive
factor (Eq. 3).

The two published variants also differ in the regression:

paper      V = V_pref + lambda V_ref (Eq. 15), target z + eta V (Eq. 16), loss 1/(2K) sum_i ||z_i - z_i*||^2 (Eq. 17;
           line 12 of Algorithm 1 prints 1/K). Like V, the regression is in the normalized coordinates of Eq. 20; z and
           the target share the scale of the preference call.
released   Two regressions, one per field, each in the coordinates of its call. The one on the reference field has the
           weight lambda. Each is the mean squared error over all tokens and features. The negatives of the reference
           field are the queries, with their diagonal masked.

The reference. Besides the reference field (`reference: drift`) there are two other terms that keep the generator near
its base, the first of them from the paper's Table 4. Both compare a candidate with the reference from the same noise:

reference: perceptual    lambda times the mean squared difference of each key's features, added over the keys
latent_anchor_weight     a weight times the mean squared difference of the latents

Sets of tokens. Each candidate has T tokens per key. `token_sets: location` makes T sets of K tokens, one per location,
which share one scale, as in the drifting models (Deng et al., 2026, appendix A.6). `token_sets: joint` makes one set of
all K*T tokens, as in the authors' trainer. The losses of the tokens are averaged, those of the keys are added
(`key_reduction: mean` averages them).

Axes: K candidates, T tokens, D features, M pairs, B sets, Q queries of a set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor

from drpo.config.section import Section
from drpo.errors import ShapeError
from drpo.method.drift import DriftField, Kernel, Variant, drift_field
from drpo.method.objectives.base import Features, Group, Needs, ObjectiveResult
from drpo.method.objectives.supports import find_supports

# Defaults of `variant: released`, from the launch command of the authors' trainer.
_RELEASED_DEFAULTS: dict[str, Any] = {"kernel": "laplacian", "support_weight": 3000.0, "token_sets": "joint"}


class DrPOSettings(Section):
    """Settings of the objective. The defaults are the paper's.

    `variant: released` changes three defaults: kernel laplacian, support_weight 3000, token_sets joint.

    Example:
        objective:
          name: drpo
          variant: paper
          radii: [0.02, 0.05, 0.2]
          velocity: 1.0
          reference_weight: 0.2
    """

    model_config = ConfigDict(frozen=True)

    variant: Variant = Field("paper", description="paper: as published; released: as in the authors' trainer")
    kernel: Kernel = Field("rbf", description="how affinity falls with distance; rbf is Eq. 21")
    radii: tuple[PositiveFloat, ...] = Field(
        (0.02, 0.05, 0.2),
        min_length=1,
        description="Omega, in mean distances between queries and supports; larger ones reach farther samples",
    )
    velocity: float = Field(1.0, gt=0, description="eta of Eq. 16, the distance of the target along the field")
    reference: Literal["drift", "perceptual", "none"] = Field(
        "drift",
        description="how candidates are kept near the base: drift: V_ref of Eq. 15; perceptual: squared differences of "
        "features; none: not at all",
    )
    reference_weight: float = Field(
        0.2, ge=0, description="lambda of Eq. 15; a larger one stays closer to the base; 0: no reference"
    )
    latent_anchor_weight: float = Field(
        0.0, ge=0, description="weight of the mean squared difference between latents and those of the base; 0: none"
    )
    support_weight: float = Field(1.0, gt=0, description="w_j of Eq. 19 and 22, the same for every support")
    key_reduction: Literal["sum", "mean"] = Field(
        "sum", description="how the losses of the feature map's keys are joined; the authors' trainer for SDXL has mean"
    )
    token_sets: Literal["location", "joint"] = Field(
        "location", description="location: one drift field per token position; joint: one for all tokens"
    )

    @model_validator(mode="before")
    @classmethod
    def _add_released_defaults(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("variant") == "released":
            return {**_RELEASED_DEFAULTS, **values}
        return values


class DrPOObjective:
    """The loss of a ranked group, lines 7 to 12 of Algorithm 1.

    Args:
        settings: the settings, as a model or a mapping; None: the defaults.
    """

    settings_class: ClassVar[type[BaseModel]] = DrPOSettings

    def __init__(self, settings: DrPOSettings | Mapping[str, Any] | None = None) -> None:
        self.settings = settings if isinstance(settings, DrPOSettings) else DrPOSettings.model_validate(settings or {})

    @property
    def needs(self) -> Needs:
        """Features of the candidates; of the references only what a term with a weight compares."""
        settings = self.settings
        anchored = settings.latent_anchor_weight > 0
        return Needs(
            takes_queries=True,
            latents=anchored,
            features=True,
            reference_latents=anchored,
            reference_features=settings.reference != "none" and settings.reference_weight > 0,
            takes_supports=True,
        )

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group (see `drpo.method.objectives.base.Objective`).

        A candidate may occur in many of the M >= 1 pairs. A+ and A- (Eq. 12) are detached rows of `features`, so the
        gradient flows only through the queries. The other terms compare the queries too. In offline training, A+ and A-
        are the given positives and negatives.

        Raises:
            ShapeError: a tensor does not fit the others.
            ConfigError: there are no pairs.
        """
        features, reference = _check_features(group, self.needs)
        positives, negatives = find_supports(group, features)
        rows: Tensor | slice = slice(None)
        if group.queries_Q is not None:
            rows = group.queries_Q.to(next(iter(features.values())).device)
        losses, logged = [], []
        for key, candidates_KTD in features.items():
            candidates_KTD = candidates_KTD.float()
            reference_KTD = reference[key].detach().float()[rows] if reference else None
            loss, metrics = self._key_loss(candidates_KTD[rows], positives.of(key), negatives.of(key), reference_KTD)
            losses.append(loss)
            logged.append(metrics)
        means = {name: torch.stack([metrics[name] for metrics in logged]).mean().item() for name in logged[0]}
        loss = getattr(torch.stack(losses), self.settings.key_reduction)()
        if self.settings.latent_anchor_weight:
            distance = _latent_distance(group, rows)
            loss = loss + self.settings.latent_anchor_weight * distance
            means["latent_distance"] = distance.item()
        return ObjectiveResult(loss, means)

    def _key_loss(
        self,
        candidates_KTD: Tensor,
        positives: tuple[Tensor, Tensor],
        negatives: tuple[Tensor, Tensor],
        reference_KTD: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one key, and its metrics.

        Here K counts the queries. Positives and negatives are tokens (S, T, D) and weights (S,).
        """
        settings = self.settings
        queries_BQD = self._sets(candidates_KTD)
        detached_BQD = queries_BQD.detach()

        preference = self._field(
            detached_BQD,
            self._sets(positives[0]),
            self._sets(negatives[0]),
            weights=(self._set_weights(*positives), self._set_weights(*negatives)),
        )
        fields = [(1.0, preference)]
        reference_BQD = self._sets(reference_KTD) if reference_KTD is not None else None
        if reference_BQD is not None and settings.reference == "drift":
            to_reference = self._field(detached_BQD, reference_BQD, detached_BQD, negatives_are_queries=True)
            fields.append((settings.reference_weight, to_reference))

        if settings.variant == "released":
            terms = []
            for weight, field in fields:
                normalized_BQD = queries_BQD / field.scale
                terms.append(weight * F.mse_loss(normalized_BQD, self._target(normalized_BQD, field.field_QD)))
            loss = torch.stack(terms).sum()
        else:
            total_BQD = torch.stack([weight * field.field_QD for weight, field in fields]).sum(dim=0)  # Eq. 15
            normalized_BQD = queries_BQD / preference.scale
            error_BQD = normalized_BQD - self._target(normalized_BQD, total_BQD)
            loss = 0.5 * error_BQD.square().sum(dim=-1).mean()  # the mean over the sets of Eq. 17
        if reference_KTD is not None and settings.reference == "perceptual":
            loss = loss + settings.reference_weight * F.mse_loss(candidates_KTD, reference_KTD)
        return loss, _metrics(detached_BQD, reference_BQD, fields)

    def _target(self, normalized_BQD: Tensor, field_BQD: Tensor) -> Tensor:
        """Eq. 16, in normalized coordinates."""
        return (normalized_BQD + self.settings.velocity * field_BQD).detach()

    def _field(
        self,
        queries_BQD: Tensor,
        positives_BPD: Tensor,
        negatives_BND: Tensor,
        *,
        weights: tuple[Tensor | float, Tensor | float] = (1.0, 1.0),
        negatives_are_queries: bool = False,
    ) -> DriftField:
        """The drift field. `weights`, of the positives and of the negatives, are in units of `support_weight`."""
        settings = self.settings
        return drift_field(
            queries_BQD,
            positives_BPD,
            negatives_BND,
            settings.radii,
            kernel=settings.kernel,
            variant=settings.variant,
            positive_weights_P=settings.support_weight * weights[0],
            negative_weights_N=settings.support_weight * weights[1],
            mask_negative_diagonal=negatives_are_queries and settings.variant == "released",
            share_scales=True,
        )

    def _sets(self, tokens_KTD: Tensor) -> Tensor:
        """The sets of the drift field: (T, K, D), one set per location, or (1, K*T, D), one joint set."""
        if self.settings.token_sets == "location":
            return tokens_KTD.transpose(0, 1)
        return tokens_KTD.flatten(0, 1).unsqueeze(0)

    def _set_weights(self, tokens_STD: Tensor, weights_S: Tensor) -> Tensor:
        """The weight of each support of the sets that `_sets` makes: all tokens of an image have its weight."""
        return weights_S if self.settings.token_sets == "location" else weights_S.repeat_interleave(tokens_STD.shape[1])


@torch.no_grad()
def _metrics(
    queries_BQD: Tensor, reference_BQD: Tensor | None, fields: list[tuple[float, DriftField]]
) -> dict[str, Tensor]:
    """The metrics of one key. Distances are in units of the mean distance s of the preference call."""
    _, preference = fields[0]
    metrics = {"preference_magnitude": torch.stack([m.mean() for m in preference.magnitudes]).mean()}
    if reference_BQD is not None:
        distance_BQ1 = (queries_BQD - reference_BQD).norm(dim=-1, keepdim=True) / preference.distance_scale
        metrics["reference_distance"] = distance_BQ1.mean()
    if len(fields) > 1:
        _, to_reference = fields[1]
        metrics["reference_magnitude"] = torch.stack([m.mean() for m in to_reference.magnitudes]).mean()
        metrics["field_cosine"] = F.cosine_similarity(
            preference.field_QD.flatten(), to_reference.field_QD.flatten(), dim=0, eps=1e-12
        )
    return metrics


def _latent_distance(group: Group, rows: Tensor | slice) -> Tensor:
    """The mean squared difference between the queries' latents and those of their references."""
    latents_KChw, reference_KChw = group.latents_KChw, group.reference_KChw
    if latents_KChw is None or reference_KChw is None or latents_KChw.shape != reference_KChw.shape:
        shapes = [None if one is None else tuple(one.shape) for one in (latents_KChw, reference_KChw)]
        raise ShapeError(f"DrPO: the latent anchor needs equal latents and references, not {shapes[0]} and {shapes[1]}")
    return F.mse_loss(latents_KChw[rows].float(), reference_KChw[rows].detach().float())


def _check_features(group: Group, needs: Needs) -> tuple[Features, Features | None]:
    """The features of a group and those of its references, once they fit each other."""
    features, reference = group.features or {}, group.reference_features
    if not needs.reference_features:
        reference = None
    elif reference is None or features.keys() != reference.keys():
        raise ShapeError(f"DrPO: features have keys {sorted(features)}, the reference has {sorted(reference or {})}")
    if not features:
        raise ShapeError("DrPO: the group has no features")
    for key, tokens in features.items():
        if tokens.ndim != 3 or (reference is not None and tokens.shape != reference[key].shape):
            other = f", its reference {tuple(reference[key].shape)}" if reference is not None else ""
            raise ShapeError(
                f"DrPO: a feature and its reference must both be (K, T, D): {key!r} is {tuple(tokens.shape)}{other}"
            )
    counts = {tokens.shape[0] for tokens in features.values()}
    if len(counts) > 1:
        raise ShapeError(f"DrPO: all features of a group must have the same number of candidates, not {sorted(counts)}")
    return features, reference
