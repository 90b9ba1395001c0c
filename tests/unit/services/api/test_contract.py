"""The contract, its errors, and both as protobuf."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import grpc
import numpy as np
import pytest
from support import ROOT

from drpo_rewards import RankResponse, errors
from drpo_rewards.api.contract import (
    Metric,
    Model,
    ModelInfo,
    Options,
    PairOptions,
    Readiness,
    RewardReadiness,
    RewardResult,
    RewardScores,
    parse,
)
from drpo_rewards.api.geneval import Clause
from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.operations import OPERATIONS, RANK
from drpo_rewards.operations.compare import CompareOptions, CompareResponse, Verdict
from drpo_rewards.operations.rank import RankOptions
from drpo_rewards.operations.rerank_contract import RerankOptions, RerankResponse, RerankResult, RerankUsage
from drpo_rewards.operations.score import GroupOptions, ScoredGroup, ScoreOptions, ScoreResponse
from drpo_rewards.rewards.base import Comparison, PairItem
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.errors import error_from_metadata, error_to_metadata
from drpo_rewards.wire.images import image_from_proto
from drpo_rewards.wire.models import models_from_proto, models_to_proto, readiness_from_proto, readiness_to_proto


def through_proto(response: Model) -> Model:
    """Convert a response to its message and back."""
    (operation,) = (operation for operation in OPERATIONS.values() if type(response) is operation.response)
    message = operation.response_to_proto(response)
    return operation.response_from_proto(type(message).FromString(message.SerializeToString()))


def test_the_base_install_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, drpo_rewards, drpo_rewards.cli, drpo_rewards.operations, drpo_rewards.rewards\n"
        "drpo_rewards.RankingClient('http://127.0.0.1:1').close()\n"
        "drpo_rewards.RankingClient('grpc://127.0.0.1:1').close()\n"
        "heavy = {'torch', 'ray', 'fastapi', 'scipy', 'transformers', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_committed_stubs_match_the_proto() -> None:
    subprocess.run([sys.executable, ROOT / "protos" / "generate.py", "--check"], check=True, timeout=60)


ALL_ERRORS = sorted(set(errors.BY_CODE.values()), key=lambda cls: cls.code)


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.code)
def test_errors_survive_pickle_and_grpc(cls: type[errors.RewardsError]) -> None:
    members: dict[str, Any] = {"reward": "a", "field": "images[1]", "retry_after_s": 2.0, "request_id": "r"}
    error = cls("what was wrong", **members)
    copies = [
        pickle.loads(pickle.dumps(error)),
        errors.from_code(error.code, str(error), **members),
        error_from_metadata(error_to_metadata(error), str(error)),
    ]
    for copy in copies:
        assert type(copy) is cls
        assert str(copy) == "what was wrong"
        assert vars(copy) == vars(error)


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.code)
def test_every_error_is_a_builtin_too_and_has_a_grpc_status(cls: type[errors.RewardsError]) -> None:
    builtin = {base for base in cls.__mro__ if base.__module__ == "builtins"}
    assert builtin - {Exception, BaseException, object}
    assert cls.grpc_status in grpc.StatusCode.__members__


def test_an_unknown_error_code_becomes_an_internal_error() -> None:
    assert type(errors.from_code("from_the_future", "x")) is errors.InternalError


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"rewards": {"a": float("nan")}}, "rewards"),
        ({"rewards": {"a": 0}}, "rewards"),
        ({"rewards": {"a" * 100_000: 1}}, "rewards"),
        ({"mixture": "a" * 129}, "mixture"),
        ({"a" * 100_000: 1}, "aaa"),
        ({"rewards": {}}, "rewards"),
        ({"rewards": {"a": 1}, "mixture": "b"}, None),
        ({"normalize": "softmax"}, "normalize"),
        ({"pairs": {"count": 0}}, "pairs.count"),
        ({"pairs": {"count": 1, "seed": -1}}, "pairs.seed"),
        ({"request_id": "a b"}, "request_id"),
        ({"weights": {}}, "weights"),
        ({"metadata": {"a": [float("nan")]}}, "metadata"),
        ({"metadata": {"a": "x" * 200_000}}, "metadata"),
        ({"metadata": {"a": object()}}, "metadata"),
        ({"metadata": json.loads('{"a":' * 20 + "1" + "}" * 20)}, "metadata"),
    ],
)
def test_invalid_options_name_their_field(changes: dict[str, Any], field: str | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(RankOptions, {"prompt": "a star", **changes})
    assert (caught.value.field or "").startswith(field or "")
    assert len(str(caught.value)) < 500
    assert "Value error" not in str(caught.value)


def test_infinite_numbers_are_refused_over_grpc_too() -> None:
    request = RANK.request_to_proto(RankOptions(prompt="p"), [b"a", b"b"])
    request.metadata.update({"a": [1.0, float("nan")]})
    with pytest.raises(InvalidRequestError, match="finite") as caught:
        RANK.options_from_proto(request)
    assert caught.value.field == "metadata"


def test_requests_survive_the_proto() -> None:
    options = RankOptions(
        prompt="a star <|image_pad|>",
        rewards={"a": 0.5, "b": -1.0},
        normalize="rank",
        metadata={"include": [{"class": "star", "count": 2, "share": 0.5}], "none": None, "flag": True},
        pairs=PairOptions(count=3, strategy="extremes", seed=2**62),
        details=True,
        request_id="r-1",
    )
    pixels = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    message = pb.RankRequest.FromString(RANK.request_to_proto(options, [pixels, b"file"]).SerializeToString())
    assert RANK.options_from_proto(message) == options
    data, width, height = image_from_proto(message.images[0], "images[0]")
    assert (data, width, height) == (pixels.tobytes(), 9, 8)
    assert image_from_proto(message.images[1], "images[1]") == b"file"
    plain = RankOptions(prompt="a star")
    assert RANK.options_from_proto(RANK.request_to_proto(plain, [b"1", b"2"])) == plain
    with pytest.raises(errors.InvalidImageError, match="no content"):
        image_from_proto(pb.Image(), "images[0]")


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (
            ScoreOptions(
                groups=[
                    GroupOptions(prompt="a", num_images=2),
                    GroupOptions(prompt="b", num_images=1, metadata={"c": 1}),
                ],
                rewards=["x", "y"],
                details=True,
                request_id="r",
            ),
            3,
        ),
        (ScoreOptions(groups=[GroupOptions(prompt="a", num_images=1)]), 1),
        (CompareOptions(prompt="a", model="judge", metadata={"c": [1.5]}, details=True, request_id="r"), 2),
        (CompareOptions(prompt="a"), 2),
        (RerankOptions(query="a", model="m", top_n=2, metadata={}, request_id="r"), 4),
        (RerankOptions(query="a"), 1),
    ],
)
def test_every_request_survives_the_proto(options: Options, count: int) -> None:
    (operation,) = (operation for operation in OPERATIONS.values() if type(options) is operation.options)
    files = [bytes([index]) for index in range(count)]
    message = operation.request_to_proto(options, files)
    copy = type(message).FromString(message.SerializeToString())
    assert operation.options_from_proto(copy) == options
    assert [image_from_proto(image, "") for image in operation.images_of(copy)] == files
    with pytest.raises(InvalidRequestError, match=f"{count + 300}"):
        operation.request_to_proto(options, [b""] * (count + 300))


@pytest.mark.parametrize(
    "answer",
    [
        ScoreResponse(
            request_id="r",
            groups=[
                ScoredGroup(rewards={"a": RewardScores(scores=[1.5], version="v", details=[{"x": 1}])}),
                ScoredGroup(rewards={"a": RewardScores(scores=[0.0, -2.0], version="v")}),
            ],
            timings_ms={"total": 1.0},
        ),
        CompareResponse(
            request_id="r",
            model="judge",
            winner="second",
            verdict=Verdict(reward="judge", version="v", confidence=0.0, details={"reason": "sharper"}),
        ),
        CompareResponse(request_id="r", model="judge", winner="tie", verdict=Verdict(reward="judge", version="v")),
        CompareResponse(
            request_id="r",
            model="m",
            winner="first",
            combined=[1.0, -1.0],
            rewards={"a": RewardResult(scores=[2.0, 1.0], weight=1.0, version="v")},
        ),
        RerankResponse(
            id="r", model="m", results=[RerankResult(index=1, relevance_score=0.5)], usage=RerankUsage(images=2)
        ),
    ],
)
def test_every_response_survives_the_proto(answer: Any) -> None:
    assert through_proto(answer) == answer


def test_errors_name_images_by_their_field_in_the_request() -> None:
    groups = [GroupOptions(prompt="a", num_images=2), GroupOptions(prompt="b", num_images=2)]
    assert ScoreOptions(groups=groups).image_field(2) == "groups[1].images[0]"
    assert RerankOptions(query="a").image_field(2) == "documents[2]"
    assert RankOptions(prompt="a").image_field(2) == "images[2]"
    with pytest.raises(InvalidRequestError, match="need 4 images in total; this request has 3"):
        ScoreOptions(groups=groups).check_count(3)


def test_a_judgement_can_be_swapped() -> None:
    first, second = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
    pair = PairItem(first, second, "p", {"a": 1})
    assert pair.swap() == PairItem(second, first, "p", {"a": 1})
    assert Comparison("first", 0.7).swap() == Comparison("second", 0.7)
    assert Comparison("tie").swap() == Comparison("tie")


def test_rankings_models_and_readiness_survive_the_proto() -> None:
    response = RankResponse(
        request_id="r",
        combined=[0.1, -0.1],
        order=[0, 1],
        ranks=[0, 1],
        pairs=[(0, 1)],
        all_tied=False,
        normalize="none",
        rewards={
            "a": RewardResult(
                scores=[1.5, 1e-9],
                weight=1.0,
                version="v",
                details=[{"reasons": ["x"], "strict": 1}, None],
                metrics={"strict": [1.0, 0.0]},
            ),
        },
        timings_ms={"total": 1.25},
    )
    assert through_proto(response) == response
    models = [
        ModelInfo(name="a", version="v", range=(0, 1), needs_metadata=True, license="MIT", state="busy"),
        ModelInfo(name="o", metadata_schema={"type": "object"}, needs_in_prompt="a text in quotes"),
        ModelInfo(name="g", version="v", metrics=[Metric(name="strict", unit="share", higher_is_better=False)]),
        ModelInfo(name="j", version="v", mode="pairwise", checkpoint="a/b", revision="0", state="unavailable"),
        ModelInfo(name="m", kind="mixture", weights={"a": 1.0}, normalize="rank"),
    ]
    assert models_from_proto(models_to_proto(models)) == models
    weights = dict.fromkeys("bdface", 0.5)
    (mixed,) = models_from_proto(models_to_proto([ModelInfo(name="m", kind="mixture", weights=weights)]))
    assert list(mixed.weights) == sorted(weights)  # a map has no order of its own, and it is shown to people
    readiness = Readiness(ready=False, rewards={"a": RewardReadiness(ready=False, message="why", milliseconds=2.0)})
    assert readiness_from_proto(readiness_to_proto(readiness)) == readiness


def test_of_many_mistakes_only_their_number_is_told() -> None:
    keys = ", ".join(f'"{number}": 1' for number in range(1001))
    with pytest.raises(InvalidRequestError, match=r"^1001 keys or values are not as the API describes them$"):
        parse(GroupOptions, f'{{"prompt": "p", "num_images": 2, {keys}}}')
    with pytest.raises(InvalidRequestError, match=r"^`0`: there is no such key \(and 999 more\)"):
        parse(GroupOptions, f'{{"prompt": "p", "num_images": 2, {keys.rpartition(",")[0]}}}')


@pytest.mark.parametrize(
    ("model", "values", "field"),
    [
        (PairOptions, {"count": True}, "count"),
        (PairOptions, {"count": 2, "seed": False}, "seed"),
        (GroupOptions, {"prompt": "p", "num_images": True}, "num_images"),
        (RerankOptions, {"query": "q", "top_n": True}, "top_n"),
        (Clause, {"class": "circle", "count": True}, "count"),
        (Clause, {"class": "circle", "position": ["left of", False]}, "position"),
    ],
)
def test_true_and_false_are_no_whole_numbers(model: type[Model], values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"{field}.* must be a whole number, not (true|false)"):
        parse(model, values)
