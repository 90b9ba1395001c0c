"""The splits share no prompt, and the text of every prompt agrees with its specification."""

from __future__ import annotations

import pytest

from drpo.shapes.prompts import TASKS, prompts

SPLITS = ("train", "validation", "test")


def test_no_prompt_is_in_two_splits() -> None:
    seen = [{record.prompt for record in prompts(split)} for split in SPLITS]  # type: ignore[arg-type]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_enough_distinct_prompts_to_hold_out(task: str) -> None:
    for split in ("validation", "test"):
        held_out = prompts(split, task)  # type: ignore[arg-type]
        assert len({record.prompt for record in held_out}) == len(held_out) >= 40
    assert len(prompts("train", task)) >= 150


def test_the_text_agrees_with_the_specification() -> None:
    numbers = {1: ("a", "an", "one", "single"), 2: ("two",), 3: ("three",), 4: ("four",), 5: ("five",)}
    for split in SPLITS:
        for record in prompts(split):  # type: ignore[arg-type]
            words = record.prompt.split()
            assert record.metadata["prompt"] == record.prompt
            assert record.metadata["tag"] == record.task
            for clause in record.metadata["include"]:
                plural = "s" if clause["count"] > 1 else ""
                assert clause["class"] + plural in words
                assert any(number in words for number in numbers[clause["count"]])
                assert clause.get("color") is None or clause["color"] in words


def test_a_position_prompt_names_the_placed_object_first() -> None:
    """As in GenEval, the specification of "an A left of a B" has B first, then A with its relation to number 0."""
    for record in prompts("test", "position"):
        anchor, placed = record.metadata["include"]
        words = record.prompt.split()
        assert words.index(placed["class"]) < words.index(anchor["class"])
        assert placed["position"][1] == 0


def test_counting_excludes_one_object_more() -> None:
    for record in prompts("test", "counting"):
        (included,), (excluded,) = record.metadata["include"], record.metadata["exclude"]
        assert excluded == {"class": included["class"], "count": included["count"] + 1}


@pytest.mark.parametrize(("split", "task"), [("dev", None), ("test", "poetry")])
def test_an_unknown_split_or_task_is_refused_with_the_choices(split: str, task: str | None) -> None:
    with pytest.raises(ValueError, match="choose from"):
        prompts(split, task)  # type: ignore[arg-type]
