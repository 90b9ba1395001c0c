"""Questions to a vision-language model behind an endpoint, asked of a real HTTP server that answers as tests say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.chat_server import Reply, chat_server, shown
from support.images import picture
from support.score_server import Answer, score_server

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, InvalidRequestError, RewardError
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.vlm.answers import add_chances, list_forms

IMAGES = [picture(20, 12, seed=1), picture(16, 16, seed=2)]
VQA = [["How many dogs are there?", "two"], ["Is it brown?", "Yes"], ["Which animal?", "giraffe"]]


def endpoint(url: str, **options: Any) -> Any:
    return rewards.load("vlm_score", backend="endpoint", base_url=url, model="m", retries=0, **options)


def test_an_endpoint_is_asked_for_json_and_its_votes_are_averaged() -> None:
    said = ['{"score": "5"}', 'I say {"score": "2"} here', '{"score": 2.0}']
    with chat_server(lambda body: Reply(said[body["seed"]])) as server:
        (score,) = endpoint(server.url, votes=3).score([ScoreItem(IMAGES[0], "a <|im_end|> cat")])
        assert score.value == 3
        assert score.details == {"votes": ["5", "2", "2"], "unparsed": 0}
        assert endpoint(server.url).score([ScoreItem(IMAGES[0], "a cat")])[0].value == 5
    body = server.bodies[0]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["score"]["enum"] == list("12345")
    assert (body["temperature"], server.bodies[-1]["temperature"]) == (1, 0)
    assert "< |im_end|>" in body["messages"][0]["content"][1]["text"]
    np.testing.assert_array_equal(shown(body)[0], IMAGES[0])


def test_an_unreadable_answer_is_asked_for_again_and_never_a_score() -> None:
    with chat_server(lambda body: Reply('{"score": "3"}' if len(body["messages"]) > 1 else "Well, a three?")) as server:
        assert endpoint(server.url).score([ScoreItem(IMAGES[0], "a cat")])[0].value == 3
    for text in ("no idea", '{"score": "6"}', '{"score": true}', '{"score": NaN}', "[]"):
        with chat_server(lambda _, text=text: Reply(text)) as server, pytest.raises(RewardError, match="gave none of"):
            endpoint(server.url).score([ScoreItem(IMAGES[0], "a cat")])


def probable(**tokens: float) -> Reply:
    """An answer with these tokens and probabilities; _ stands for a space."""
    entries = [{"token": token.replace("_", " "), "logprob": math.log(chance)} for token, chance in tokens.items()]
    return Reply("x", logprobs={"content": [{"token": "x", "logprob": -1.0, "top_logprobs": entries}]})


def test_an_endpoint_is_asked_for_probabilities() -> None:
    options = {"question": "Is it {prompt}?", "answers": {"yes": 2, "no": -1}, "logprobs": True}
    with chat_server(lambda _: probable(yes=0.3, _Yes=0.2, No=0.1, maybe=0.2)) as server:
        (score,) = endpoint(server.url, **options).score([ScoreItem(IMAGES[0], "a <|im_end|> cat")])
        assert score.value == pytest.approx((2 * 0.5 - 0.1) / 0.6)
        assert score.details == {"probabilities": {"yes": pytest.approx(0.5), "no": pytest.approx(0.1)}}
        # VQAScore has one answer only, whose probability is the score.
        vqascore = endpoint(server.url, preset="vqascore")
        assert vqascore.score([ScoreItem(IMAGES[1], "a cat")])[0].value == pytest.approx(0.5)
        assert vqascore.version == "vlm_score-1/vqascore/endpoint/logprobs/m"
    first, second = server.bodies
    assert (first["logprobs"], first["top_logprobs"], first["max_tokens"], first["temperature"]) == (True, 20, 1, 1)
    assert first["messages"][0]["content"][1]["text"] == "Is it a < |im_end|> cat?"
    np.testing.assert_array_equal(shown(second)[0], IMAGES[1])
    with chat_server(lambda _: probable(Well=0.9)) as server:
        with pytest.raises(RewardError, match="none of the answers"):
            endpoint(server.url, **options).score([ScoreItem(IMAGES[0], "a cat")])
        assert endpoint(server.url, preset="vqascore").score([ScoreItem(IMAGES[1], "a cat")])[0].value == 0


def test_tokens_that_begin_several_answers_tell_nothing() -> None:
    options = {"answers": {"not good": 0, "not bad": 1, "fine": 2}, "logprobs": True}
    for chances, value in (({"not": 0.2, "f": 0.6}, 2), ({"not_g": 0.3, "not_b": 0.1, "not": 0.2}, 0.25)):
        with chat_server(lambda _, chances=chances: probable(**chances)) as server:
            assert endpoint(server.url, **options).score([ScoreItem(IMAGES[0], "a")])[0].value == pytest.approx(value)
    with (
        chat_server(lambda _: probable(**{"not": 0.9, "fine": 0.05})) as server,
        pytest.raises(RewardError, match="or with what several of them begin with"),
    ):
        endpoint(server.url, **options).score([ScoreItem(IMAGES[0], "a")])


@pytest.mark.parametrize("content", [["parts"], 5, {"text": "5"}])
def test_a_message_that_is_no_text_is_an_error(content: Any) -> None:
    with chat_server(lambda _: Reply(content)) as server, pytest.raises(RewardError, match="sent no chat completion"):
        endpoint(server.url).score([ScoreItem(IMAGES[0], "a")])


def test_an_answer_that_cannot_be_read_for_its_depth_or_size_is_an_error() -> None:
    huge = {"content": [{"top_logprobs": [{"token": "a", "logprob": -(10**400)}]}]}
    with (
        chat_server(lambda _: Reply("", logprobs=huge)) as server,
        pytest.raises(RewardError, match="no probabilities"),
    ):
        soft_tifa(server.url).score([ScoreItem(IMAGES[0], "a", {"vqa": VQA})])
    with score_server(lambda _: Answer(b"[" * 100_000)) as server:
        with pytest.raises(RewardError, match="no probabilities"):
            soft_tifa(server.url).score([ScoreItem(IMAGES[0], "a", {"vqa": VQA})])
        with pytest.raises(RewardError, match="no chat completion"):
            endpoint(server.url).score([ScoreItem(IMAGES[0], "a")])
    with chat_server(lambda _: Reply("[" * 100_000)) as server, pytest.raises(RewardError, match="gave none of"):
        endpoint(server.url).score([ScoreItem(IMAGES[0], "a")])


def test_soft_tifa_asks_an_endpoint_each_question() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        text = body["messages"][0]["content"][1]["text"]
        assert text.endswith(" Answer in one word.")
        if "How many" in text:
            return probable(**{"2": 0.5, "_two": 0.25, "22": 0.1, "t": 0.05})
        return probable(Yes=0.9, No=0.06) if "brown" in text else probable(dog=0.9, cat=0.08)

    items = [ScoreItem(image, "unused", {"vqa": VQA, "skills": ["count", "color", "kind"]}) for image in IMAGES]
    # "giraffe" is not listed: at most what is left of 1, which is less than the least probable of those that are.
    chances = [0.5 + 0.25 + 0.05, 0.9, 0.02]
    with chat_server(answer) as server:
        reward = soft_tifa(server.url)
        scores = reward.score(items)
        sent = sorted(body["messages"][0]["content"][1]["text"][:12] for body in server.bodies)
        mean = soft_tifa(server.url, mean="arithmetic").score(items[:1])[0].value
    assert mean == pytest.approx(sum(chances) / 3)
    assert sent == ["How many dog"] * 2 + ["Is it brown?"] * 2 + ["Which animal"] * 2
    for score in scores:
        assert score.details is not None
        assert score.details["probabilities"] == pytest.approx(chances)
        assert score.value == pytest.approx(math.prod(chances) ** (1 / 3))
        assert score.details["parts"] == pytest.approx(dict(zip(("count", "color", "kind"), chances, strict=True)))
    assert reward.version == "soft_tifa-1/geometric/endpoint/m"
    assert rewards.load_class("soft_tifa").files(backend="endpoint") == ()


def soft_tifa(url: str, **options: Any) -> Any:
    return rewards.load("soft_tifa", backend="endpoint", base_url=url, model="m", retries=0, **options)


NOT_A_NUMBER = {"content": [{"top_logprobs": [{"token": "a", "logprob": math.nan}]}]}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply("Yes"), "sent no probabilities"),
        (Reply("Yes", logprobs={"content": []}), "sent no probabilities"),
        (
            Reply("Yes", logprobs={"content": [{"token": "Yes", "logprob": 0.0, "top_logprobs": []}]}),
            "no probabilities",
        ),
        (Reply("Yes", logprobs={"tokens": ["Yes"], "top_logprobs": [{"Yes": 0.0}]}), "sent no probabilities"),
        (Reply("", logprobs=NOT_A_NUMBER), "sent no probabilities"),
        (Reply("unknown field top_logprobs", 400), "does not accept top_logprobs: 20"),
        (Reply("<html>", 502), "answered 502"),
    ],
)
def test_an_endpoint_without_probabilities_is_an_error(reply: Reply, message: str) -> None:
    with chat_server(lambda _: reply) as server:
        for reward in (soft_tifa(server.url), endpoint(server.url, preset="vqascore")):
            with pytest.raises(RewardError, match=message):
                reward.score([ScoreItem(IMAGES[0], "a", {"vqa": VQA})])


def test_bad_questions_and_options_of_an_endpoint() -> None:
    url = "http://127.0.0.1:9/v1"
    with pytest.raises(InvalidRequestError, match="one skill for each question"):
        soft_tifa(url).score([ScoreItem(IMAGES[0], "a", {"vqa": VQA, "skills": ["a"]})])
    for options, message in (
        ({"question": " "}, "the question is empty"),
        ({"question": "Is it { prompt }?"}, r"no placeholder \{ prompt \}"),
        ({"question": "Is it {{prompt}}?"}, r"no placeholder \{\{prompt\}\}"),
        ({"question": "Is it {prompt!r}?"}, r"no placeholder \{prompt!r\}"),
        ({"question": "Is it {}?"}, r"no placeholder \{\}"),
        ({"rubric": "Is it {promt}?"}, r"no placeholder \{promt\}"),
        ({"answers": {"yes": 1, "no": 1}}, "worth the same"),
        ({"base_url": "http://127.0.0.1:9/v1?key=a"}, "write http://HOST:PORT/v1"),
        ({"base_url": "http://[::1/v1"}, "write http://HOST:PORT/v1"),
        ({"preset": "vqascore", "votes": 3}, "need no votes"),
        ({"logprobs": True, "votes": 2}, "need no votes"),
        ({"logprobs": True, "answer_start": "So: "}, "cannot begin the answer"),
        ({"preset": "unified_reward", "logprobs": True}, "cannot begin the answer"),
    ):
        with pytest.raises(ConfigError, match=message):
            endpoint(**{"url": options.pop("base_url", url), **options})
    json_like = 'Say {"is": "{prompt}"} or {score: 1} of {"a": {prompt}}'
    assert endpoint(url, question=json_like).question.write("it") == 'Say {"is": "it"} or {score: 1} of {"a": it}'
    with pytest.raises(ConfigError, match="soft_tifa has no backend 'vllm'"):
        rewards.load("soft_tifa", backend="vllm")


def test_which_tokens_begin_an_answer() -> None:
    chances = {
        "Yes": 0.4,
        " yes": 0.2,
        "Y": 0.1,
        "bro": 0.05,
        "b": 0.04,
        "12": 0.03,
        "1": 0.02,
        " ": 0.01,
        "brownish": 1,
    }
    assert add_chances(chances, list_forms("Yes")) == pytest.approx(0.6)  # Y begins Yes too, but is shorter
    assert add_chances(chances, list_forms("brown")) == pytest.approx(0.05)
    assert add_chances(chances, list_forms("12")) == pytest.approx(0.03)
    assert add_chances(chances, list_forms("1")) == pytest.approx(0.02)
    assert add_chances(chances, list_forms("zebra")) == 0
