"""How the report writes scores."""

from __future__ import annotations

from drpo.report.scale import Scale


def test_the_largest_change_has_two_digits_however_far_apart_the_tasks_lie() -> None:
    scale = Scale.of({"tasks": {"a": {"base": 40.88, "tuned": 40.84}, "b": {"base": 62.9, "tuned": 60.7}}})
    assert (scale.text(40.84), scale.difference(-2.2)) == ("40.8", "\N{MINUS SIGN}2.2")
    same = Scale.of({"tasks": {"a": {"base": 40.0, "tuned": 40.0}, "b": {"base": 62.0, "tuned": 62.0}}})
    assert same.decimals <= 2


def test_a_change_that_rounds_to_nothing_has_no_minus_sign() -> None:
    scale = Scale.of({"percentage": True})
    assert (scale.difference(-0.01), scale.difference(0.01)) == ("+0.0", "+0.0")
    assert scale.text(-0.01) == "0.0\N{NO-BREAK SPACE}%"
