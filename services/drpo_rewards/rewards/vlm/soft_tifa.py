"""Soft-TIFA, the score of GenEval 2 (arXiv 2512.16853): how likely a model finds the right answers about a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from drpo_rewards.api.contract import Metric, Model, parse
from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.vlm.answers import first_tokens, list_forms

MAX_QUESTIONS = 64
PROBE = ScoreItem(np.full((64, 64, 3), 127, dtype=np.uint8), "a picture", {"vqa": [["Is this a picture?", "Yes"]]})


class QuestionList(Model):
    """The metadata of soft_tifa: questions about the picture and their right answers, or a record of GenEval 2.

    Example:
        {"vqa": [["How many dogs are in the image?", "two"], ["Are the dogs brown?", "Yes"]]}
    """

    vqa: list[tuple[str, str]] = Field(
        min_length=1,
        max_length=MAX_QUESTIONS,
        description="[question, answer] pairs.",
    )
    vqa_list: list[tuple[str, str]] = Field(default=[], description="GenEval 2's name of vqa, instead of it.")
    skills: list[str] = Field(default=[], description="What each question tests, for a mean per skill.")
    prompt: str = Field(default="", description="Not read.")
    atom_count: int = Field(default=0, description="Not read.")

    @field_validator("vqa")
    @classmethod
    def _not_blank(cls, vqa: list[tuple[str, str]]) -> list[tuple[str, str]]:
        for index, (question, answer) in enumerate(vqa):
            if not question.strip() or not answer.strip():
                raise ValueError(f"entry {index} has no question or no answer")
        return vqa


class SoftTifa:
    """How probable a vision-language model finds the right answers to the questions about the picture.

    The questions are the request's `metadata.vqa`, a list of [question, answer]. Each is asked as "QUESTION Answer in
    one word."; its score is the probability that the answer begins with a form of the right one (as a word or a digit,
    capitalised or not). A picture's score is the mean, 0 to 1. All questions about a picture share one pass of the
    network. If `metadata.skills` names what each question tests, the details have a mean per skill (`parts`), which an
    evaluation shows as a table.

    Args:
        mean: "geometric" is low if one answer is wrong; "arithmetic" is the share of right answers.
        options: the model's, see `Qwen3VL`.
    """

    range = (0.0, 1.0)
    needs_metadata = True
    metadata_schema: ClassVar = {
        **QuestionList.model_json_schema(),
        "examples": [{"vqa": [["How many dogs are in the image?", "two"], ["Are the dogs brown?", "Yes"]]}],
    }
    metrics = (
        Metric(name="geometric", description="geometric mean of the answers' probabilities", unit="share"),
        Metric(name="arithmetic", description="arithmetic mean of the answers' probabilities", unit="share"),
    )
    probe = PROBE

    def __init__(
        self, mean: Literal["geometric", "arithmetic"] = "geometric", *, headers_only: bool = False, **options: Any
    ) -> None:
        if mean not in ("geometric", "arithmetic"):
            raise ConfigError(f"soft_tifa: mean is {mean!r}; write geometric or arithmetic")
        from drpo_rewards.rewards.shared.qwen3_vl import Qwen3VL

        self.mean = mean
        self._tokens = lru_cache(maxsize=1000)(self._find_tokens)  # the images of a group have the same answers
        self.vlm = Qwen3VL(**options, headers_only=headers_only)
        self.version = f"soft_tifa-1/{mean}/{self.vlm.version}"
        self.checkpoint, self.license = self.vlm.checkpoint, self.vlm.license

    @staticmethod
    def files(**options: Any) -> tuple[ModelFiles, ...]:
        from drpo_rewards.rewards.shared.qwen3_vl import MODEL

        return (MODEL,)

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        from drpo_rewards.rewards.vlm.packed import Question, ask

        asked = [
            [Question(f"{text} Answer in one word.", (self._tokens(answer),)) for text, answer in read_questions(item)]
            for item in items
        ]
        answers = ask(self.vlm, [item.image for item in items], asked)
        return [
            self._score([float(answer) for answer in logs], read_skills(item, len(logs)))
            for item, logs in zip(items, answers, strict=True)
        ]

    def _find_tokens(self, answer: str) -> tuple[int, ...]:
        tokens = first_tokens(self.vlm.tokenizer, list_forms(answer))
        if not tokens:
            raise InvalidRequestError(f"soft_tifa cannot check the answer {answer!r}", field="metadata.vqa")
        return tokens

    def _score(self, logs: list[float], skills: list[str]) -> Score:
        chances = np.exp(logs)
        means = {"geometric": float(np.exp(np.mean(logs))), "arithmetic": float(chances.mean())}
        means = {name: min(value, 1.0) for name, value in means.items()}  # rounding may exceed 1 by a little
        details: dict[str, Any] = {**means, "probabilities": chances.tolist()}
        if skills:
            by_skill: dict[str, list[float]] = {}
            for skill, chance in zip(skills, details["probabilities"], strict=True):
                by_skill.setdefault(skill, []).append(chance)
            details["parts"] = {skill: sum(parts) / len(parts) for skill, parts in by_skill.items()}
        return Score(means[self.mean], details)


def read_skills(item: ScoreItem, count: int) -> list[str]:
    """Return the skill that each question tests, if the metadata says so; empty otherwise."""
    skills = (item.metadata or {}).get("skills", [])
    texts = isinstance(skills, list) and all(isinstance(skill, str) for skill in skills)
    if not texts or len(skills) not in (0, count):
        raise InvalidRequestError("metadata.skills must name one skill for each question", field="metadata.skills")
    return skills


def read_questions(item: ScoreItem) -> list[tuple[str, str]]:
    """Return an item's questions and answers. Raises InvalidRequestError if it has none, or other ones."""
    given = item.metadata or {}
    vqa = given.get("vqa", given.get("vqa_list"))  # the latter is GenEval 2's own name
    if vqa is None:
        raise InvalidRequestError(
            'soft_tifa needs metadata with questions and answers: {"vqa": [["Is the dog brown?", "Yes"]]}',
            field="metadata",
        )
    try:
        return parse(QuestionList, {"vqa": vqa}).vqa
    except InvalidRequestError as error:
        raise InvalidRequestError(f"metadata.vqa is no list of [question, answer]: {error}", field="metadata") from None
