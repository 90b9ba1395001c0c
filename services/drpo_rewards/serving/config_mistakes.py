"""Everything that is wrong in a service config, each with its key, and what is left without it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from drpo_rewards.api.contract import DEFAULT_MIXTURE, MAX_NAME
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.settings.files import Key

Mistake = tuple[Key, str]
NAMED = ("rewards", "mixtures")  # sections whose keys are names


def list_mistakes(error: ValidationError, sections: Sequence[type[BaseModel]]) -> list[Mistake]:
    """List every mistake as its key and a message. For an unknown key, suggest the most similar valid one.

    Args:
        error: pydantic's.
        sections: those whose keys are suggested.
    """
    known = [name for section in sections for name in section.model_fields]
    mistakes = []
    for mistake in error.errors(include_url=False):
        key = ".".join(map(str, mistake["loc"]))
        key = key if key.isprintable() else ascii(key)
        if mistake["type"] == "extra_forbidden":
            message = f"unknown key {key}{did_you_mean(str(mistake['loc'][-1]), known)}"
        else:
            reason = mistake["msg"].removeprefix("Value error, ")  # pydantic adds this to messages of our validators
            message = f"{key}: {reason}" if key else reason
        mistakes.append((mistake["loc"], " ".join(message.split())))
    return mistakes


def find_wrong_names(rewards: Collection[str], mixtures: Mapping[str, Collection[str]]) -> list[Mistake]:
    """List what is wrong with the names of rewards and mixtures.

    Args:
        rewards: the names of the rewards.
        mixtures: for each mixture the rewards that it names.
    """
    mistakes: list[Mistake] = []
    for section, names, marks in (("rewards", rewards, "._-"), ("mixtures", mixtures, "._-+")):
        for name in names:  # the paper's mixtures are called clip+pickscore
            if not _is_name(name, marks):
                allowed = f"at most {MAX_NAME} letters a to z, digits and {' '.join(marks)}"
                mistakes.append(((section, name), f"{name!r} cannot be a name; use {allowed}"))
    for name, named in mixtures.items():
        for reward in named:
            if reward not in rewards:
                known = f"the rewards are {', '.join(rewards) or 'none'}"
                mistakes.append((("mixtures", name), f"mixture {name!r} names {reward!r}; {known}"))
    for name in rewards:  # a request names either of them as its `model`, and there is always a default mixture
        if name in mixtures or name == DEFAULT_MIXTURE:
            mistakes.append((("rewards", name), f"{name!r} is both a reward and a mixture; rename one"))
    return mistakes


def find_wrong_names_in(sections: Mapping[str, Any]) -> list[Mistake]:
    """Do the same with what stands in a file, whatever that is."""
    rewards, mixtures = (sections.get(name) for name in NAMED)
    if not isinstance(rewards, dict) or not rewards:  # which is a mistake, and nobody knows what mixtures may name
        return []
    named = {}
    for name, mixture in (mixtures if isinstance(mixtures, dict) else {}).items():
        weights = mixture.get("rewards") if isinstance(mixture, dict) else None
        named[name] = weights if isinstance(weights, dict) else {}
    return find_wrong_names(rewards, named)


def leave_out(sections: Mapping[str, Any], keys: Collection[Key]) -> dict[str, Any]:
    """Return the sections without those that have a mistake: a whole reward or mixture, or another top-level key.

    A mixture of a reward that is left out is left out too.
    """
    at_fault = {key[:2] if key and key[0] in NAMED else key[:1] for key in keys}
    left: dict[str, Any] = {}
    for section, content in sections.items():
        if (section,) in at_fault:
            continue
        if section in NAMED and isinstance(content, dict):
            content = {name: one for name, one in content.items() if (section, name) not in at_fault}
        left[section] = content
    rewards, mixtures = (left.get(name) or {} for name in NAMED)
    return left | {"mixtures": {name: one for name, one in mixtures.items() if set(one["rewards"]) <= set(rewards)}}


def _is_name(name: str, marks: str) -> bool:
    """Return whether a name can be one. With one beyond ASCII, Ray's metrics would keep the reward from starting."""
    return len(name) <= MAX_NAME and name.isascii() and name.translate(dict.fromkeys(map(ord, marks))).isalnum()
