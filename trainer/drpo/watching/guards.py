"""Guard metrics: what no reward measures, and what is lost when a reward is over-optimised.

    guard/diversity          mean distance between the pictures of one prompt; 1: as different as those of the base
    guard/distance_to_base   mean distance to the base's picture from the same noise; 0: unchanged, 1: as far away as
                             two pictures of the base for one prompt are from each other
    guard/colors             in the world of shapes: the effective number of colours where prompts leave them open;
                             1: as many as the base uses
    guard/places             the same of the nine parts of the picture, see `drpo.shapes.variety`

Distances are those of `drpo.evaluation.diversity`, in the feature map of the run, or in the latents if it has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drpo.evaluation.diversity import measure_distances, measure_diversity
from drpo.evaluation.evaluate import Batch
from drpo.evaluation.plan import PlannedImage
from drpo.generators.base import Conditions
from drpo.method.features import load_feature_map
from drpo.method.features.base import FeatureContext, FeatureMap, ImageFeatureMap
from drpo.shapes.variety import Seen, add, look

DIVERSITY = "guard/diversity"
DISTANCE = "guard/distance_to_base"
COLORS = "guard/colors"
PLACES = "guard/places"

MOST_IMAGES = 256
"""Images that are measured, of all workers together: the features of the base's are kept in memory."""

_Features = dict[str, Tensor]
_Key = tuple[str, str, int]
_Objects = Mapping[_Key, Sequence[Mapping[str, Any]]]
"""What GenEval's details say about images, see `ScoredImage.objects`."""


@dataclass(frozen=True)
class Measured:
    """The guard metrics of one prompt: plain distances, and counts of what was free to choose, the base's own too."""

    task: str
    diversity: float
    distance: float
    base_diversity: float
    seen: Seen
    base_seen: Seen


def choose_groups(planned: Sequence[PlannedImage]) -> list[list[PlannedImage]]:
    """The images of each prompt that is measured: prompts of all tasks in turn, up to `MOST_IMAGES`.

    A prompt with a single image is not measured. The choice does not depend on the workers, and so neither do the
    numbers: a run may go on with another number of them.

    Args:
        planned: the images of all workers.
    """
    by_task: dict[str, list[list[PlannedImage]]] = {}
    for record, images in groupby(planned, key=lambda image: image.record):
        group = list(images)
        if len(group) > 1:
            by_task.setdefault(record.task, []).append(group)
    in_turn = [group for row in zip_longest(*by_task.values()) for group in row if group is not None]
    totals = accumulate(map(len, in_turn))
    return [group for group, total in zip(in_turn, totals, strict=True) if total <= MOST_IMAGES or group is in_turn[0]]


class Guards:
    """Measures the pictures of one worker's prompts. Call `observe` with every batch, then `collect`.

    Args:
        feature_map: that of the run; None: distances of latents.
        groups: this worker's share of what `choose_groups` has chosen.
        of_shapes: whether they are of the world of shapes, whose colours and places can be read.
    """

    def __init__(
        self, feature_map: FeatureMap | None, groups: Sequence[Sequence[PlannedImage]], *, of_shapes: bool = False
    ) -> None:
        self._feature_map = feature_map if feature_map is not None else load_feature_map("raw_latent")
        self._groups = groups
        self.measured = {image.key for group in self._groups for image in group}
        self._base: dict[_Key, _Features] = {}
        self._base_diversity: dict[int, float] = {}
        self._present: dict[_Key, _Features] = {}
        self._of_shapes = of_shapes
        self._pictures: dict[_Key, NDArray[np.uint8]] = {}
        self._base_seen: dict[_Key, Seen] = {}

    @property
    def knows_base(self) -> bool:
        """Whether the base's pictures have been observed."""
        return self._base.keys() == self.measured

    def observe_base(self, batch: Batch) -> None:
        """Takes a batch of the base's pictures."""
        self._base |= self._describe(batch)
        pictures = self._measured_pictures(batch)
        self._base_seen |= {
            image.key: look(pictures[image.key], image.record.metadata or {})
            for image in batch.planned
            if image.key in pictures
        }

    def observe(self, batch: Batch) -> None:
        """Takes a batch of the present weights' pictures."""
        self._present |= self._describe(batch)
        self._pictures |= self._measured_pictures(batch)

    def collect(self, objects: _Objects | None = None) -> list[Measured]:
        """The guard metrics of every prompt whose pictures were observed since the last call.

        Args:
            objects: what GenEval has found in them, by the keys of the images. It is looked for in the others.
        """
        found, objects = [], objects or {}
        for number, group in enumerate(self._groups):
            base, present = (_stack([seen[image.key] for image in group]) for seen in (self._base, self._present))
            if number not in self._base_diversity:
                self._base_diversity[number] = measure_diversity(base)
            distance = float(measure_distances(base, present).mean())
            diversity = measure_diversity(present)
            seen = add(
                look(self._pictures[image.key], image.record.metadata or {}, objects.get(image.key))
                for image in group
                if self._of_shapes
            )
            base_seen = add(self._base_seen[image.key] for image in group if self._of_shapes)
            found.append(
                Measured(group[0].record.task, diversity, distance, self._base_diversity[number], seen, base_seen)
            )
        self._present, self._pictures = {}, {}
        return found

    def _measured_pictures(self, batch: Batch) -> dict[_Key, NDArray[np.uint8]]:
        """The pictures of a batch in which to look for objects; none if they are not of the world of shapes."""
        pictures = zip(batch.planned, batch.images_NHWC, strict=True)
        return {image.key: picture for image, picture in pictures if self._of_shapes and image.key in self.measured}

    @torch.no_grad()
    def _describe(self, batch: Batch) -> dict[_Key, _Features]:
        """The features of each image of a batch, on the CPU."""
        rows = [row for row, image in enumerate(batch.planned) if image.key in self.measured]
        if not rows:
            return {}
        pooled_ND = batch.conditions.pooled_ND
        pooled_ND = pooled_ND[rows] if pooled_ND is not None else None
        context = FeatureContext(Conditions(batch.conditions.text_NTD[rows], pooled_ND))
        if isinstance(self._feature_map, ImageFeatureMap):
            images_N3HW = torch.from_numpy(batch.images_NHWC[rows]).permute(0, 3, 1, 2).to(batch.latents_NChw.device)
            features = self._feature_map.of_images(images_N3HW.float() / 127.5 - 1, context)
        else:
            features = self._feature_map.of_latents(batch.latents_NChw[rows], context)
        features = {key: tokens_NTD.float().cpu() for key, tokens_NTD in features.items()}
        return {
            batch.planned[row].key: {key: one[number] for key, one in features.items()}
            for number, row in enumerate(rows)
        }


def _stack(features: Sequence[_Features]) -> _Features:
    return {key: torch.stack([one[key] for one in features]) for key in features[0]}
