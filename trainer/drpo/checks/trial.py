"""Asks a ranking service that runs already whether its rewards take the prompts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from drpo.data.prompts.record import PromptRecord
from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.api.metadata import take_share
from drpo_rewards.client import RankingClient
from drpo_rewards.errors import InvalidRequestError, RewardsError
from drpo_rewards.findings import Finding

MOST_PROMPTS = 64
MOST_S = 10.0
"""A trial costs a score of a small picture for each prompt, so it has an end."""
_PICTURE_HWC = np.full((64, 64, 3), 127, np.uint8)


def try_prompts(
    client: RankingClient, section: str, records: Sequence[PromptRecord], reward: ModelInfo
) -> Iterator[Finding]:
    """Scores a grey picture for prompts that a reward may refuse, those without metadata first.

    Args:
        client: of the service.
        section: of the settings, for the finding.
        records: the prompts.
        reward: one that needs something in its prompts.
    """
    in_turn = sorted(range(len(records)), key=lambda number: records[number].metadata is not None)
    tried, refused, ends = 0, list[str](), time.monotonic() + MOST_S
    for number in in_turn[:MOST_PROMPTS]:
        if tried and time.monotonic() > ends:
            break
        record = records[number]
        # The other keys are those of other rewards, which are not asked here.
        share = take_share(dict(record.metadata) if record.metadata is not None else None, reward.metadata_schema)
        try:
            client.score([(record.prompt, [_PICTURE_HWC], share)], rewards=[reward.name])
        except RewardsError as error:
            if type(error) is InvalidRequestError:  # others say that of the picture, or of the service
                refused.append(f"prompt {number + 1} ({record.prompt[:60]!a}): {error}")
                tried += 1
                continue
            found = f"whether {reward.name} takes the prompts of {section} is not known: {error}"
            yield Finding("rewards", section, "skipped", found)
            return
        tried += 1
    of = f"the {len(records)} prompts"
    if tried < len(records):
        of = f"the {tried} prompts that were tried, of {len(records)},"
    if refused:
        found = f"the reward {reward.name!r} refuses {len(refused)} of {of} of {section}: {refused[0]}"
        yield Finding("rewards", section, "wrong", found, "correct the prompts or their metadata")
    else:
        yield Finding("rewards", section, "ok", f"{reward.name} takes {of} of {section}")
