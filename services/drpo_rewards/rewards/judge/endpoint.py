"""The judge behind an OpenAI-compatible endpoint.

Answers are requested without sampling. If an answer has no verdict, the judge is asked once more and told what was
wrong.
"""

from __future__ import annotations

import logging
from typing import Any

from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.judge.question import LABELS, SCHEMA, Opinion, parse_answer, write_question
from drpo_rewards.rewards.shared.chat import ChatEndpoint, break_markup, image_part, text_part

ANSWER_TOKENS = 160
AGAIN = "That was not one JSON object of the output schema. Answer again, with nothing but that object."

logger = logging.getLogger(__name__)


class EndpointBackend:
    """A vision-language model behind an HTTP endpoint.

    Args:
        options: see ChatEndpoint; `timeout_s` is for one verdict.

    Raises:
        ConfigError: `model` or `base_url` is missing or not valid.
    """

    license: str | None = None

    def __init__(self, **options: Any) -> None:
        self._endpoint = ChatEndpoint("judge", **options)
        self.checkpoint: str | None = self._endpoint.model
        self.version = f"endpoint/{self._endpoint.model}"

    def ask(self, pairs: list[PairItem]) -> list[Opinion]:
        """Return one opinion per pair, in order; see `Backend.ask`."""
        return self._endpoint.map(self._ask_about_pair, pairs)

    def _ask_about_pair(self, pair: PairItem) -> Opinion:
        deadline = self._endpoint.deadline()
        messages = [{"role": "user", "content": _content(pair)}]
        answer = self._complete(messages, deadline)
        opinion = parse_answer(answer)
        if opinion is None:
            retry = [{"role": "assistant", "content": answer}, {"role": "user", "content": AGAIN}]
            answer = self._complete([*messages, *retry], deadline)
            opinion = parse_answer(answer)
        if opinion is None:
            logger.warning("the judge %s gave no verdict, which counts as a tie: %.200r", self.checkpoint, answer)
            return Opinion("tie", parsed=False)
        return opinion

    def _complete(self, messages: list[dict[str, Any]], deadline: float) -> str:
        return self._endpoint.complete(messages, SCHEMA, deadline, max_tokens=ANSWER_TOKENS, temperature=0, seed=0)


def _content(pair: PairItem) -> list[dict[str, Any]]:
    """Make a message of OpenAI's chat format: the two pictures, each under its label, and the question."""
    before, between, after = LABELS
    return [
        text_part(before),
        image_part(pair.first),
        text_part(between),
        image_part(pair.second),
        text_part(after + write_question(break_markup(pair.prompt))),
    ]
