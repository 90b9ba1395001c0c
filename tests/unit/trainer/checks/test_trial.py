"""What is asked of a ranking service that runs already, and what its answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from drpo.checks.trial import MOST_PROMPTS, try_prompts
from drpo.data.prompts.record import PromptRecord
from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.api.metadata import check_keys
from drpo_rewards.errors import InvalidImageError, InvalidRequestError, RewardsError, ServiceUnavailableError

READER = ModelInfo(name="reader", metadata_schema={"properties": {"text": {}}}, needs_in_prompt="a text in quotes")


class Service:
    """Answers as a gateway with one reward that needs a quoted text, or one in the metadata."""

    def __init__(self, fails: RewardsError | None = None) -> None:
        self.fails, self.asked = fails, list[str]()

    def score(self, groups: list[tuple[str, Any, dict[str, Any] | None]], rewards: list[str]) -> None:
        ((prompt, _, metadata),) = groups
        self.asked.append(prompt)
        check_keys(metadata, dict.fromkeys(rewards, READER.metadata_schema))
        if self.fails is not None:
            raise self.fails
        if not metadata and '"' not in prompt:
            raise InvalidRequestError("reader needs a text in quotes")


def look(service: Any, records: list[PromptRecord]) -> list[tuple[str, str]]:
    return [(one.state, one.found) for one in try_prompts(service, "prompts", records, READER)]


def test_prompts_that_a_reward_refuses_are_counted() -> None:
    records = [PromptRecord('a sign "OPEN"'), PromptRecord("a sign"), PromptRecord("a door", metadata={"text": "IN"})]
    ((state, found),) = look(Service(), records)
    assert state == "wrong"
    assert found.startswith("the reward 'reader' refuses 1 of the 3 prompts of prompts: prompt 2 ('a sign'): reader")
    ((state, found),) = look(Service(), [records[0], records[2]])
    assert (state, found) == ("ok", "reader takes the 2 prompts of prompts")


def test_metadata_of_other_rewards_are_not_sent() -> None:
    records = [PromptRecord("a door", metadata={"text": "IN", "include": [], "tag": "colors"})]
    assert look(Service(), records)[0][0] == "ok"


@pytest.mark.parametrize(
    "error", [InvalidImageError("each side needs 224 pixels", field="images[0]"), ServiceUnavailableError("gone")]
)
def test_an_error_that_is_not_about_the_prompt_says_nothing_of_it(error: RewardsError) -> None:
    service = Service(error)
    ((state, found),) = look(service, [PromptRecord("a sign")] * 3)
    assert state == "skipped"
    assert f"whether reader takes the prompts of prompts is not known: {error}" in found
    assert len(service.asked) == 1


def test_a_trial_has_an_end() -> None:
    """Those without metadata come first."""
    records = [PromptRecord(f"{i}", metadata={"text": "IN"}) for i in range(100)] + [PromptRecord('a "B"')]
    service = Service()
    ((state, found),) = look(service, records)
    assert (state, len(service.asked), service.asked[0]) == ("ok", MOST_PROMPTS, 'a "B"')
    assert found == f"reader takes the {MOST_PROMPTS} prompts that were tried, of 101, of prompts"
