"""The DrPO objective: lines 7 to 12 of Algorithm 1 (Eq. 12 and 15-17), for each key of a feature map.

The preference field and the reference field are two calls of Algorithm A2 (`drpo.method.drift`) among the same points:
all distances are computed once, and keys whose features have the same shape are computed together. The loss is a
regression on a detached target, so its gradient with respect to the features is the negative field, up to a positive
factor (Eq. 3).

The two published variants also differ in the regression:

paper      V = V_pref + lambda V_ref (Eq. 15), target z + eta V (Eq. 16), loss 1/(2K) sum_i ||z_i - z_i*||^2 (Eq. 17;
           line 12 of Algorithm 1 prints 1/K). Like V, the regression is in the normalized coordinates of Eq. 20; z and
           the target share the scale of the preference call.
released   Two regressions, one per field, each in the coordinates of its call. The one on the reference field has the
           weight lambda. Each is the mean squared error over all tokens and features. The negatives of the reference
           field are the queries, with their diagonal masked.

The scale of the reference field. Eq. 25 gives it the same length wherever the candidates are, so its pull is as strong
near the base as far from it. Two other scales are ours (`reference_scale`):

rms        Eq. 25, the paper's
raw        without Eq. 25: the pull fades as the candidates come to lie as the references do
coherent   Eq. 25, and then times the length of the mean of V_pref over a set's queries. What learns is what candidates
           share; so both fields' shared parts are of one length, and lambda is their ratio.

The reference. Besides the reference field (`reference: drift`) there are two other terms that keep the generator near
its base, the first of them from the paper's Table 4. Both compare a candidate with the reference from the same noise:

reference: perceptual    lambda times the mean squared difference of each key's features, added over the keys
latent_anchor_weight     a weight times the mean squared difference of the latents

Sets of tokens. Each candidate has T tokens per key. `token_sets: location` makes T sets of K tokens, one per location,
which share one scale, as in the drifting models (Deng et al., 2026, appendix A.6). `token_sets: joint` makes one set of
all K*T tokens, as in the authors' trainer. The losses of the tokens are averaged, those of the keys are added
(`key_reduction: mean` averages them).

Axes: G keys of one shape, K candidates, T tokens, D features, M pairs, B sets, Q queries of a set, S images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from drpo.config.section import Section
from drpo.errors import ShapeError
from drpo.method.drift import (
    LEAST_RADIUS,
    MOST_RADIUS,
    DriftField,
    Kernel,
    Points,
    Variant,
    field_among,
    measure_points,
)
from drpo.method.objectives.base import Group, Needs, ObjectiveResult
from drpo.method.objectives.stacks import Stack, check_features, find_stacks
from drpo.method.objectives.supports import FoundSupports, find_supports
from drpo.transfer import move

# Defaults of `variant: released`, from the launch command of the authors' trainer.
_RELEASED_DEFAULTS: dict[str, Any] = {"kernel": "laplacian", "support_weight": 3000.0, "token_sets": "joint"}

Radius = Annotated[float, Field(ge=LEAST_RADIUS, le=MOST_RADIUS)]


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
    radii: tuple[Radius, ...] = Field(
        (0.02, 0.05, 0.2),
        min_length=1,
        description="Omega, in mean distances between queries and supports; larger ones reach farther samples",
    )
    velocity: float = Field(1.0, gt=0, le=1e6, description="eta of Eq. 16, the distance of the target along the field")
    reference: Literal["drift", "perceptual", "none"] = Field(
        "drift",
        description="how candidates are kept near the base: drift: V_ref of Eq. 15; perceptual: squared differences of "
        "features; none: not at all",
    )
    reference_weight: float = Field(
        0.2, ge=0, description="lambda of Eq. 15; a larger one stays closer to the base; 0: no reference"
    )
    reference_scale: Literal["rms", "raw", "coherent"] = Field(
        "rms",
        description="the length of V_ref: rms: Eq. 25, the same everywhere; raw: fades near the base; coherent: that "
        "of what the candidates' preferences share",
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

    @model_validator(mode="after")
    def _check_scale(self) -> DrPOSettings:
        if self.reference != "drift" and self.reference_scale != "rms":
            raise ValueError(f"reference_scale is for reference: drift; reference: {self.reference} has no field")
        return self


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
        features, reference = check_features(group, self.needs)
        supports = find_supports(group, features)
        queries_Q = None
        if group.queries_Q is not None:
            queries_Q = move(group.queries_Q, next(iter(features.values())).device)
        losses, logged = [], []
        for keys in find_stacks(features):
            stack = Stack.of(keys, features, reference, supports.images, queries_Q)
            loss_G, metrics = self._stack_loss(stack, supports)
            losses.append(loss_G)
            logged.append(metrics)
        means = {name: torch.cat([metrics[name] for metrics in logged]).mean() for name in logged[0]}
        loss = getattr(torch.cat(losses), self.settings.key_reduction)()
        if self.settings.latent_anchor_weight:
            distance = _latent_distance(group, slice(None) if queries_Q is None else queries_Q)
            loss = loss + self.settings.latent_anchor_weight * distance
            means["latent_distance"] = distance.detach()
        return ObjectiveResult(loss, means)

    def _stack_loss(self, stack: Stack, supports: FoundSupports) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses (G,) of keys of one shape, and their metrics (G,)."""
        settings = self.settings
        queries_GBQD = self._sets(stack.queries_GKTD)
        reference_GBQD = self._sets(stack.reference_GKTD) if stack.reference_GKTD is not None else None
        count = queries_GBQD.shape[-2]
        # The points: the queries, other images if there are any, the references if there are any.
        images = [] if stack.images_GSTD is None else [self._sets(stack.images_GSTD)]
        references = [] if reference_GBQD is None else [reference_GBQD]
        points = measure_points(queries_GBQD.detach(), *images, *references, kernel=settings.kernel)
        others = points.distances_QA.shape[-1] - count * len(references)
        preference = self._preference(points.first(others), supports, stack.queries_GKTD.shape[2], count * len(images))
        fields = [(1.0, preference)]
        if references and settings.reference == "drift":
            rows_A = torch.arange(others + count, device=queries_GBQD.device)
            to_reference = self._field(
                points,
                rows_A[others:],
                rows_A[:count],
                (settings.support_weight, settings.support_weight),
                mask_negative_diagonal=settings.variant == "released",
                normalize=settings.reference_scale != "raw",
            )
            if settings.reference_scale == "coherent":
                to_reference = _scale_to_shared_part(to_reference, preference)
            fields.append((settings.reference_weight, to_reference))

        if settings.variant == "released":
            terms = [self._regress(queries_GBQD, field.field_QD, field.scale, weight) for weight, field in fields]
        else:
            total_GBQD = preference.field_QD
            for weight, field in fields[1:]:
                total_GBQD = total_GBQD + weight * field.field_QD  # Eq. 15
            # Eq. 17 has a half, the sum over D and the mean over the queries, here also over the sets.
            terms = [self._regress(queries_GBQD, total_GBQD, preference.scale, 0.5 * queries_GBQD.shape[-1])]
        loss_G = torch.stack(terms).sum(dim=0)
        if reference_GBQD is not None and settings.reference == "perceptual":
            loss_G = loss_G + settings.reference_weight * (queries_GBQD - reference_GBQD).square().mean(dim=(1, 2, 3))
        return loss_G, _metrics(points.distances_QA[..., others:], fields)

    def _regress(self, queries_GBQD: Tensor, field_GBQD: Tensor, scale: Tensor, weight: float) -> Tensor:
        """A weight times the mean squared error of z = queries / scale on the target z + eta V (Eq. 16), (G,)."""
        eta, count = self.settings.velocity, queries_GBQD[0].numel()
        squares_G = torch.linalg.vector_norm(field_GBQD, dim=-1).square().sum(dim=(1, 2))
        errors_G = squares_G * (weight * eta**2 / count)
        return _Regression.apply(queries_GBQD, errors_G, field_GBQD, scale, -2 * weight * eta / count)

    def _preference(self, points: Points, supports: FoundSupports, tokens: int, first: int) -> DriftField:
        """V_pref. The tokens of the supports' images begin at row `first` of the points."""
        weights = (supports.positive_weights_P, supports.negative_weights_N)
        return self._field(
            points,
            self._rows(supports.positives_P, tokens) + first,
            self._rows(supports.negatives_N, tokens) + first,
            tuple(self.settings.support_weight * self._token_weights(weights_S, tokens) for weights_S in weights),
        )

    def _field(
        self,
        points: Points,
        positives_P: Tensor,
        negatives_N: Tensor,
        weights: tuple[Tensor | float, ...],
        *,
        mask_negative_diagonal: bool = False,
        normalize: bool = True,
    ) -> DriftField:
        settings = self.settings
        return field_among(
            points,
            positives_P,
            negatives_N,
            settings.radii,
            kernel=settings.kernel,
            variant=settings.variant,
            positive_weights_P=weights[0],
            negative_weights_N=weights[1],
            mask_negative_diagonal=mask_negative_diagonal,
            share_scales=True,
            normalize=normalize,
        )

    def _sets(self, tokens_GKTD: Tensor) -> Tensor:
        """The sets of the drift field: (G, T, K, D), one per location, or (G, 1, K*T, D), one joint set for a key."""
        if self.settings.token_sets == "location":
            return tokens_GKTD.transpose(1, 2)
        return tokens_GKTD.flatten(1, 2).unsqueeze(1)

    def _rows(self, images_S: Tensor, tokens: int) -> Tensor:
        """Where the tokens of images are in the sets that `_sets` makes."""
        if self.settings.token_sets == "location":
            return images_S
        return (images_S.unsqueeze(1) * tokens + torch.arange(tokens, device=images_S.device)).flatten()

    def _token_weights(self, weights_S: Tensor, tokens: int) -> Tensor:
        """The weights of these rows: all tokens of an image have its weight."""
        return weights_S if self.settings.token_sets == "location" else weights_S.repeat_interleave(tokens)


class _Regression(torch.autograd.Function):
    """The losses of regressions, whose gradient is known: the error is -eta V, so it is V times a factor (Eq. 3)."""

    @staticmethod
    def forward(
        context: Any, queries_GBQD: Tensor, errors_G: Tensor, field_GBQD: Tensor, scale: Tensor, factor: float
    ) -> Tensor:
        context.save_for_backward(field_GBQD, scale)
        context.factor = factor
        return errors_G

    @staticmethod
    def backward(context: Any, gradient_G: Tensor) -> Any:
        field_GBQD, scale = context.saved_tensors
        return field_GBQD * (context.factor * gradient_G[:, None, None, None] / scale), None, None, None, None


def _scale_to_shared_part(to_reference: DriftField, preference: DriftField) -> DriftField:
    """V_ref times the RMS, over sets and features, of the mean of V_pref over the queries of each set."""
    shared_GB1D = preference.field_QD.mean(dim=-2, keepdim=True)
    length_G111 = shared_GB1D.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return replace(to_reference, field_QD=to_reference.field_QD * length_G111)


@torch.no_grad()
def _metrics(to_references_GBQQ: Tensor, fields: list[tuple[float, DriftField]]) -> dict[str, Tensor]:
    """The metrics of G keys.

    Args:
        to_references_GBQQ: the distances between queries and references; (G, B, Q, 0) without references. The metric
            is in units of the mean distance s of the preference call.
        fields: V_pref, and V_ref if there is one, with their weights.
    """

    def mean_magnitude(field: DriftField) -> Tensor:
        return torch.stack(field.magnitudes).mean(dim=0).flatten()

    _, preference = fields[0]
    metrics = {"preference_magnitude": mean_magnitude(preference)}
    if to_references_GBQQ.shape[-1]:
        own_GBQ = to_references_GBQQ.diagonal(dim1=-2, dim2=-1)
        metrics["reference_distance"] = own_GBQ.mean(dim=(1, 2)) / preference.distance_scale.flatten()
    if len(fields) > 1:
        _, to_reference = fields[1]
        metrics["reference_magnitude"] = mean_magnitude(to_reference)
        metrics["field_cosine"] = F.cosine_similarity(
            preference.field_QD.flatten(1), to_reference.field_QD.flatten(1), dim=1, eps=1e-12
        )
    return metrics


def _latent_distance(group: Group, rows: Tensor | slice) -> Tensor:
    """The mean squared difference between the queries' latents and those of their references."""
    latents_KChw, reference_KChw = group.latents_KChw, group.reference_KChw
    if latents_KChw is None or reference_KChw is None or latents_KChw.shape != reference_KChw.shape:
        shapes = [None if one is None else tuple(one.shape) for one in (latents_KChw, reference_KChw)]
        raise ShapeError(f"DrPO: the latent anchor needs equal latents and references, not {shapes[0]} and {shapes[1]}")
    return F.mse_loss(latents_KChw[rows].float(), reference_KChw[rows].detach().float())
