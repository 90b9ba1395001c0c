"""The features of a group as an objective over keys takes them: checked, and those of one shape together.

Axes: G keys of one shape, K candidates, S images of the supports, Q queries, T tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drpo.errors import ShapeError
from drpo.method.objectives.base import Features, Group, Needs


@dataclass(frozen=True)
class Stack:
    """The features of G keys of one shape, in float32.

    Attributes:
        queries_GKTD: of the candidates that are moved, with their graph.
        reference_GKTD: of their references; None if the objective needs none.
        images_GSTD: of the supports; None if these are the queries themselves.
    """

    queries_GKTD: Tensor
    reference_GKTD: Tensor | None
    images_GSTD: Tensor | None

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        candidates: Features,
        reference: Features | None,
        images: Features | None,
        queries_Q: Tensor | None,
    ) -> Stack:
        """The features of these keys.

        Args:
            keys: the keys.
            candidates: the features of the group.
            reference: those of its references; None: there are none.
            images: those of given supports; None: the supports are candidates.
            queries_Q: which candidates are moved; None: all.
        """

        def stack(features: Features) -> Tensor:
            return torch.stack([features[key].float() for key in keys])

        candidates_GKTD = stack(candidates)
        reference_GKTD = stack(reference).detach() if reference is not None else None
        images_GSTD = stack(images) if images is not None else None
        if queries_Q is None:
            return cls(candidates_GKTD, reference_GKTD, images_GSTD)
        if images_GSTD is None:
            images_GSTD = candidates_GKTD.detach()
        if reference_GKTD is not None:
            reference_GKTD = reference_GKTD[:, queries_Q]
        return cls(candidates_GKTD[:, queries_Q], reference_GKTD, images_GSTD)


def find_stacks(features: Features) -> list[list[str]]:
    """The keys by the shape of their features: those of one shape are computed together."""
    stacks: dict[torch.Size, list[str]] = {}
    for key, tokens in features.items():
        stacks.setdefault(tokens.shape, []).append(key)
    return list(stacks.values())


def check_features(group: Group, needs: Needs) -> tuple[Features, Features | None]:
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
