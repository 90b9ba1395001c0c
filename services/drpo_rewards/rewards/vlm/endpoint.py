"""Questions to a vision-language model behind an endpoint: what it says, or how probable its answers are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo_rewards.errors import LOGS, RewardError
from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.shared.chat import ChatEndpoint, break_markup, image_part, text_part
from drpo_rewards.rewards.vlm.answers import find_tokens, list_forms
from drpo_rewards.rewards.vlm.question import ScoredQuestion, expect, read_answer

ANSWER_TOKENS = 40

logger = logging.getLogger(__name__)


class SaidAnswers:
    """Asks for JSON, once or several times."""

    license: str | None = None

    def __init__(self, question: ScoredQuestion, votes: int, **options: Any) -> None:
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


class ProbableAnswers:
    """Asks for the probabilities of the answer's first token; the score is the expected value."""

    license: str | None = None

    def __init__(self, question: ScoredQuestion, **options: Any) -> None:
        self._endpoint = ChatEndpoint("vlm_score", **options)
        self.checkpoint: str | None = self._endpoint.model
        self.version = f"endpoint/logprobs/{self._endpoint.model}"
        self._forms = [list_forms(answer, numbers=False) for answer in question.answers]

    def ask(self, question: ScoredQuestion, items: Sequence[ScoreItem]) -> list[Score]:
        return self._endpoint.map(lambda item: self._ask_once(question, item), items)

    def _ask_once(self, question: ScoredQuestion, item: ScoreItem) -> Score:
        text = question.write(break_markup(item.prompt))
        chances = ask_for_tokens(self._endpoint, image_part(item.image), text)
        begun = [find_tokens(chances, forms) for forms in self._forms]
        counts = Counter(token for tokens in begun for token in tokens)
        shared = sum(chances[token] for token, count in counts.items() if count > 1)  # tells no answers apart
        chances_A = np.array([sum(chances[token] for token in tokens if counts[token] == 1) for tokens in begun])
        if question.renormalize and chances_A.sum() <= shared:
            logger.warning("vlm_score: %s begins its answer with none of the answers: %s", self.checkpoint, chances)
            common = ", or with what several of them begin with" if shared else ""
            raise RewardError(f"the vlm_score's endpoint begins its answer with none of the answers{common}; {LOGS}")
        with np.errstate(divide="ignore"):
            return expect(question, np.log(chances_A))


def ask_for_tokens(endpoint: ChatEndpoint, picture: dict[str, Any], question: str) -> dict[str, float]:
    """Ask a question about a picture; return the most probable first tokens of the answer, with their probabilities."""
    messages = [{"role": "user", "content": [picture, text_part(question)]}]
    return endpoint.read_first_tokens(messages, endpoint.deadline())
