"""How a request is formed from a template, and how scores are found in an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo_rewards.errors import ConfigError

PER_ITEM = ("{prompt}", "{image}", "{metadata}")
LISTS = {"{prompts}": "{prompt}", "{images}": "{image}", "{metadatas}": "{metadata}"}


@dataclass(frozen=True)
class Sent:
    """One picture as it is sent."""

    prompt: str
    image: Any  # base64 text, or bytes
    metadata: dict[str, Any] | None


def check_template(template: Any, inside_each: bool = False) -> None:
    """Check that a template has placeholders only where they mean something.

    Raises:
        ConfigError: one does not; the message names it.
    """
    if isinstance(template, str):
        _check_text(template, inside_each)
    elif isinstance(template, Mapping):
        each = set(template) == {"each"}
        if each and inside_each:
            raise ConfigError('remote: {"each": ...} stands inside another one, and means nothing there')
        for value in template.values():
            check_template(value, inside_each or each)
    elif isinstance(template, list):
        for value in template:
            check_template(value, inside_each)


def _check_text(text: str, inside_each: bool) -> None:
    """Check the placeholders of one text. A wrong one would be sent as it stands, for scores of something else."""
    for many, one in LISTS.items():
        if one in text and not inside_each:
            raise ConfigError(f'remote: {one} of one picture stands inside {{"each": ...}} only; or write {many}')
        for name in (many, one):
            if name in text and name not in (text, "{prompt}"):
                raise ConfigError(f"remote: {name} must be a whole text, not a part of {text!r} as {{prompt}} may be")
    if re.fullmatch(r"\{\s*\w+\s*\}", text) and text not in {*PER_ITEM, *LISTS}:
        raise ConfigError(f"remote: the request has no placeholder {text}; known are {', '.join([*PER_ITEM, *LISTS])}")


def has_pictures(template: Any) -> bool:
    """Return whether a request has its pictures somewhere."""
    if isinstance(template, Mapping):
        return any(map(has_pictures, template.values()))
    return any(map(has_pictures, template)) if isinstance(template, list) else template in ("{image}", "{images}")


def fill(template: Any, items: Sequence[Sent], item: Sent | None = None) -> Any:
    """Return a request: the template with the values of the items for its placeholders.

    A placeholder is a whole text: "{images}" becomes the list of all images, and inside {"each": ...}, which becomes a
    list with an entry per picture, "{image}" is that picture's. There, "{prompt}" may also stand in a longer text.

    Example:
        fill({"data": {"each": {"text": "{prompt}"}}}, [Sent("a", "..", None)])  # {"data": [{"text": "a"}]}
    """
    if isinstance(template, str):
        if template in LISTS:
            return [fill(LISTS[template], items, each) for each in items]
        if item is not None and template in PER_ITEM:
            return getattr(item, template.strip("{}"))
        return template.replace("{prompt}", item.prompt) if item is not None else template
    if isinstance(template, Mapping):
        if set(template) == {"each"}:
            return [fill(template["each"], items, each) for each in items]
        return {key: fill(value, items, item) for key, value in template.items()}
    return [fill(value, items, item) for value in template] if isinstance(template, list) else template


def find(answer: Any, pointer: str) -> list[Any]:
    """Return the values that a pointer leads to, in order.

    It is a JSON pointer (RFC 6901) in which `*` stands for every entry of a list, or for the first of an object. If it
    ends at a list, the values are its entries.

    Raises:
        LookupError: it leads nowhere; the message says where it stopped.

    Example:
        find({"results": [{"pickscore": {"score": 1.5}}]}, "/results/*/pickscore/score")  # [1.5]
    """
    found = list(_walk(answer, [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]], ""))
    return found[0] if len(found) == 1 and isinstance(found[0], list) else found


def _walk(value: Any, parts: list[str], path: str) -> Iterator[Any]:
    if not parts:
        yield value
        return
    part, rest = parts[0], parts[1:]
    if part == "*" and isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _walk(entry, rest, f"{path}/{index}")
    elif part == "*" and isinstance(value, dict) and value:
        key = next(iter(value))
        yield from _walk(value[key], rest, f"{path}/{key}")
    elif isinstance(value, dict) and part in value:
        yield from _walk(value[part], rest, f"{path}/{part}")
    elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        yield from _walk(value[int(part)], rest, f"{path}/{part}")
    else:
        raise LookupError(f"there is no {path}/{part}")
