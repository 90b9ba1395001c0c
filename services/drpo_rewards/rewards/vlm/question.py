"""The question of `vlm_score`, its possible answers, and what they are worth."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import Score
from drpo_rewards.settings.yaml_text import SettingsLoader

DEFAULT_RUBRIC = "How well does the picture show what the prompt asks for?"
DEFAULT_QUESTION = (
    'The picture was made from the prompt "{prompt}". {rubric} Rate it with one of {scale}, where {best} is best and '
    "{worst} is worst. Answer with the rating only."
)
DEFAULT_ANSWERS = {str(number): float(number) for number in range(1, 6)}
PLACEHOLDERS = ("prompt", "rubric", "scale", "best", "worst")


@dataclass(frozen=True)
class ScoredQuestion:
    """A question about a picture and its prompt.

    Attributes:
        name: names it in the reward's version.
        template: the question, with placeholders such as {prompt}.
        answers: what each possible answer is worth.
        answer_start: how the answer already begins, for a model in this process.
        renormalize: whether only the answers' probabilities relative to each other count.
    """

    name: str
    template: str
    answers: dict[str, float]
    answer_start: str = ""
    renormalize: bool = True

    def write(self, prompt: str) -> str:
        """Return the question about a prompt, which cannot fill other placeholders."""
        return self.template.replace("{prompt}", prompt)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest score."""
        values = [*self.answers.values(), *([] if self.renormalize else [0.0])]
        return min(values), max(values)


def make_question(
    preset: str | None,
    question: str | None,
    rubric: str | None,
    answers: dict[str, float] | None,
    answer_start: str | None,
) -> ScoredQuestion:
    """Make the question from the reward's options.

    Raises:
        ConfigError: the options do not fit each other; the message says which.
    """
    if preset is not None:
        if any(option is not None for option in (question, rubric, answers, answer_start)):
            raise ConfigError("vlm_score: a preset has its own question and answers; leave the other options out")
        if preset not in load_presets():
            raise ConfigError(f"vlm_score: no preset {preset!r}; known are {', '.join(load_presets())}")
        found = load_presets()[preset]
        start, renormalize = found.get("answer_start", ""), found.get("renormalize", True)
        return ScoredQuestion(preset, found["question"], found["answers"], start, renormalize)
    worth = _check_answers(DEFAULT_ANSWERS if answers is None else answers)
    if question is not None and rubric is not None and "{rubric}" not in question:
        raise ConfigError("vlm_score: the question has no {rubric}; leave `rubric` out, or add it to the question")
    template = DEFAULT_QUESTION if question is None else question
    if not template.strip():
        raise ConfigError("vlm_score: the question is empty")
    for text in (template, rubric or ""):
        _check_placeholders(text)
    in_order = sorted(worth, key=lambda answer: worth[answer])
    filled = {
        "rubric": rubric or DEFAULT_RUBRIC,
        "scale": ", ".join(in_order[:-1]) + f" or {in_order[-1]}",
        "worst": in_order[0],
        "best": in_order[-1],
    }
    for name, text in filled.items():
        template = template.replace(f"{{{name}}}", text)
    return ScoredQuestion("own", template, worth, answer_start or "")


def _check_placeholders(text: str) -> None:
    """Check that what looks like a placeholder is one. Other braces, as of JSON, stay in the question as they are."""
    for braces in re.findall(r"\{\{[^{}]*\}\}|\{[^{}]*\}", text):
        inner = braces.strip("{}")
        named = re.match(rf"\s*(?:{'|'.join(PLACEHOLDERS)})\b", inner)
        if (named or re.fullmatch(r"\s*\w*\s*", inner)) and braces not in [f"{{{one}}}" for one in PLACEHOLDERS]:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise ConfigError(f"vlm_score: the question has no placeholder {braces}; known are {known}")


def expect(question: ScoredQuestion, logs_A: np.ndarray) -> Score:
    """Return the expected value over the answers, whose log-probabilities are given."""
    chances_A = np.exp(logs_A)
    weights_A = chances_A
    if question.renormalize:  # also where all are too small for a probability
        weights_A = np.exp(logs_A - np.logaddexp.reduce(logs_A))
    value = float(np.array(list(question.answers.values())) @ weights_A)
    lowest, highest = question.range
    details = {"probabilities": dict(zip(question.answers, chances_A.tolist(), strict=True))}
    return Score(min(max(value, lowest), highest), details)  # rounding may exceed the range by a little


@cache
def load_presets() -> dict[str, dict[str, Any]]:
    """Load the published questions, by their names."""
    return yaml.load((Path(__file__).parent / "questions.yaml").read_text("utf-8"), SettingsLoader)


def _check_answers(answers: Any) -> dict[str, float]:
    if not isinstance(answers, dict) or len(answers) < 2:
        raise ConfigError(f"vlm_score: answers is {answers!r}; give at least two, e.g. {{'yes': 1, 'no': 0}}")
    checked = {}
    for answer, value in answers.items():
        if isinstance(answer, bool):  # what YAML 1.1, as Ray reads it, makes of yes and no
            answer = "yes" if answer else "no"
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise ConfigError(f"vlm_score: the answer {answer!r} is worth {value!r}; give a finite number")
        checked[str(answer).strip()] = float(value)
    if "" in checked or len(set(map(str.lower, checked))) < len(answers):
        raise ConfigError(f"vlm_score: two of the answers {', '.join(map(str, answers))} are the same, or one is empty")
    if len(set(checked.values())) == 1:
        raise ConfigError("vlm_score: all answers are worth the same, so every picture would get the same score")
    return checked


def read_answer(text: str, answers: dict[str, float]) -> str | None:
    """Find an answer in what an endpoint wrote: {"score": ANSWER} as JSON, or as the first such object in the text.

    Returns:
        The answer, as `answers` writes it; None if there is none.
    """
    by_text = {answer.lower(): answer for answer in answers}
    for candidate in (text, *re.findall(r"\{[^{}]*\}", text)):
        try:
            data = json.loads(candidate, strict=False)
        except (ValueError, RecursionError):  # the latter for a text of open brackets only
            continue
        said = data.get("score") if isinstance(data, dict) else None
        if isinstance(said, float) and said.is_integer():
            said = int(said)
        if isinstance(said, str | int) and not isinstance(said, bool):
            found = by_text.get(str(said).strip().lower())
            if found is not None:
                return found
    return None
