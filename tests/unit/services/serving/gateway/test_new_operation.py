"""A new operation takes one class and one entry of the catalogue: the test adds one and calls it over HTTP."""

from __future__ import annotations

import base64

import httpx
import pytest
from pydantic import Field
from support.replica_handle import local_gateway
from support.service import PICTURES, REDS

from drpo_rewards import AsyncRankingClient
from drpo_rewards.api.contract import Model, Options, PromptText
from drpo_rewards.api.images import encode_png
from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.operations import OPERATIONS
from drpo_rewards.operations.base import Answers, Base64, Body, Operation, Question, ServedRewards, one_group
from drpo_rewards.serving.gateway.http import build_app


class BestOptions(Options):
    prompt: PromptText
    metadata: None = None


class BestRequest(BestOptions, Body):
    images: list[Base64] = Field(min_length=2, max_length=256)

    def split(self) -> tuple[BestOptions, list[str]]:
        return self, self.images


class BestResponse(Model):
    index: int
    score: float


class Best(Operation[BestOptions, BestResponse]):
    """Which image the first reward likes best."""

    name = "best"
    summary = "Which image the first reward likes best."
    options = BestOptions
    body = BestRequest
    response = BestResponse

    def question(self, options: BestOptions, num_images: int, served: ServedRewards) -> Question:
        return Question(list(served.names)[:1], one_group(options.prompt, num_images, options))

    def answer(self, options: BestOptions, question: Question, answers: Answers, served: ServedRewards) -> BestResponse:
        scores = [score.value for score in answers[question.rewards[0]].scores]
        return BestResponse(index=scores.index(max(scores)), score=max(scores))


async def test_a_new_operation_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, Best.name, Best())
    gateway, _ = local_gateway(redness="support.rewards:Redness")
    transport = httpx.ASGITransport(app=build_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        images = [base64.b64encode(encode_png(picture)).decode() for picture in PICTURES[:6]]
        answer = (await client.post("/v1/best", json={"prompt": "red", "images": images})).raise_for_status().json()
        assert answer == {"index": int(REDS[:6].argmax()), "score": pytest.approx(REDS[:6].max())}
        refused = await client.post("/v1/best", json={"prompt": "", "images": images})
        assert (refused.status_code, refused.json()["field"]) == (422, "prompt")
        document = (await client.get("/openapi.json")).json()
        assert document["paths"]["/v1/best"]["post"]["summary"] == Best.summary
        assert 'operation="best"' in (await client.get("/metrics")).text


async def test_an_operation_without_messages_is_refused_over_grpc() -> None:
    async with AsyncRankingClient("grpc://127.0.0.1:1") as client:
        with pytest.raises(InvalidRequestError, match="best is not offered over gRPC; use an http://"):
            await client.call(Best(), {"prompt": "red"}, PICTURES[:2])


async def test_the_openapi_document_is_written_for_readers_of_http() -> None:
    gateway, _ = local_gateway(redness="support.rewards:Redness")
    schemas = build_app(gateway).openapi()["components"]["schemas"]
    assert schemas["PairOptions"]["description"].startswith("How many (winner, loser) pairs to draw")
    for name, schema in schemas.items():
        assert "Example:" not in schema.get("description", ""), name
        assert "Attributes:" not in schema.get("description", ""), name
