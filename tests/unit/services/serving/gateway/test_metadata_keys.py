"""One request asks several rewards: each gets the metadata that it declares, and a key that none reads is an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image, ImageDraw
from support.replica_handle import ReplicaHandle, local_gateway

from drpo_rewards import AsyncRankingClient, Group
from drpo_rewards.api.metadata import READS_NONE, check_keys, combine_schemas, list_keys, take_share
from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.rewards import CATALOGUE, load_class
from drpo_rewards.serving.gateway.listen import Listeners
from drpo_rewards.serving.listeners import free_port

SPEC = {"tag": "colors", "include": [{"class": "circle", "color": "red"}]}
TEXT = {"properties": {"text": {"type": "string"}, "size": {"type": "integer"}}}
REWARDS = {
    "geneval": "geneval",
    "text": "support.rewards:EchoOfText",
    "size": "jpeg_size",
    "own": "support.rewards:Echo",
}


def draw() -> np.ndarray:
    picture = Image.new("RGB", (64, 64), (238, 238, 236))
    ImageDraw.Draw(picture).ellipse((18, 20, 44, 46), fill=(214, 38, 40))
    return np.stack([np.asarray(picture)] * 2)


PICTURES = draw()


@asynccontextmanager
async def serve(protocol: str, **rewards: str) -> AsyncIterator[tuple[AsyncRankingClient, dict[str, ReplicaHandle]]]:
    gateway, handles = local_gateway(**rewards)
    port = free_port()
    listeners = Listeners(gateway, "ranking", *((port, None) if protocol == "http" else (None, port)))
    await listeners.open()
    try:
        async with AsyncRankingClient(f"{protocol}://127.0.0.1:{port}", retries=0) as client:
            yield client, handles
    finally:
        await listeners.close()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_rewards_with_different_metadata_are_asked_together(protocol: str) -> None:
    async with serve(protocol, **REWARDS) as (client, _):
        both = SPEC | {"text": "OPEN"}
        ranking = await client.rank("p", PICTURES, rewards={"geneval": 2, "text": 1}, metadata=both, details=True)
        assert ranking.rewards["geneval"].scores == [1, 1]
        assert ranking.rewards["text"].details == [{"got": {"text": "OPEN"}}] * 2
        ranking = await client.rank("p", PICTURES, metadata=both, details=True)  # the default mixture: all four
        assert ranking.rewards["own"].details == [{"got": both}] * 2
        groups = [Group("a red circle", PICTURES, {"text": "OPEN"}), Group("p", PICTURES, SPEC)]
        scored = await client.score(groups, rewards=["geneval", "text"], details=True)
        assert scored.groups[0].rewards["geneval"].scores == [1, 1]  # from the prompt: no key is GenEval's
        assert scored.groups[1].rewards["text"].details == [{"got": None}] * 2
        scores = await client.score_batch(PICTURES, "p", [both, SPEC], rewards=["geneval", "text"])
        assert scores["geneval"].tolist() == [1, 1]
        assert (await client.rerank("p", PICTURES, model="default", metadata=both)).results[0].index == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("rewards", "metadata", "field", "reason"),
    [
        (["geneval", "text"], SPEC | {"txt": "a"}, "metadata.txt", "did you mean text"),
        (["geneval", "text", "size"], SPEC | {"zzz": 1}, "metadata.zzz", "geneval reads exclude, include, prompt, tag"),
        (["text"], {"text": "a", "include": []}, "metadata.include", "text reads size, text"),
        (["geneval", "text"], {"text": "a", "include": "x"}, "metadata", "not a GenEval spec"),
        (["geneval"], {"includ": []}, "metadata.includ", "did you mean include"),
    ],
)
async def test_a_key_that_no_reward_reads_is_an_error(
    protocol: str, rewards: list[str], metadata: dict[str, Any], field: str, reason: str
) -> None:
    async with serve(protocol, **REWARDS) as (client, handles):
        with pytest.raises(InvalidRequestError, match=reason) as caught:
            await client.rank("p", PICTURES, rewards=dict.fromkeys(rewards, 1), metadata=metadata)
        assert caught.value.field == field
        good, bad = Group("a red circle", PICTURES), Group("p", PICTURES, metadata)
        with pytest.raises(InvalidRequestError, match=reason) as caught:
            await client.score([good, bad], rewards=rewards)
        assert caught.value.field == f"groups[1].{field}"
        if field != "metadata":  # known before any reward is asked
            assert all(method != "score" for handle in handles.values() for method, _ in handle.calls)


async def test_metadata_that_nobody_reads_passes() -> None:
    """A trainer sends the metadata of its prompts with every request, also to rewards that read none."""
    async with serve("http", **REWARDS) as (client, _):
        assert len((await client.rank("p", PICTURES, rewards={"size": 1}, metadata=SPEC)).order) == 2
        answer = await client.rank("p", PICTURES, rewards={"own": 1, "size": 1}, metadata={"x": 1}, details=True)
        assert answer.rewards["own"].details == [{"got": {"x": 1}}] * 2
        assert answer.rewards["size"].details is not None


async def test_an_upgrade_may_add_keys() -> None:
    async with serve("http", r="geneval", s="geneval") as (client, handles):
        with pytest.raises(InvalidRequestError, match=r"metadata\.text"):
            await client.rank("a red circle", PICTURES, metadata={"text": "a"})
        handles["s"].deploy("support.rewards:EchoOfText")
        answer = await client.rank("a red circle", PICTURES, metadata={"text": "a"}, details=True)
        assert answer.rewards["s"].details == [{"got": {"text": "a"}}] * 2


async def test_models_say_what_a_mixture_reads() -> None:
    async with serve("http", **REWARDS) as (client, _):
        models = {info.name: info.metadata_schema for info in await client.models()}
    assert models["size"] == READS_NONE
    assert models["own"] is None
    for name in ("geneval", "text"):
        schema = models[name]
        assert schema is not None
        assert schema["additionalProperties"] is False
    default = Draft202012Validator(models["default"])  # with `own`, which may read anything
    assert default.is_valid(SPEC | {"text": "a", "more": 1})
    both = Draft202012Validator(combine_schemas({name: models[name] for name in ("geneval", "text", "size")}))
    assert both.is_valid(SPEC | {"text": "a"})
    for wrong in ({"text": "a"}, SPEC | {"text": 1}, SPEC | {"txt": "a"}, {"include": [{"class": "circle", "x": 1}]}):
        assert not both.is_valid(wrong), wrong
    assert combine_schemas({"a": None, "b": None}) is None
    assert combine_schemas({"a": READS_NONE, "b": READS_NONE}) == READS_NONE


async def test_a_key_that_is_null_is_absent() -> None:
    """Tables of data sets fill in every key that any row has."""
    row = SPEC | {"exclude": None, "text": None, "vqa": None}
    async with serve("http", **REWARDS) as (client, _):
        ranking = await client.rank("p", PICTURES, rewards={"geneval": 1, "text": 1}, metadata=row, details=True)
        assert ranking.rewards["geneval"].scores == [1, 1]
        assert ranking.rewards["text"].details == [{"got": None}] * 2
        scores = await client.score_batch(PICTURES, "a red circle", dict.fromkeys(row), rewards="geneval")
        assert scores["geneval"].tolist() == [1, 1]  # from the prompt


def test_which_keys_a_schema_declares() -> None:
    assert list_keys(TEXT) == {"text", "size"}
    assert list_keys(READS_NONE) == set()
    for schema in (None, {}, {"type": "object"}, TEXT | {"additionalProperties": True}, TEXT | {"anyOf": [{}]}):
        assert list_keys(schema) is None
        assert take_share({"x": 1}, schema) == {"x": 1}
        check_keys({"x": 1}, {"a": schema, "b": TEXT})
    assert take_share({"text": "a", "x": 1}, TEXT) == {"text": "a"}
    assert take_share({"x": 1}, TEXT) is take_share({}, TEXT) is take_share(None, TEXT) is None


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_reward_of_the_catalogue_says_what_it_reads(name: str) -> None:
    schema = getattr(load_class(name), "metadata_schema", None)
    assert (list_keys(schema) is None) == (name == "remote")  # that depends on the service that it asks


async def test_an_error_names_the_query_of_a_rerank_request() -> None:
    async with serve("http", geneval="geneval") as (client, _):
        with pytest.raises(InvalidRequestError) as caught:
            await client.rerank("a sign", PICTURES, model="geneval", metadata={"text": "a"})
        assert caught.value.field == "metadata.text"
    async with serve("http", ocr="ocr") as (client, _):
        with pytest.raises(InvalidRequestError, match="in quotes") as caught:
            await client.rerank("a sign", PICTURES, model="ocr")
        assert caught.value.field == "query"
