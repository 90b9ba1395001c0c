"""GenEval's rules, on random cases, against a second implementation of the benchmark's evaluator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from drpo_rewards.api.geneval import GenevalSpec
from drpo_rewards.rewards.geneval.detector import Detection
from drpo_rewards.rewards.geneval.rules import judge

pytestmark = pytest.mark.thorough

LABELS = ("cat", "dog", "cup")
HUES = ("red", "green", "blue")
WHERE = ("left of", "right of", "above", "below")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
NO_MASK = np.zeros((1, 1), dtype=bool)

Thing = tuple[str, float, tuple[int, int, int, int], str]  # label, score, box, colour


def draw_spec(random: np.random.Generator, tag: str) -> dict[str, Any]:
    one, two = (str(label) for label in random.choice(LABELS, 2, replace=False))
    if tag == "single_object":
        return {"tag": tag, "include": [{"class": one, "count": 1}]}
    if tag == "two_object":
        return {"tag": tag, "include": [{"class": one, "count": 1}, {"class": two, "count": 1}]}
    if tag == "counting":
        count = int(random.integers(1, 4))
        wanted = {"class": one, "count": count}
        return {"tag": tag, "include": [wanted], "exclude": [{"class": one, "count": count + 1}]}
    if tag == "colors":
        return {"tag": tag, "include": [{"class": one, "count": 1, "color": str(random.choice(HUES))}]}
    if tag == "color_attr":
        hues = [str(hue) for hue in random.choice(HUES, 2)]
        return {
            "tag": tag,
            "include": [{"class": c, "count": 1, "color": h} for c, h in zip((one, two), hues, strict=True)],
        }
    there = [str(random.choice(WHERE)), 0]
    counts = [int(n) for n in random.integers(1, 3, 2)]
    first, second = {"class": one, "count": counts[0]}, {"class": two, "count": counts[1], "position": there}
    return {"tag": tag, "include": [first, second]}


def draw_things(random: np.random.Generator, spec: dict[str, Any]) -> list[Thing]:
    """Draw objects on a coarse grid with scores at and near both thresholds, so that ties are common."""
    things = []
    labels = [clause["class"] for clause in spec["include"]] * 2 + [str(random.choice(LABELS))]
    for label in random.permutation(labels)[: int(random.integers(0, 6))]:
        x, y, width, height = (10 * int(n) for n in random.integers([0, 0, 1, 1], [10, 10, 4, 4]))
        score = float(random.choice([0.29, 0.3, 0.31, 0.6, 0.9, 0.91, 0.99]))
        things.append((str(label), score, (x, y, x + width, y + height), str(random.choice(HUES))))
    return things


def holds(relation: str, a: Thing, b: Thing) -> bool:
    """Return whether `a` is in this relation to `b`, with every number of the rule written out."""
    (ax, ay), (bx, by) = (((t[2][0] + t[2][2]) / 2, (t[2][1] + t[2][3]) / 2) for t in (a, b))
    dx, dy = ax - bx, ay - by
    slack_x = 0.1 * ((a[2][2] - a[2][0]) + (b[2][2] - b[2][0]))
    slack_y = 0.1 * ((a[2][3] - a[2][1]) + (b[2][3] - b[2][1]))
    far_x = math.copysign(max(abs(dx) - slack_x, 0), dx)
    far_y = math.copysign(max(abs(dy) - slack_y, 0), dy)
    if abs(far_x) < 1e-3 and abs(far_y) < 1e-3:
        return False
    length = math.hypot(dx, dy)
    return {
        "left of": far_x / length < -0.5,
        "right of": far_x / length > 0.5,
        "above": far_y / length < -0.5,
        "below": far_y / length > 0.5,
    }[relation]


def correct(spec: dict[str, Any], things: list[Thing]) -> bool:
    """Return the benchmark's verdict."""
    threshold = 0.9 if spec["tag"] == "counting" else 0.3
    seen = sorted((thing for thing in things if thing[1] > threshold), key=lambda thing: thing[1], reverse=True)
    of_class = {label: [thing for thing in seen if thing[0] == label][:16] for label in LABELS}
    right, groups = True, []
    for clause in spec["include"]:
        found, matched = of_class[clause["class"]][: clause["count"]], True
        if len(found) < clause["count"]:
            right = matched = False
        else:
            if "color" in clause and sum(thing[3] == clause["color"] for thing in found) < clause["count"]:
                right = matched = False
            if "position" in clause and matched:
                relation, index = clause["position"]
                targets = groups[index]
                if targets is None or not all(holds(relation, a, b) for a in found for b in targets):
                    right = matched = False
        groups.append(found if matched else None)
    return right and all(len(of_class[clause["class"]]) < clause["count"] for clause in spec.get("exclude", []))


@pytest.mark.parametrize("tag", TAGS)
def test_strict_is_the_benchmarks_verdict(tag: str) -> None:
    random = np.random.default_rng(TAGS.index(tag))
    verdicts = []
    for _ in range(200):
        spec = draw_spec(random, tag)
        things = draw_things(random, spec)
        detections = [Detection(label, score, box, NO_MASK) for label, score, box, _ in things]
        hue = {id(detection): thing[3] for detection, thing in zip(detections, things, strict=True)}
        result = judge(GenevalSpec.model_validate(spec), detections, lambda some, hue=hue: [hue[id(o)] for o in some])
        assert result.strict == correct(spec, things), (spec, things)
        assert (result.graded == 1) == (result.strict == 1)
        verdicts.append(result.strict)
    assert 5 < sum(verdicts) < 195  # both happen
