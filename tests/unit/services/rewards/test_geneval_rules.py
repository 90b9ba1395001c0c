"""GenEval's rules, on detections made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo_rewards.api.contract import parse
from drpo_rewards.api.geneval import GenevalSpec
from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.rewards.geneval.detector import Detection
from drpo_rewards.rewards.geneval.rules import Verdict, judge, keep, relations

MASK = np.zeros((64, 64), dtype=bool)


def found(label: str, x: float = 30, y: float = 30, size: float = 10, score: float = 0.95) -> Detection:
    return Detection(label, score, (x - size / 2, y - size / 2, x + size / 2, y + size / 2), MASK)


def verdict(spec: dict[str, Any], detections: Sequence[Detection], colors: dict[int, str] | None = None) -> Verdict:
    """Judge detections. `colors` has their colours by x; all others are grey."""

    def name_colors(some: Sequence[Detection]) -> list[str]:
        return [(colors or {}).get(round((one.box[0] + one.box[2]) / 2), "grey") for one in some]

    return judge(GenevalSpec.model_validate(spec), detections, name_colors)


COUNTING = {"tag": "counting", "include": [{"class": "star", "count": 3}], "exclude": [{"class": "star", "count": 4}]}


@pytest.mark.parametrize(
    ("number", "strict", "graded"),
    [
        (0, 0, 0.5),
        (1, 0, (1 / 3 + 1) / 2),
        (2, 0, (2 / 3 + 1) / 2),
        (3, 1, 1.0),
        (4, 0, 0.875),
        (5, 0, 0.75),
        (8, 0, 0.5),
    ],
)
def test_counting(number: int, strict: int, graded: float) -> None:
    result = verdict(COUNTING, [found("star", x) for x in range(number)])
    assert (result.strict, result.graded) == (strict, pytest.approx(graded))
    assert bool(result.reasons) == (strict == 0)


def test_counting_needs_more_confidence() -> None:
    stars = [found("star", score=0.9), found("star", score=0.91), found("star", score=0.95)]
    assert verdict(COUNTING, stars).reasons == ["expected 3 star, found 2"]
    assert verdict({**COUNTING, "tag": "other"}, stars).strict == 1


def test_thresholds_are_strict_and_classes_are_capped() -> None:
    kept = keep(
        [found("a", score=0.3), found("b", score=0.31)] + [found("c", x, score=0.5 + x / 100) for x in range(20)], 0.3
    )
    assert set(kept) == {"b", "c"}
    assert [one.score for one in kept["c"]] == [0.5 + x / 100 for x in range(19, 3, -1)]


def test_two_objects() -> None:
    spec = {"tag": "two_object", "include": [{"class": "star"}, {"class": "ring"}]}
    assert verdict(spec, [found("star"), found("ring")]) == Verdict(1, 1.0, [])
    assert verdict(spec, [found("star")]) == Verdict(0, 0.5, ["expected 1 ring, found 0"])


def test_only_the_most_confident_objects_colors_count() -> None:
    spec = {"tag": "colors", "include": [{"class": "star", "color": "red"}]}
    red, blue = found("star", x=1, score=0.5), found("star", x=2, score=0.6)
    colors = {1: "red", 2: "blue"}
    assert verdict(spec, [red], colors) == Verdict(1, 1.0, [])
    assert verdict(spec, [red, blue], colors) == Verdict(0, 0.5, ["expected 1 red star, found blue"])


def test_color_attribution() -> None:
    spec = {"tag": "color_attr", "include": [{"class": "star", "color": "red"}, {"class": "ring", "color": "blue"}]}
    swapped = verdict(spec, [found("star", 1), found("ring", 2)], {1: "blue", 2: "red"})
    assert (swapped.strict, swapped.graded) == (0, 0.5)
    half = verdict(spec, [found("star", 1), found("ring", 2)], {1: "red", 2: "red"})
    assert (half.strict, half.graded) == (0, 0.75)


POSITION = {"tag": "position", "include": [{"class": "ring"}, {"class": "star", "position": ["left of", 0]}]}


def test_position() -> None:
    assert verdict(POSITION, [found("ring", x=50), found("star", x=20)]) == Verdict(1, 1.0, [])
    right = verdict(POSITION, [found("ring", x=20), found("star", x=50)])
    assert right == Verdict(0, pytest.approx(2 / 3), ["expected star left of ring"])


def test_a_position_needs_a_correct_target() -> None:
    spec = {"include": [{"class": "ring", "color": "red"}, {"class": "star", "position": ["left of", 0]}]}
    objects = [found("ring", x=50), found("star", x=20)]
    assert verdict(spec, objects, {50: "red"}).strict == 1
    wrong = verdict(spec, objects, {50: "blue"})
    assert wrong.strict == 0
    assert wrong.graded == 0.75  # the ring's colour is the only check that is not met
    assert len(wrong.reasons) == 2


def test_every_found_object_against_every_target() -> None:
    spec = {"include": [{"class": "ring", "count": 2}, {"class": "star", "count": 2, "position": ["above", 0]}]}
    rings = [found("ring", 10, 50), found("ring", 12, 52)]
    assert verdict(spec, [*rings, found("star", 10, 10), found("star", 12, 12)]).strict == 1
    one_below = verdict(spec, [*rings, found("star", 10, 10), found("star", 12, 62)])
    assert one_below.strict == 0
    assert one_below.graded == pytest.approx((1 + 1 + 0.5) / 3)  # two of four pairs hold


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((10, 30), (50, 30), {"left of"}),
        ((50, 30), (10, 30), {"right of"}),
        ((30, 10), (30, 50), {"above"}),  # y grows downward
        ((30, 50), (30, 10), {"below"}),
        ((10, 10), (50, 50), {"left of", "above"}),
        ((31, 30), (30, 30), set()),  # closer than a tenth of both sizes
        ((30, 30), (30, 30), set()),
        ((34, 30), (30, 30), set()),  # (4 - 2) / 4 is not beyond a half
        ((35, 30), (30, 30), {"right of"}),  # (5 - 2) / 5 is
    ],
)
def test_relations(a: tuple[float, float], b: tuple[float, float], expected: set[str]) -> None:
    assert relations(found("star", *a), found("ring", *b)) == expected


def test_exclude() -> None:
    spec = {"include": [{"class": "star"}], "exclude": [{"class": "ring"}]}
    assert verdict(spec, [found("star")]).strict == 1
    assert verdict(spec, [found("star"), found("ring")]) == Verdict(0, 0.5, ["expected fewer than 1 ring, found 1"])


@given(
    st.sampled_from([COUNTING, POSITION, {"include": [{"class": "star", "count": 2, "color": "red"}]}]),
    st.lists(st.tuples(st.sampled_from(["star", "ring"]), st.integers(0, 63), st.floats(0, 1)), max_size=8),
)
def test_graded_is_1_exactly_if_strict_is_1(spec: dict[str, Any], drawn: list[tuple[str, int, float]]) -> None:
    detections = [found(label, x=x, score=score) for label, x, score in drawn]
    result = verdict(spec, detections, dict.fromkeys(range(32), "red"))
    assert 0 <= result.graded <= 1
    assert (result.graded == 1) == (result.strict == 1) == (not result.reasons)


@pytest.mark.parametrize(
    "spec",
    [
        {"include": []},
        {"include": [{"class": "a", "count": 0}]},
        {"include": [{"class": "a", "position": ["above", 0]}]},  # of itself
        {"include": [{"class": "a", "position": ["above", 1]}, {"class": "b"}]},  # of what comes later
        {"include": [{"class": "a"}], "exclude": [{"class": "b", "color": "red"}]},
        {"include": [{"class": "a", "colour": "red"}]},
    ],
)
def test_invalid_specs_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        parse(GenevalSpec, spec)
