"""The pointwise score of a vision-language model: one question about a picture, and what the answer is worth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from drpo_rewards.errors import LOGS, ConfigError, RewardError, WeightsError
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.vlm.question import ScoredQuestion, make_question, read_answer

ANSWER_TOKENS = 40

logger = logging.getLogger(__name__)


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
    is asked for JSON; the score is what its answer is worth, or the mean of several votes.

    Args:
        preset: a published question by its name: "vqascore" or "unified_reward".
        question: a question of your own, with {prompt}, and {rubric}, {scale}, {best}, {worst} if you like.
        rubric: what to judge by, for the question's {rubric}.
        answers: what each answer is worth, e.g. {"yes": 1, "no": 0}; by default 1 to 5.
        answer_start: how the answer already begins, in this process, e.g. "Score: ".
        backend: "transformers" loads a Qwen3-VL in this process; "endpoint" asks any OpenAI-compatible server.
        votes: how often an endpoint is asked; more than once, it samples, and the score is the mean.
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
        *,
        headers_only: bool = False,
        **options: Any,
    ) -> None:
        self.question = make_question(preset, question, rubric, answers, answer_start)
        self._asker = _create_asker(backend, self.question, votes, headers_only, options)
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
        return [_expect(question, np.asarray(logs, dtype=np.float64)) for (logs,) in found]


def _expect(question: ScoredQuestion, logs_A: np.ndarray) -> Score:
    """Return the expected value over the answers, whose log-probabilities are given."""
    chances_A = np.exp(logs_A)
    relative_A = np.exp(logs_A - np.logaddexp.reduce(logs_A))  # also where all are too small for a probability
    values_A = np.array(list(question.answers.values()))
    value = float(values_A @ (relative_A if question.renormalize else chances_A))
    lowest, highest = question.range
    details = {"probabilities": dict(zip(question.answers, chances_A.tolist(), strict=True))}
    return Score(min(max(value, lowest), highest), details)  # rounding may exceed the range by a little


class AtEndpoint:
    """Asks an OpenAI-compatible endpoint for JSON, once or several times."""

    license: str | None = None

    def __init__(self, question: ScoredQuestion, votes: int, **options: Any) -> None:
        from drpo_rewards.rewards.shared.chat import ChatEndpoint

        self._endpoint = ChatEndpoint("vlm_score", **options)
        self._votes = votes
        self.checkpoint: str | None = self._endpoint.model
        self.version = f"endpoint/{self._endpoint.model}"
        self._form = (
            ' Write one JSON object and nothing else: {"score": '
            + " | ".join(f'"{answer}"' for answer in question.answers)
            + "}."
        )
        self._schema = {
            "type": "object",
            "properties": {"score": {"type": "string", "enum": list(question.answers)}},
            "required": ["score"],
            "additionalProperties": False,
        }

    def ask(self, question: ScoredQuestion, items: Sequence[ScoreItem]) -> list[Score]:
        calls = [(item, vote) for item in items for vote in range(self._votes)]
        answers = self._endpoint.map(lambda call: self._ask_once(question, *call), calls)
        scores = []
        for start in range(0, len(answers), self._votes):
            said = [answer for answer in answers[start : start + self._votes] if answer is not None]
            if not said:
                raise RewardError(f"the vlm_score's endpoint gave none of the answers it was asked for; {LOGS}")
            value = sum(question.answers[answer] for answer in said) / len(said)
            scores.append(Score(value, {"votes": said, "unparsed": self._votes - len(said)}))
        return scores

    def _ask_once(self, question: ScoredQuestion, item: ScoreItem, vote: int) -> str | None:
        """Return one vote; None if it could not be read, even after asking again."""
        from drpo_rewards.rewards.shared.chat import break_markup, image_part, text_part

        deadline = self._endpoint.deadline()
        text = question.write(break_markup(item.prompt)) + self._form
        messages: list[dict[str, Any]] = [{"role": "user", "content": [image_part(item.image), text_part(text)]}]
        sampling = {"temperature": 0 if self._votes == 1 else 1, "seed": vote, "max_tokens": ANSWER_TOKENS}
        answer = self._endpoint.complete(messages, self._schema, deadline, **sampling)
        if (found := read_answer(answer, question.answers)) is not None:
            return found
        messages += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "That was not it." + self._form},
        ]
        answer = self._endpoint.complete(messages, self._schema, deadline, **sampling)
        found = read_answer(answer, question.answers)
        if found is None:
            logger.warning("vlm_score: %s gave none of the answers: %.200r", self.checkpoint, answer)
        return found


def _create_asker(
    backend: str, question: ScoredQuestion, votes: int, headers_only: bool, options: dict[str, Any]
) -> Asker:
    if isinstance(votes, bool) or not isinstance(votes, int) or not 1 <= votes <= 100:
        raise ConfigError(f"vlm_score: votes is {votes!r}; write a whole number from 1 to 100")
    if backend == "transformers":
        if votes != 1:
            raise ConfigError("vlm_score: votes are for an endpoint; in this process one pass gives the expected value")
        return InProcess(question, headers_only=headers_only, **options)
    if backend == "endpoint":
        return AtEndpoint(question, votes, **options)
    raise ConfigError(f"vlm_score has no backend {backend!r}; write transformers or endpoint")
