"""GenEval's rules, which check the detections in an image against what the prompt asks for. Pure functions.

Source: the GenEval benchmark (Ghosh et al., 2023), whose evaluator these rules follow check by check. `strict` is its
score, 0 or 1. `graded` is our own, for ranking: the mean of the checks, each of which is the share of a demand that is
met, 0 to 1. So it is 1 exactly if `strict` is 1, and images that fail still differ in how much they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from drpo_rewards.api.geneval import Clause, GenevalSpec
from drpo_rewards.rewards.geneval.detector import Detection

THRESHOLD = 0.3  # a detection counts above this confidence
COUNTING_THRESHOLD = 0.9  # the same if the task is counting
MAX_PER_CLASS = 16
POSITION_MARGIN = 0.1  # two centres must differ by more than this share of the sum of the two sizes

NameColors = Callable[[Sequence[Detection]], list[str]]


@dataclass(frozen=True)
class Verdict:
    """The result of the rules for one image.

    Attributes:
        strict: GenEval's own score, 0 or 1.
        graded: the mean of all checks, 0 to 1.
        reasons: one sentence for each demand that is not met.

    Example:
        Verdict(0, 0.5, ["expected 1 red circle, found blue"])
    """

    strict: int
    graded: float
    reasons: list[str]


def judge(spec: GenevalSpec, detections: Sequence[Detection], name_colors: NameColors) -> Verdict:
    """Check one image's detections against a spec.

    Every include clause must be met. The `count` most confident objects of a clause's class are its found objects, and
    the colour and position are checked on them.

    Args:
        spec: what the prompt asks for.
        detections: the objects that were detected in the image, in any order.
        name_colors: returns one colour name per detection.
    """
    objects = keep(detections, COUNTING_THRESHOLD if spec.tag == "counting" else THRESHOLD)
    shares: list[float] = []
    reasons: list[str] = []
    matched: list[bool] = []  # for each include clause, whether every demand is met
    groups: list[list[Detection]] = []  # for each include clause, the found objects
    for clause in spec.include:
        found = objects.get(clause.class_, [])[: clause.count]
        shares.append(len(found) / clause.count)
        met = len(found) == clause.count
        if not met:
            reasons.append(f"expected {_amount(clause)}, found {len(found)}")
        if clause.color is not None:
            colors = name_colors(found) if found else []
            right = colors.count(clause.color)
            shares.append(min(right, clause.count) / clause.count)
            if met and right < clause.count:
                met = False
                reasons.append(f"expected {clause.count} {clause.color} {clause.class_}, found {_join_colors(colors)}")
        if clause.position is not None:
            relation, target = clause.position
            share = _position_share(relation, found, clause.count, groups[target], spec.include[target].count)
            shares.append(share)
            if met and not matched[target]:
                met = False
                reasons.append(f"no correct {spec.include[target].class_} for {clause.class_} to be {relation}")
            elif met and share < 1:
                met = False
                reasons.append(f"expected {clause.class_} {relation} {spec.include[target].class_}")
        matched.append(met)
        groups.append(found)
    too_many = False
    for clause in spec.exclude:
        number = len(objects.get(clause.class_, []))
        excess = max(number - clause.count + 1, 0)
        shares.append(max(1 - excess / clause.count, 0.0))
        if excess:
            too_many = True
            reasons.append(f"expected fewer than {_amount(clause)}, found {number}")
    strict = int(all(matched) and not too_many)
    return Verdict(strict, float(np.mean(shares)), reasons)


def keep(detections: Sequence[Detection], threshold: float) -> dict[str, list[Detection]]:
    """Return the detections above the threshold by class, the most confident first, at most MAX_PER_CLASS of each."""
    objects: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if detection.score > threshold:
            objects.setdefault(detection.label, []).append(detection)
    return {label: found[:MAX_PER_CLASS] for label, found in objects.items()}


def relations(a: Detection, b: Detection) -> set[str]:
    """Return the relations of `a` to `b`. Several may hold, or none if the two overlap too much."""
    corners_a, corners_b = (np.array(box.box).reshape(2, 2) for box in (a, b))  # ((x1, y1), (x2, y2))
    offset = corners_a.mean(axis=0) - corners_b.mean(axis=0)
    sizes = np.abs(corners_a[1] - corners_a[0]) + np.abs(corners_b[1] - corners_b[0])
    beyond = np.maximum(np.abs(offset) - POSITION_MARGIN * sizes, 0) * np.sign(offset)
    if (np.abs(beyond) < 1e-3).all():
        return set()
    dx, dy = beyond / np.linalg.norm(offset)  # divided by the full offset, as in the original; y grows downward
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, does_hold in holds.items() if does_hold}


def _position_share(
    relation: str, found: Sequence[Detection], count: int, targets: Sequence[Detection], target_count: int
) -> float:
    """Return the share of all requested (object, target) pairs that are in the relation. Missing objects are not."""
    holding = sum(relation in relations(detection, target) for detection in found for target in targets)
    return holding / (count * target_count)


def _amount(clause: Clause) -> str:
    return f"{clause.count} {clause.class_}"


def _join_colors(colors: Sequence[str]) -> str:
    return ", ".join(colors) if colors else "none"
