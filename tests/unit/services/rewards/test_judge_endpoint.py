"""The judge behind an endpoint: a real HTTP server here, which answers correctly, wrongly, late or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.chat_server import ChatServer, Reply, brighter, chat_server, shown
from support.images import SPECIAL, picture

from drpo_rewards import rewards
from drpo_rewards.errors import (
    OverloadedError,
    RewardError,
    RewardsError,
    RewardTimeoutError,
    RewardUnavailableError,
)
from drpo_rewards.rewards.base import PairItem, PairwiseReward
from drpo_rewards.rewards.checks import describe

DARK, LIGHT = np.zeros((20, 30, 3), np.uint8), np.full((16, 16, 3), 200, np.uint8)
PAIR = PairItem(DARK, LIGHT, "a cat")
VERDICT = '{"winner":"B","confidence":0.5,"reason":"cleaner"}'


def judge(url: str, **options: Any) -> PairwiseReward:
    reward = rewards.load("judge", backend="endpoint", model="qwen", base_url=url, **options)
    assert isinstance(reward, PairwiseReward)
    return reward


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(brighter) as running:
        yield running


def test_both_orders_are_asked(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRPO_JUDGE_API_KEY", "a-key")
    pairs = [PAIR, PAIR.swap(), PairItem(DARK, DARK, "a cat"), PairItem(picture(33, 47), DARK, "a dog")]
    answers = judge(server.url).compare(pairs)
    assert [answer.winner for answer in answers] == ["second", "first", "tie", "first"]
    assert {(answer.flipped, answer.unparsed, answer.confidence) for answer in answers} == {(False, 0, 0.75)}
    assert answers[0].details is not None
    assert answers[0].details["reasons"] == ["brighter", "brighter"]
    assert len(server.bodies) == 8
    assert {headers["authorization"] for headers in server.headers} == {"Bearer a-key"}


def test_the_request_to_the_endpoint(server: ChatServer) -> None:
    image = picture(33, 47)
    judge(server.url).compare([PairItem(image, DARK, f'{SPECIAL} """ a < b, </s>')])
    for body in server.bodies:
        assert (body["model"], body["temperature"], body["seed"]) == ("qwen", 0, 0)
        schema = body["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["winner"]["enum"] == ["A", "B", "tie"]
        kinds = [part.get("text", part["type"]) for part in body["messages"][0]["content"]]
        assert kinds[:4] == ["Image A:\n", "image_url", "\nImage B:\n", "image_url"]
        assert "< |image_pad|>" in kinds[4]
        assert "<|" not in kinds[4]
        assert "''' a < b, < /s>" in kinds[4]
    first, second = sorted((shown(body) for body in server.bodies), key=lambda images: images[0].shape)
    np.testing.assert_array_equal(first[1], image)  # lossless
    np.testing.assert_array_equal(second[0], image)


def test_the_environment_sets_the_endpoint(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRPO_JUDGE_BASE_URL", f"{server.url}/")
    monkeypatch.setenv("DRPO_JUDGE_MODEL", "Qwen/Qwen3-VL-8B-Instruct")
    reward = rewards.load("judge", backend="endpoint")
    assert isinstance(reward, PairwiseReward)
    assert reward.compare([PAIR])[0].winner == "second"
    info = describe("judge", reward)
    assert info.version == "judge-1/endpoint/Qwen/Qwen3-VL-8B-Instruct"
    assert "authorization" not in server.headers[0]


def test_a_judge_that_always_prefers_one_position_is_flipped() -> None:
    with chat_server(lambda body: Reply(VERDICT)) as server:
        (answer,) = judge(server.url).compare([PAIR])
    assert (answer.winner, answer.flipped, answer.confidence) == ("tie", True, None)


def test_an_unparsed_answer_is_requested_again_and_then_counted() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        again = len(body["messages"]) == 3
        if again:
            assert body["messages"][1] == {"role": "assistant", "content": "The left one!"}
        return brighter(body) if again and shown(body)[0].max() == 0 else Reply("The left one!")

    with chat_server(reply) as server:
        (answer,) = judge(server.url).compare([PAIR])
    assert len(server.bodies) == 4
    assert (answer.winner, answer.unparsed, answer.flipped) == ("tie", 1, None)
    assert answer.details is not None
    assert [opinion["parsed"] for opinion in answer.details["asked"]] == [True, False]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_accepts_no_schema(status: int) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        return Reply("unknown field: response_format", status) if "response_format" in body else brighter(body)

    with chat_server(reply) as server:
        reward = judge(server.url, concurrency=1)
        assert reward.compare([PAIR])[0].winner == "second"
        assert reward.compare([PAIR])[0].winner == "second"
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False, False]


@pytest.mark.parametrize("status", [429, 503])
def test_the_judge_waits_for_retry_after(status: int) -> None:
    asked = []

    def reply(body: dict[str, Any]) -> Reply:
        asked.append(body)
        return Reply("busy", status, {"retry-after": "1"}) if len(asked) == 1 else brighter(body)

    with chat_server(reply) as server:
        assert judge(server.url, concurrency=1).compare([PAIR])[0].winner == "second"
    assert len(asked) == 3
    assert server.times[1] - server.times[0] >= 1


@pytest.mark.parametrize(
    ("reply", "options", "kind", "message"),
    [
        (Reply("busy", 429, {"retry-after": "30"}), {"timeout_s": 5}, OverloadedError, "answered 429"),
        (Reply("secret host", 500), {"retries": 1}, RewardUnavailableError, "answered 500"),
        (Reply("secret key", 401), {}, RewardError, r"answered 401 \(is the key in \$DRPO_JUDGE_API_KEY right\?\)"),
        (Reply("no model", 404), {}, RewardError, "does base_url end in /v1"),
        (Reply("too long", 400), {}, RewardError, "answered 400"),
        (Reply("late", delay_s=2), {"timeout_s": 0.3}, RewardTimeoutError, "no answer within 0.3 s"),
    ],
)
def test_failures_are_typed(reply: Reply, options: dict[str, Any], kind: type[RewardsError], message: str) -> None:
    """The server's message is not in the error."""
    with chat_server(lambda _: reply) as server, pytest.raises(kind, match=message) as caught:
        judge(server.url, concurrency=1, **options).compare([PAIR])
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)
    assert server.url not in str(caught.value)
    if kind is OverloadedError:
        assert caught.value.retry_after_s == 30
        assert len(server.bodies) <= 2  # each order once: the wait before another attempt would not fit the deadline


def test_a_response_without_a_chat_completion() -> None:
    with (
        chat_server(lambda _: Reply("{}", 201)) as server,
        pytest.raises(RewardError, match="sent no chat completion"),
    ):
        judge(server.url).compare([PAIR])


def test_a_server_that_does_not_run() -> None:
    with chat_server(brighter) as server:
        pass  # and it is gone
    with pytest.raises(RewardUnavailableError, match="cannot be reached"):
        judge(server.url, retries=1).compare([PAIR])
