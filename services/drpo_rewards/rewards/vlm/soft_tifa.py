"""Soft-TIFA, the score of GenEval 2 (arXiv 2512.16853): how likely a model finds the right answers about a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field, field_validator

from drpo_rewards.api.contract import Metric, Model, parse
from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.vlm.answers import add_chances, first_tokens, list_forms

MAX_QUESTIONS = 64
SUFFIX = " Answer in one word."
LEAST = 1e-9  # probability of an answer, so that its logarithm is finite
PROBE = ScoreItem(np.full((64, 64, 3), 127, dtype=np.uint8), "a picture", {"vqa": [["Is this a picture?", "Yes"]]})


QuestionsAndAnswers = Sequence[tuple[str, str]]


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


class Asker(Protocol):
    """Knows how likely a model finds answers: a model in this process, or an endpoint."""

    version: str
    checkpoint: str | None
    license: str | None

    def ask(self, images: Sequence[np.ndarray], asked: Sequence[QuestionsAndAnswers]) -> list[list[float]]:
        """Return the log-probability of each answer to the questions about each image."""
        ...


class SoftTifa:
    """How probable a vision-language model finds the right answers to the questions about the picture.

    The questions are the request's `metadata.vqa`, a list of [question, answer]. Each is asked as "QUESTION Answer in
    one word."; its score is the probability that the answer begins with a form of the right one (as a word or a digit,
    capitalised or not). A picture's score is the mean, 0 to 1. All questions about a picture share one pass of the
    network. If `metadata.skills` names what each question tests, the details have a mean per skill (`parts`), which an
    evaluation shows as a table.

    Args:
        mean: "geometric" is low if one answer is wrong; "arithmetic" is the share of right answers.
        backend: "transformers" loads a Qwen3-VL in this process; "endpoint" asks an OpenAI-compatible server once per
            question. It must give the probabilities of 20 tokens.
        options: the backend's, see `Qwen3VL` and `ChatEndpoint`.
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
        self,
        mean: Literal["geometric", "arithmetic"] = "geometric",
        backend: Literal["transformers", "endpoint"] = "transformers",
        *,
        headers_only: bool = False,
        **options: Any,
    ) -> None:
        if mean not in ("geometric", "arithmetic"):
            raise ConfigError(f"soft_tifa: mean is {mean!r}; write geometric or arithmetic")
        self.mean = mean
        self._asker = _create_asker(backend, headers_only, options)
        self.version = f"soft_tifa-1/{mean}/{self._asker.version}"
        self.checkpoint, self.license = self._asker.checkpoint, self._asker.license

    @staticmethod
    def files(backend: str = "transformers", **options: Any) -> tuple[ModelFiles, ...]:
        if backend == "endpoint":  # it reads no files
            return ()
        from drpo_rewards.rewards.shared.qwen3_vl import MODEL

        return (MODEL,)

    @staticmethod
    def check_request(prompt: str, metadata: Mapping[str, Any] | None, **options: Any) -> None:
        """Check the questions, but for answers that the model's tokens cannot tell."""
        read_skills(metadata, len(read_questions(metadata)))

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        asked = [read_questions(item.metadata) for item in items]
        skills = [read_skills(item.metadata, len(questions)) for item, questions in zip(items, asked, strict=True)]
        logs = self._asker.ask([item.image for item in items], asked)
        return [self._score(*of_one) for of_one in zip(logs, skills, strict=True)]

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


class InProcess:
    """A Qwen3-VL in this process. All questions about a picture share one pass of the network."""

    def __init__(self, **options: Any) -> None:
        from drpo_rewards.rewards.shared.qwen3_vl import Qwen3VL

        self._vlm = Qwen3VL(**options)
        self.version, self.checkpoint, self.license = self._vlm.version, self._vlm.checkpoint, self._vlm.license
        self._tokens = lru_cache(maxsize=1000)(self._find_tokens)  # the images of a group have the same answers

    def ask(self, images: Sequence[np.ndarray], asked: Sequence[QuestionsAndAnswers]) -> list[list[float]]:
        from drpo_rewards.rewards.vlm.packed import Question, ask

        questions = [[Question(text + SUFFIX, (self._tokens(answer),)) for text, answer in of_one] for of_one in asked]
        return [[float(answer) for answer in logs] for logs in ask(self._vlm, images, questions)]

    def _find_tokens(self, answer: str) -> tuple[int, ...]:
        tokens = first_tokens(self._vlm.tokenizer, list_forms(answer))
        if not tokens:
            raise InvalidRequestError(f"soft_tifa cannot check the answer {answer!r}", field="metadata.vqa")
        return tokens


class AtEndpoint:
    """An OpenAI-compatible endpoint, which is asked once per question and gives the most probable tokens only."""

    license: str | None = None

    def __init__(self, **options: Any) -> None:
        from drpo_rewards.rewards.shared.chat import ChatEndpoint

        self._endpoint = ChatEndpoint("soft_tifa", **options)
        self.checkpoint: str | None = self._endpoint.model
        self.version = f"endpoint/{self._endpoint.model}"

    def ask(self, images: Sequence[np.ndarray], asked: Sequence[QuestionsAndAnswers]) -> list[list[float]]:
        from drpo_rewards.rewards.shared.chat import image_part

        pictures = map(image_part, images)
        calls = [(picture, *one) for picture, of_one in zip(pictures, asked, strict=True) for one in of_one]
        logs = iter(self._endpoint.map(lambda call: self._ask_once(*call), calls))
        return [[next(logs) for _ in of_one] for of_one in asked]

    def _ask_once(self, picture: dict[str, Any], question: str, answer: str) -> float:
        from drpo_rewards.rewards.shared.chat import break_markup
        from drpo_rewards.rewards.vlm.endpoint import ask_for_tokens

        chances = ask_for_tokens(self._endpoint, picture, break_markup(question) + SUFFIX)
        # An answer that is not listed is less probable than those that are, and than all that are not listed together.
        most = min(min(chances.values()), 1 - sum(chances.values()))
        return float(np.log(max(add_chances(chances, list_forms(answer)) or most, LEAST)))


def _create_asker(backend: str, headers_only: bool, options: dict[str, Any]) -> Asker:
    if backend == "transformers":
        return InProcess(headers_only=headers_only, **options)
    if backend == "endpoint":
        return AtEndpoint(**options)
    raise ConfigError(f"soft_tifa has no backend {backend!r}; write transformers or endpoint")


def read_skills(metadata: Mapping[str, Any] | None, count: int) -> list[str]:
    """Return the skill that each question tests, if the metadata says so; empty otherwise."""
    skills = (metadata or {}).get("skills", [])
    texts = isinstance(skills, list) and all(isinstance(skill, str) for skill in skills)
    if not texts or len(skills) not in (0, count):
        raise InvalidRequestError("metadata.skills must name one skill for each question", field="metadata.skills")
    return skills


def read_questions(metadata: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return the questions and answers. Raises InvalidRequestError if there are none, or other ones."""
    given = metadata or {}
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
