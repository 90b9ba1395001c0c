"""The remote reward against servers that speak the forms of other projects, and against servers that misbehave."""

from __future__ import annotations

import base64
import email.parser
import io
import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.images import picture
from support.score_server import Answer, Request, score_server

from drpo_rewards import rewards
from drpo_rewards.errors import (
    ConfigError,
    InvalidRequestError,
    OverloadedError,
    RewardError,
    RewardsError,
    RewardTimeoutError,
    RewardUnavailableError,
)
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.remote.templates import find

ITEMS = [ScoreItem(picture(32, 24, seed=seed), f"prompt {seed}", {"number": seed}) for seed in range(5)]
MEANS = [float(item.image.mean()) for item in ITEMS]


def mean(file: bytes | str) -> float:
    content = base64.b64decode(file) if isinstance(file, str) else file
    return float(np.asarray(Image.open(io.BytesIO(content))).mean())


def as_json(value: Any) -> Answer:
    return Answer(json.dumps(value).encode(), headers={"content-type": "application/json"})


def json_scorer(request: Request) -> Answer:
    body = json.loads(request.content)
    assert body["prompts"] == [f"prompt {entry['number']}" for entry in body["metadata"]]
    return as_json({"scores": [mean(image) for image in body["images"]]})


def multipart_scorer(request: Request) -> Answer:
    head = f"content-type: {request.headers['content-type']}\n\n".encode()
    parts = email.parser.BytesParser().parsebytes(head + request.content).get_payload()
    asked, *files = (part.get_payload(decode=True) for part in parts)
    assert len(json.loads(asked)["prompts"]) == len(files)
    return as_json({"scores": [mean(file) for file in files]})


def flow_factory_scorer(request: Request) -> Answer:
    assert request.path == "/compute"
    body = json.loads(request.content)
    assert body.keys() == {"prompts", "images"}
    return as_json({"rewards": [mean(image) for image in body["images"]]})


def unirl_scorer(request: Request) -> Answer:
    assert request.path == "/score"
    body = json.loads(request.content)
    assert body["protocol_version"] == "1"
    results = []
    for entry in body["requests"]:
        assert entry["required_rewards"] == ["pick"]
        assert entry["history"][0]["text"] == f"prompt {entry['metadata']['number']}"
        results.append({"pick": {"score": mean(entry["history"][0]["image_b64"]), "other": -1.0}})
    return as_json({"protocol_version": "1", "results": results, "errors": [{}] * len(results)})


def flow_grpo_scorer(request: Request) -> Answer:
    body = pickle.loads(request.content)
    assert all(Image.open(io.BytesIO(file), formats=["jpeg"]) for file in body["images"])
    return Answer(pickle.dumps({"outputs": np.array([mean(file) for file in body["images"]], np.float32)}))


def flow_grpo_geneval_scorer(request: Request) -> Answer:
    body = pickle.loads(request.content)
    assert [entry["number"] for entry in body["meta_datas"]] == list(range(len(body["images"])))
    assert body["only_strict"] is False
    return Answer(pickle.dumps({"scores": [np.float64(mean(file)) for file in body["images"]], "rewards": []}))


@pytest.mark.parametrize(
    ("scorer", "options"),
    [
        (json_scorer, {}),
        (multipart_scorer, {"form": "multipart"}),
        (flow_factory_scorer, {"form": "flow_factory"}),
        (unirl_scorer, {"form": "unirl", "reward": "pick"}),
        (flow_grpo_scorer, {"form": "flow_grpo", "unsafe_pickle": True}),
        (flow_grpo_geneval_scorer, {"form": "flow_grpo_geneval", "unsafe_pickle": True, "images_per_call": 16}),
    ],
)
def test_each_form_gets_its_scores_in_order(scorer: Callable[[Request], Answer], options: dict[str, Any]) -> None:
    with score_server(scorer) as server:
        reward = rewards.load("remote", url=server.url, **{"images_per_call": 2, **options})
        scores = [score.value for score in reward.score(ITEMS)]
    assert scores == pytest.approx(MEANS, abs=2)  # some send JPEG
    assert len(server.requests) == (1 if options.get("images_per_call") else 3)


def test_a_template_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def scorer(request: Request) -> Answer:
        assert (request.path, request.headers["authorization"]) == ("/deep/er", "Bearer secret")
        entries = json.loads(request.content)["data"]
        assert [entry["text"] for entry in entries] == [item.prompt for item in ITEMS]
        return as_json([{"a/b": {"value": [mean(entry["picture"])]}} for entry in entries])

    monkeypatch.setenv("OTHER_KEY", "secret")
    with score_server(scorer) as server:
        reward = rewards.load(
            "remote",
            url=server.url,
            path="/deep/er",
            request={"data": {"each": {"text": "{prompt}", "picture": "{image}"}}, "what": "mean"},
            answer="/*/a~1b/value/0",
            api_key_env="OTHER_KEY",
        )
        assert [score.value for score in reward.score(ITEMS)] == pytest.approx(MEANS)
        assert json.loads(server.requests[0].content)["what"] == "mean"


def test_a_prompt_may_stand_in_a_longer_text() -> None:
    """A prompt that looks like a placeholder stays what it is."""
    with score_server(lambda _: as_json({"scores": [1.0]})) as server:
        request = {"of": {"each": {"text": "Caption: {prompt}!", "form": '{"a": 1}', "picture": "{image}"}}}
        rewards.load("remote", url=server.url, request=request).score([ScoreItem(ITEMS[0].image, "{image}")])
        (sent,) = json.loads(server.requests[0].content)["of"]
    assert (sent["text"], sent["form"]) == ("Caption: {image}!", '{"a": 1}')


def test_an_address_may_have_a_query_if_nothing_is_appended() -> None:
    with score_server(lambda _: as_json({"scores": [1.0]})) as server:
        rewards.load("remote", url=f"{server.url}/score?key=a").score(ITEMS[:1])
        rewards.load("remote", url=f"{server.url}/", path="/score?key=a").score(ITEMS[:1])
    assert [request.path for request in server.requests] == ["/score?key=a"] * 2


def test_the_deadline_holds_for_headers_too() -> None:
    """Each piece of them comes soon after the one before, and all together too late; the answer itself is empty."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the client goes away
                for piece in [b"HTTP/1.1 200 OK\r\nx: ", *[b"a"] * 30, b"\r\ncontent-length: 0\r\n\r\n"]:
                    connection.sendall(piece)
                    time.sleep(0.1)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(RewardTimeoutError, match="no answer within 1 s"):
            rewards.load("remote", url=url, timeout_s=1, retries=0).score(ITEMS[:1])
        thread.join()


HTML = Answer(b"<html><body>Please log in</body></html>", headers={"content-type": "text/html"})


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (as_json({"scores": [1.0] * 4}), RewardError, "sent 4 scores for 5 pictures"),
        (as_json({"scores": [1.0] * 6}), RewardError, "sent 6 scores for 5 pictures"),
        (Answer(b'{"scores": [1, 2, NaN, 4, 5]}'), RewardError, "score 2 is nan"),
        (Answer(b'{"scores": [1, 2, 1e999, 4, 5]}'), RewardError, "score 2 is inf"),
        (as_json({"scores": [1, 10**400, 3, 4, 5]}), RewardError, "score 1 is an integer of many digits, and not"),
        (as_json({"scores": [1, "0.5", 3, 4, 5]}), RewardError, "score 1 is '0.5'"),
        (as_json({"scores": [1, None, 3, 4, 5]}), RewardError, "score 1 is None"),
        (as_json({"scores": [True] * 5}), RewardError, "score 0 is True"),
        (as_json({"scores": 0.5}), RewardError, "sent 1 scores for 5"),
        (as_json({"result": []}), RewardError, r"no scores at /scores: there is no /scores"),
        (as_json([]), RewardError, "no scores at /scores"),
        (HTML, RewardError, r"sent no JSON \(text/html\)"),
        (Answer(b""), RewardError, "sent no JSON"),
        (Answer(b"[" * 100_000), RewardError, "sent no JSON"),
        (Answer(b" " * 17_000_000), RewardError, "over 16 MB"),
        (Answer(b"no", 401), RewardError, r"answered 401 \(does it need a key"),
        (Answer(b"", 302, {"location": "http://elsewhere/"}), RewardError, r"answered 302 \(it redirects; write"),
        (Answer(b"secret host", 503), RewardUnavailableError, "answered 503"),
        (Answer(b"", 429), OverloadedError, "answered 429"),
        (Answer(b"{}", delay_s=3), RewardTimeoutError, "no answer within 1 s"),
        (Answer(b" " * 100, piece_delay_s=0.05), RewardTimeoutError, "no answer within 1 s"),
    ],
)
def test_what_is_no_answer_is_an_error_and_never_a_score(
    answer: Answer, error: type[RewardsError], message: str
) -> None:
    with score_server(lambda _: answer) as server:
        timeout_s = 1 if error is RewardTimeoutError else 30  # a busy machine must not decide the others
        reward = rewards.load("remote", url=server.url, timeout_s=timeout_s, retries=0)
        with pytest.raises(error, match=message) as caught:
            reward.score(ITEMS)
    assert "secret host" not in str(caught.value)


def test_temporary_failures_are_tried_again() -> None:
    answers = [Answer(b"", 503), Answer(b"", 429, {"retry-after": "0"}), as_json({"scores": [2.5]})]
    with score_server(lambda _: answers.pop(0)) as server:
        assert rewards.load("remote", url=server.url).score(ITEMS[:1])[0].value == 2.5
    with pytest.raises(RewardUnavailableError, match="cannot be reached"):
        rewards.load("remote", url=server.url, retries=0).score(ITEMS[:1])


class Evil:
    """A pickle that runs a command where it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


def test_an_answer_in_pickle_runs_no_code(tmp_path: Path) -> None:
    content = pickle.dumps({"outputs": Evil(tmp_path / "ran")})
    for answer in (content, content[:20], b"", b"<html>"):
        with score_server(lambda _, answer=answer: Answer(answer)) as server:
            reward = rewards.load("remote", url=server.url, form="flow_grpo", unsafe_pickle=True)
            with pytest.raises(RewardError, match="sent no pickle of plain numbers"):
                reward.score(ITEMS[:1])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "write http://HOST:PORT"),
        ({"url": None}, "the remote scorer is None; write http://HOST:PORT"),
        ({"url": "http://127.0.0.1:port"}, "'http://127.0.0.1:port'; write http://HOST:PORT"),
        ({"url": "http://"}, "write http://HOST:PORT"),
        ({"url": "http://h/score?a=1", "path": "/x"}, "write http://HOST:PORT"),
        ({"path": "v1/judge"}, "gets the path 'v1/judge'; write it with a slash"),
        ({"path": 5}, "gets the path 5"),
        ({"answer": 5}, "write a JSON pointer"),
        ({"images_per_call": 2.5}, "images_per_call is 2.5; write a whole number"),
        ({"retries": "3"}, "one of at least 0, not 30.0, 4 and '3'"),
        ({"request": {"prompts": "{prompts}"}}, "would see no picture"),
        ({"request": ["{images}", "Caption: {prompts}"]}, "{prompts} must be a whole text, not a part of 'Caption"),
        ({"request": ["{images}", "Caption: {prompt}"]}, "of one picture stands inside"),
        ({"request": {"each": {"i": "data:image/png;base64,{image}"}}}, "{image} must be a whole text"),
        ({"request": {"each": {"a": {"each": "{image}"}}}}, "stands inside another one"),
        ({"form": "flow_grpo"}, "write unsafe_pickle: true"),
        ({"form": "flow_grpo", "unsafe_pickle": "yes"}, "write unsafe_pickle: true"),
        ({"form": "grpc"}, "no form 'grpc'; known are json"),
        ({"form": "unirl"}, "needs `reward`"),
        ({"reward": "x"}, "for the form unirl"),
        ({"request": {"images": "{pictures}"}}, "no placeholder {pictures}"),
        ({"request": {"images": "{image}"}}, "stands inside"),
        ({"answer": "scores"}, "write a JSON pointer"),
        ({"image": "gif"}, "write png or jpeg"),
        ({"images_per_call": 0}, "at least 1"),
        ({"timeout_s": 0}, "timeout_s must be a number over 0"),
        ({"api_key_env": "NO_SUCH_KEY"}, r"\$NO_SUCH_KEY, which api_key_env names, is not set"),
        ({"wait": 1}, "has no option 'wait'"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rewards.load("remote", **{"url": "http://127.0.0.1:1", **options})


def test_genevals_form_needs_metadata() -> None:
    reward = rewards.load("remote", url="http://127.0.0.1:1", form="flow_grpo_geneval", unsafe_pickle=True)
    assert reward.needs_metadata
    with pytest.raises(InvalidRequestError, match="needs the prompt's GenEval spec"):
        reward.score([ScoreItem(ITEMS[0].image, "a bench")])


def test_pointers() -> None:
    answer = {"a": [{"b~c": 1}, {"b~c": 2}], "": {"x": [5]}}
    assert find(answer, "/a/*/b~0c") == [1, 2]
    assert find(answer, "/a/1/b~0c") == [2]
    assert find(answer, "//*") == [5]
    with pytest.raises(LookupError, match="there is no /a/2"):
        find(answer, "/a/2/b")
