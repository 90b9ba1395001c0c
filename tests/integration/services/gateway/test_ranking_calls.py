"""Score, compare and rerank over three transports, and over plain HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import httpx
import numpy as np
import pytest
import ray
from ray._private.internal_api import memory_summary
from support.service import KEY, PICTURES, REDS, TRANSPORTS, address

from drpo_rewards import AsyncRankingClient, Group, RankingClient, errors, serving
from drpo_rewards.api.images import encode_png
from drpo_rewards.cluster.handles import BY_VALUE_BYTES
from drpo_rewards.operations.compare import CompareResponse

pytestmark = pytest.mark.integration

DARKS = PICTURES.astype(float).mean(axis=(1, 2, 3))


def uri(index: int) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(PICTURES[index])).decode()


async def test_several_rewards_of_a_large_group(client: AsyncRankingClient) -> None:
    """The group is too large to go by value, so all of its rewards read it from one place."""
    large = np.repeat(np.repeat(PICTURES[:2], 48, axis=1), 48, axis=2)
    assert large.nbytes > BY_VALUE_BYTES
    answer = await client.rank("p", large, rewards={"redness": 1.0, "darkness": 1.0, "judge": 1.0})
    assert answer.rewards["redness"].scores == pytest.approx(REDS[:2].tolist())
    assert answer.rewards["darkness"].scores == pytest.approx(DARKS[:2].tolist())
    assert np.argmax(answer.rewards["judge"].scores) == np.argmax(DARKS[:2])


async def test_a_large_group_by_handle_is_placed_once(service: serving.RunningService) -> None:
    """Gateway and rewards read the caller's copy. `busy` takes long enough to see what lies in the object store."""
    large = np.zeros((24, 512, 512, 3), dtype=np.uint8)

    here = ray.get_runtime_context().gcs_address  # there may be other Rays on this machine

    def stored_mb() -> float:
        mebibytes = re.search(r"Plasma memory usage (\d+) MiB", memory_summary(here, stats_only=True))
        assert mebibytes is not None
        return float(mebibytes[1]) * 2**20 / 1e6

    async with asyncio.timeout(30):
        while stored_mb() > 2:  # what earlier calls have left
            await asyncio.sleep(0.1)
    seen = []
    async with AsyncRankingClient(address(service, "serve")) as client:
        call = asyncio.create_task(client.rank("p", large, rewards={"busy": 1.0, "darkness": 1.0}))
        while not call.done():
            seen.append(await asyncio.to_thread(stored_mb))
            await asyncio.sleep(0.01)
        assert (await call).rewards["darkness"].scores == [0.0] * 24
    assert large.nbytes / 1e6 - 2 < max(seen) < 1.5 * large.nbytes / 1e6


async def test_score_gives_raw_scores_of_many_groups(client: AsyncRankingClient) -> None:
    groups = [Group("p", PICTURES[:3]), ("q", [encode_png(PICTURES[3])]), Group("r", PICTURES[4:24], {"a": 1})]
    answer = await client.score(groups, rewards=["darkness", "redness"], details=True, request_id="s")
    assert answer.request_id == "s"
    assert [set(group.rewards) for group in answer.groups] == [{"darkness", "redness"}] * 3
    redness = [group.rewards["redness"] for group in answer.groups]
    assert [score for one in redness for score in one.scores] == pytest.approx(REDS.tolist())
    assert [len(one.details or []) for one in redness] == [3, 1, 20]
    darkness = [score for group in answer.groups for score in group.rewards["darkness"].scores]
    assert darkness == pytest.approx(DARKS.tolist())  # raw scores are not negated, although lower is better
    assert {"total", "decode", "reward.redness", "score.darkness"} <= set(answer.timings_ms)
    plain = await client.score(groups[:1])
    assert list(plain.groups[0].rewards) == ["redness"]  # those of the mixture `default`
    assert plain.groups[0].rewards["redness"].details is None


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        (
            {"groups": [Group("p", PICTURES[:1]), Group("", PICTURES[:1])]},
            errors.InvalidRequestError,
            "groups[1].prompt",
        ),
        ({"groups": [Group("p", PICTURES[:1]), Group("p", [])]}, errors.InvalidRequestError, "groups[1].num_images"),
        (
            {"groups": [Group("p", PICTURES[:2]), Group("p", [PICTURES[0], b"no picture"])]},
            errors.InvalidImageError,
            "groups[1].images[1]",
        ),
        ({"rewards": ["redness", "sharpness"]}, errors.UnknownRewardError, "rewards"),
        ({"rewards": []}, errors.InvalidRequestError, "rewards"),
        (
            {"groups": [Group("p", PICTURES[:1]), Group("p", PICTURES[:1], {"how": "refuse"})], "rewards": ["failing"]},
            errors.InvalidRequestError,
            "groups[1].metadata.how",
        ),
        (
            {"groups": [Group("p", PICTURES[:2]), Group("p", PICTURES[:2], {"how": "nan"})], "rewards": ["failing"]},
            errors.RewardError,
            "groups[1].images[0]",
        ),
        (
            {"groups": [Group("p", PICTURES[:2]), Group("p", PICTURES[:1])], "rewards": ["judge"]},
            errors.InvalidRequestError,
            "groups[1].images",
        ),
    ],
)
async def test_invalid_score_requests_name_the_field(
    client: AsyncRankingClient, change: dict[str, Any], kind: type[errors.RewardsError], field: str | None
) -> None:
    with pytest.raises(kind) as caught:
        await client.score(**{"groups": [Group("p", PICTURES[:2])]} | change)
    assert type(caught.value) is kind
    assert caught.value.field == field


async def test_a_judge_compares(client: AsyncRankingClient) -> None:
    brighter, darker = PICTURES[int(DARKS.argmax())], PICTURES[int(DARKS.argmin())]
    first = await client.compare("p", brighter, darker, model="judge", details=True, request_id="c")
    assert (first.request_id, first.model, first.winner) == ("c", "judge", "first")
    assert first.verdict is not None
    assert first.verdict.version == "brighter-1"
    assert first.verdict.confidence == pytest.approx(float(DARKS.max() - DARKS.min()) / 255)
    assert first.verdict.details == {"difference": pytest.approx(float(DARKS.max() - DARKS.min()))}
    assert first.combined is None
    second = await client.compare("p", darker, brighter, model="judge")
    assert second.winner == "second"
    assert second.verdict is not None
    assert second.verdict.details is None
    tie = await client.compare("p", darker, darker, model="judge")
    assert tie.winner == "tie"
    assert tie.verdict is not None
    assert tie.verdict.confidence is None


async def test_pointwise_rewards_compare_by_their_scores(client: AsyncRankingClient) -> None:
    best, worst = PICTURES[int(REDS.argmax())], PICTURES[int(REDS.argmin())]
    by_default = await client.compare("p", worst, best)
    assert (by_default.model, by_default.winner) == ("default", "second")
    assert by_default.combined == pytest.approx([-1, 1])  # z-scores of two
    one = await client.compare("p", worst, best, model="redness", details=True)
    assert one.winner == "second"
    assert one.combined == one.rewards["redness"].scores == pytest.approx([REDS.min(), REDS.max()])
    assert one.verdict is None
    dark = await client.compare("p", np.zeros((8, 8, 3), np.uint8), best, model="darkness")
    assert dark.winner == "first"  # lower scores are better
    assert (await client.compare("p", best, best, model="both")).winner == "tie"


@pytest.mark.parametrize(
    ("model", "metadata", "kind", "field"),
    [
        ("beauty", None, errors.UnknownRewardError, "model"),
        ("failing", {"how": "raise"}, errors.RewardError, None),
        ("judge", {"how": "unsure"}, errors.RewardError, None),  # a confidence of 1.5
    ],
)
async def test_comparisons_that_fail(
    client: AsyncRankingClient, model: str, metadata: Any, kind: type[errors.RewardsError], field: str | None
) -> None:
    with pytest.raises(kind) as caught:
        await client.compare("p", PICTURES[0], PICTURES[1], model=model, metadata=metadata)
    assert type(caught.value) is kind
    assert caught.value.field == field


async def test_rerank_sorts(client: AsyncRankingClient) -> None:
    answer = await client.rerank("p", PICTURES, model="redness", top_n=5, request_id="r")
    assert (answer.id, answer.model, answer.usage.images) == ("r", "redness", 24)
    assert [one.index for one in answer.results] == np.argsort(-REDS)[:5].tolist()
    assert [one.relevance_score for one in answer.results] == pytest.approx(sorted(REDS, reverse=True)[:5])
    ranking = await client.rank("p", PICTURES, mixture="both")
    mixed = await client.rerank("p", PICTURES, model="both")
    assert [one.index for one in mixed.results] == ranking.order
    assert [one.relevance_score for one in mixed.results] == [ranking.combined[i] for i in ranking.order]
    assert len((await client.rerank("p", PICTURES[:1])).results) == 1
    with pytest.raises(errors.UnknownRewardError) as caught:
        await client.rerank("p", PICTURES, model="beauty")
    assert caught.value.field == "model"
    with pytest.raises(errors.InvalidImageError) as refused:
        await client.rerank("p", [PICTURES[0], b"no picture"])
    assert refused.value.field == "documents[1]"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("a cat on a mat", "image document"),
        ({"text": "a cat"}, "image document"),
        ({"image": uri(0), "text": uri(1)}, "has 2 images"),
        ({"content": []}, "image document"),
        ({"content": [{"type": "text", "text": "a cat"}]}, "image document"),
        ({"content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}, "fetches none"),
        ({"image": "http://127.0.0.1:1/a.png"}, "fetches none"),
        ({"image": "file:///etc/passwd"}, "fetches none"),
        ({"image": "data:image/png,raw"}, "not base64"),
        (None, "image document"),
    ],
)
def test_documents_that_are_not_images_are_refused(service: serving.RunningService, document: Any, reason: str) -> None:
    body = {"query": "p", "documents": [{"image": uri(0)}, document]}
    response = httpx.post(f"{service.http_url}/v1/rerank", json=body)
    assert response.status_code == 422
    problem = response.json()
    assert (problem["code"], problem["field"]) == ("invalid_image", "documents[1]")
    assert reason in problem["detail"]


def test_json_and_multipart_agree(service: serving.RunningService) -> None:
    def ask(path: str, body: dict[str, Any], head: dict[str, Any], indices: list[int]) -> tuple[Any, Any]:
        parts = [("images", (f"{i}.png", encode_png(PICTURES[i]), "image/png")) for i in indices]
        files = [("request", (None, json.dumps(head), "application/json")), *parts]
        answers = [
            httpx.post(f"{service.http_url}{path}", json=body),
            httpx.post(f"{service.http_url}{path}", files=files),
        ]
        return tuple({key: value for key, value in one.json().items() if key != "timings_ms"} for one in answers)

    groups = [{"prompt": "p", "images": [uri(0), uri(1)]}, {"prompt": "q", "images": [uri(2)]}]
    heads = [{"prompt": "p", "num_images": 2}, {"prompt": "q", "num_images": 1}]
    by_json, by_form = ask(
        "/v1/score", {"groups": groups, "request_id": "x"}, {"groups": heads, "request_id": "x"}, [0, 1, 2]
    )
    assert by_json == by_form
    assert len(by_json["groups"][0]["rewards"]["redness"]["scores"]) == 2
    head = {"prompt": "p", "request_id": "x"}
    by_json, by_form = ask("/v1/compare", head | {"images": [uri(0), uri(1)]}, head, [0, 1])
    assert by_json == by_form
    assert CompareResponse.model_validate(by_json).combined
    head = {"query": "p", "request_id": "x"}
    by_json, by_form = ask("/v1/rerank", head | {"documents": [{"image": uri(0)}, {"image": uri(1)}]}, head, [0, 1])
    assert by_json == by_form


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_models_describe_every_reward(service: serving.RunningService, transport: str) -> None:
    with RankingClient(address(service, transport)) as client:
        models = {info.name: info for info in client.models()}
    judge = models["judge"]
    assert (judge.mode, judge.checkpoint, judge.revision, judge.license) == (
        "pairwise",
        "nobody/brighter",
        "0123abc",
        "Apache-2.0",
    )
    assert judge.description.startswith("Compares two images")
    assert models["redness"].mode == "pointwise"
    assert models["redness"].state == models["both"].state == "ready"


def test_the_documentation_needs_no_other_server(guarded: serving.RunningService) -> None:
    """This holds under a path prefix and without a key too."""
    page = httpx.get(f"{guarded.http_url}/docs")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    root = str(guarded.http_url).removesuffix("/guarded")
    linked = [part.split('"')[0] for key in ('src="', 'href="') for part in page.text.split(key)[1:]]
    assert linked
    for link in linked:
        assert link.startswith("/guarded/"), link
        assert httpx.get(f"{root}{link}").status_code == 200, link
    assert "/guarded/openapi.json" in page.text
    document = httpx.get(f"{guarded.http_url}/openapi.json").json()
    assert {f"/v1/{name}" for name in ("rank", "score", "compare", "rerank")} <= set(document["paths"])
    refs = {part.split('"')[0] for part in json.dumps(document).split('"#/components/schemas/')[1:]}
    assert refs <= set(document["components"]["schemas"])
    assert httpx.get(f"{guarded.http_url}/metrics").status_code == 401
    assert httpx.get(f"{guarded.http_url}/metrics", headers={"x-api-key": KEY}).status_code == 200
