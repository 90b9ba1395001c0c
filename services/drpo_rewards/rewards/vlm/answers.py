"""Which tokens an answer may begin with: a word or a digit, capitalised or not, with or without a space before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def list_forms(answer: str, numbers: bool = True) -> list[str]:
    """List the forms of an answer. With `numbers`, a number also has its digit, and a digit its word.

    Example:
        list_forms("two")  # ["two", " two", "Two", " Two", "2", " 2"]
    """
    answer = " ".join(answer.split())
    words = [answer, answer.lower(), answer[:1].upper() + answer[1:]]
    if numbers and answer.lower() in _NUMBERS:
        words.append(str(_NUMBERS.index(answer.lower())))
    elif numbers and answer.isdecimal() and int(answer) < len(_NUMBERS):
        words += [_NUMBERS[int(answer)], _NUMBERS[int(answer)].capitalize()]
    return [before + word for word in dict.fromkeys(words) for before in ("", " ")]


def add_chances(chances: Mapping[str, float], forms: Iterable[str]) -> float:
    """Add the probabilities of the tokens with which the forms of an answer may begin.

    As in `first_tokens`, a number of several digits counts only as a whole. Of the tokens that begin a form, the
    longest one counts, because that is how tokenizers cut text.

    Args:
        chances: tokens as text, each with its probability.
        forms: of the answer.

    Example:
        add_chances({"Yes": 0.5, " yes": 0.2, "No": 0.1}, list_forms("yes"))  # 0.7
    """
    return sum(chances[token] for token in find_tokens(chances, forms))


def find_tokens(chances: Iterable[str], forms: Iterable[str]) -> set[str]:
    """Return the tokens whose probabilities `add_chances` adds."""
    found: set[str] = set()
    for form in forms:
        begins = [token for token in chances if token.strip() and form.startswith(token)]
        if form.strip().isdecimal():
            begins = [token for token in begins if token == form]
        found |= {max(begins, key=len)} if begins else set()
    return found


def first_tokens(tokenizer: Any, forms: Iterable[str]) -> tuple[int, ...]:
    """Return the different first tokens of the forms of an answer.

    A form whose first token is only a space is left out, and so is a number of several digits that is not one token:
    such a token begins other answers too.
    """
    found = []
    for form in forms:
        tokens: list[int] = tokenizer(form, add_special_tokens=False)["input_ids"]
        said = tokenizer.decode(tokens[:1]).strip() if tokens else ""
        if said and not (form.strip().isdecimal() and said != form.strip()):
            found.append(tokens[0])
    return tuple(dict.fromkeys(found))
