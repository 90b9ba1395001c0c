"""JSON bodies whose long texts are cut out before parsing: the outcome is that of parsing the whole body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drpo_rewards.api.contract import parse
from drpo_rewards.errors import InvalidRequestError, RequestTooLargeError
from drpo_rewards.operations.base import Body
from drpo_rewards.operations.rank import RankRequest
from drpo_rewards.operations.rerank_dialects import RerankRequest, SentOptions
from drpo_rewards.operations.score import ScoreRequest
from drpo_rewards.serving.gateway.base64_text import from_base64
from drpo_rewards.serving.gateway.json_body import LONG_BYTES, MAX_VALUES, PIECE_BYTES, Base64View, parse_with_images

LONG = "QUJD" * (LONG_BYTES // 4 + 1)
DOCUMENT = f"data:image/png;base64,{LONG}"
TEXTS = st.one_of(
    st.text(max_size=9),
    st.sampled_from([LONG, LONG + "====", LONG + "\\/", LONG + "\n", LONG + "ä\u2028", "\n" * LONG_BYTES * 17]),
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.none(), st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def outcome(split: Any) -> Any:
    """What a body says, or the words with which it is refused."""
    try:
        options, texts = split()
    except InvalidRequestError as error:
        return str(error), error.field
    plain = [bytes(text.text).decode() if isinstance(text, Base64View) else text for text in texts]
    said = repr(options.model_dump(exclude={"images"}))
    return said.replace(LONG, "<long>"), [text.replace(LONG, "<long>") for text in plain]  # short, where it differs


def check(model: type[Body], body: bytes) -> list[Any]:
    """Compare with parsing the whole body. Return the texts."""
    data = bytearray(body)
    found = outcome(lambda: parse_with_images(model, data))
    assert found == outcome(lambda: parse(model, data).split())
    return found[1]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(['"', "a\\b", "p", "ä", "tab\t"]), st.lists(TEXTS, max_size=4), VALUES, st.booleans())
@example("p", [LONG, LONG], {"task": LONG}, True)  # a long text that is no image
def test_a_body_means_the_same(prompt: str, images: list[str], metadata: Any, is_ascii: bool) -> None:
    body = {"prompt": prompt, "images": images, "metadata": metadata}
    check(RankRequest, json.dumps(body, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "body",
    [
        f'{{"prompt": "p", "images": ["{LONG}\n", "a"]}}',  # a bare line end
        f'{{"prompt": "p", "images": ["{LONG}", "a"',
        f'{{"prompt": "p", "images": ["{LONG}" "{LONG}"]}}',
        f'{{"prompt": "{LONG}", "images": ["a", "b"]}}',
        f'{{"prompt": "p", "{LONG}": 1, "images": ["a", "b"]}}',
        f'{{"prompt": "p", "images": ["a", "b"]}} "{LONG}',
        f'"{LONG}"',
        f'{{"prompt": "p", "images": ["data:image/\x01;base64,{LONG}", "{LONG}"]}}',
        f'{{"prompt": "p", "images": ["data:image/\udcff;base64,{LONG}", "{LONG}"]}}',  # not UTF-8
        "[" + '"a",' * 12_000 + f'"{LONG}"]',
        "{" * 70_000,
        "",
    ],
    ids=range(12),
)
def test_a_body_that_is_refused_is_refused_with_the_same_words(body: str) -> None:
    check(RankRequest, body.encode(errors="surrogateescape"))


def test_long_texts_are_views_of_the_body() -> None:
    data = bytearray(json.dumps({"prompt": "p", "images": [LONG, "short", LONG]}).encode())
    _, texts = parse_with_images(RankRequest, data)
    assert [type(text) for text in texts] == [Base64View, str, Base64View]
    assert isinstance(texts[0], Base64View)
    assert texts[0].text.obj is data
    assert from_base64(texts[0].text) == from_base64(LONG)
    assert (
        check(ScoreRequest, json.dumps({"groups": [{"prompt": "p", "images": [LONG, LONG]}]}).encode())
        == ["<long>"] * 2
    )


def test_answers_can_repeat_the_images() -> None:
    body = {"query": "p", "documents": [DOCUMENT] * 2, "return_documents": True, "model": "m"}
    options, _ = parse_with_images(RerankRequest, bytearray(json.dumps(body).encode()))
    assert isinstance(options, SentOptions)
    assert options._sent.documents == [DOCUMENT] * 2


@pytest.mark.parametrize("long", [0, 2])
def test_json_of_many_values_is_refused_before_it_is_read(long: int) -> None:
    """8 million unknown keys kept a gateway busy for a minute, and every other call waiting."""
    images = ", ".join([f'"{LONG}"'] * long + ['"x"'] * (2 - long))
    for more in (
        ", ".join(f'"{number}": 1' for number in range(MAX_VALUES // 2)),
        f'"rewards": [{"1," * MAX_VALUES}1]',
        " " * PIECE_BYTES + f'"metadata": {{"a": [{"[]," * MAX_VALUES}1]}}',
    ):
        body = bytearray(f'{{"prompt": "p", "images": [{images}], {more}}}'.encode())
        with pytest.raises(RequestTooLargeError, match="more than 30,000 keys, texts and other values"):
            parse_with_images(RankRequest, body)
    few = ", ".join(f'"{number}": 1' for number in range(8_000))
    body = bytearray(f'{{"prompt": "{"," * 9_000}", "images": [{images}], "metadata": {{{few}}}}}'.encode())
    options, texts = parse_with_images(RankRequest, body)
    assert (len(options.metadata), len(texts)) == (8_000, 2)
