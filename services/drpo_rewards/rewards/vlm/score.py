"""The pointwise score of a vision-language model: one question about a picture, and what the answer is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from drpo_rewards.errors import ConfigError, WeightsError
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.vlm.question import ScoredQuestion, expect, make_question


class Asker(Protocol):
    """Asks a question: a model in this process, or an endpoint."""

    version: str
    checkpoint: str | None
    license: str | None

    def ask(self, question: ScoredQuestion, items: Sequence[ScoreItem]) -> list[Score]:
        """Return one score per item, in order. Raises a RewardsError without an answer."""
        ...


class VlmScore:
    """What a vision-language model answers to a question about the picture, as a number.

    In this process the score is the expected value over the possible answers, from one pass of the network. An endpoint
    is asked for JSON, and the score is what its answer is worth, or the mean of several votes; or with `logprobs` for
    probabilities, and the score is the expected value.

    Args:
        preset: a published question by its name: "vqascore" or "unified_reward".
        question: a question of your own, with {prompt}, and {rubric}, {scale}, {best}, {worst} if you like.
        rubric: what to judge by, for the question's {rubric}.
        answers: what each answer is worth, e.g. {"yes": 1, "no": 0}; by default 1 to 5.
        answer_start: how the answer already begins, in this process, e.g. "Score: ".
        backend: "transformers" loads a Qwen3-VL in this process; "endpoint" asks any OpenAI-compatible server.
        votes: how often an endpoint is asked; more than once, it samples, and the score is the mean.
        logprobs: ask the endpoint for the probabilities of the answer's first token instead of JSON. A preset with one
            answer, such as "vqascore", always does.
        options: the backend's, see `Qwen3VL` and `ChatEndpoint`.
    """

    metadata_schema: ClassVar = READS_NONE

    def __init__(
        self,
        preset: str | None = None,
        question: str | None = None,
        rubric: str | None = None,
        answers: dict[str, float] | None = None,
        answer_start: str | None = None,
        backend: Literal["transformers", "endpoint"] = "transformers",
        votes: int = 1,
        logprobs: bool = False,
        *,
        headers_only: bool = False,
        **options: Any,
    ) -> None:
        self.question = make_question(preset, question, rubric, answers, answer_start)
        self._asker = _create_asker(backend, self.question, votes, logprobs, headers_only, options)
        self.range = self.question.range
        self.version = f"vlm_score-1/{self.question.name}/{self._asker.version}"
        self.checkpoint, self.license = self._asker.checkpoint, self._asker.license

    @staticmethod
    def files(backend: str = "transformers", **options: Any) -> tuple[ModelFiles, ...]:
        if backend == "endpoint":  # it reads no files
            return ()
        from drpo_rewards.rewards.shared.qwen3_vl import MODEL

        return (MODEL,)

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return self._asker.ask(self.question, items)


class InProcess:
    """Asks a Qwen3-VL in this process; the score is the expected value over the answers' probabilities."""

    def __init__(self, question: ScoredQuestion, **options: Any) -> None:
        from drpo_rewards.rewards.shared.qwen3_vl import Qwen3VL
        from drpo_rewards.rewards.vlm.answers import first_tokens, list_forms

        self._vlm = Qwen3VL(**options)
        self.version, self.checkpoint, self.license = self._vlm.version, self._vlm.checkpoint, self._vlm.license
        self._tokens = {
            answer: first_tokens(self._vlm.tokenizer, list_forms(answer, numbers=False)) for answer in question.answers
        }
        owners: dict[int, str] = {}
        for answer, tokens in self._tokens.items():
            if not tokens:
                raise WeightsError(f"vlm_score: the model has no token that begins the answer {answer!r}")
            for token in tokens:
                if owners.setdefault(token, answer) != answer:
                    raise ConfigError(
                        f"vlm_score: the answers {owners[token]!r} and {answer!r} begin with the same token, so one "
                        "pass cannot tell them apart; use other words, or the digits 0 to 9"
                    )

    def ask(self, question: ScoredQuestion, items: Sequence[ScoreItem]) -> list[Score]:
        from drpo_rewards.rewards.vlm.packed import Question, ask

        answers = tuple(self._tokens.values())
        asked = [[Question(question.write(item.prompt), answers, question.answer_start)] for item in items]
        found = ask(self._vlm, [item.image for item in items], asked)
        return [expect(question, np.asarray(logs, dtype=np.float64)) for (logs,) in found]


def _create_asker(
    backend: str, question: ScoredQuestion, votes: int, logprobs: bool, headers_only: bool, options: dict[str, Any]
) -> Asker:
    if isinstance(votes, bool) or not isinstance(votes, int) or not 1 <= votes <= 100:
        raise ConfigError(f"vlm_score: votes is {votes!r}; write a whole number from 1 to 100")
    if backend == "transformers":
        if votes != 1 or logprobs:
            raise ConfigError(
                "vlm_score: votes and logprobs are for an endpoint; here one pass gives the expected value"
            )
        return InProcess(question, headers_only=headers_only, **options)
    if backend != "endpoint":
        raise ConfigError(f"vlm_score has no backend {backend!r}; write transformers or endpoint")
    from drpo_rewards.rewards.vlm.endpoint import ProbableAnswers, SaidAnswers

    if not logprobs and len(question.answers) > 1:
        return SaidAnswers(question, votes, **options)
    if votes != 1:
        raise ConfigError("vlm_score: probabilities need no votes; leave `votes` out, or `logprobs`")
    if question.answer_start:
        raise ConfigError("vlm_score: an endpoint cannot begin the answer for the model; leave `logprobs` out")
    return ProbableAnswers(question, **options)
