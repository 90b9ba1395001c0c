"""A judge's rankings and scores, which are the same over three transports and for any order of the images."""

from __future__ import annotations

import numpy as np
import pytest
from support.service import PICTURES, REDS

from drpo_rewards import AsyncRankingClient, PairOptions, errors
from drpo_rewards.client import Group

pytestmark = pytest.mark.integration

LIGHTS = PICTURES.astype(float).mean(axis=(1, 2, 3))  # the judge of these tests prefers the brighter picture


async def test_a_judge_ranks(client: AsyncRankingClient) -> None:
    ranking = await client.rank("p", PICTURES, rewards={"judge": 1.0}, details=True, pairs=PairOptions(count=4))
    result = ranking.rewards["judge"]
    found = result.tournament
    assert found is not None
    assert 100 < found.comparisons <= 120  # 24 * ceil(log2 24); all pairs would be 276
    assert (found.ties, found.unparsed, found.flip_rate) == (0, 0, None)
    assert len(found.standard_errors) == 24
    assert all(0 < error < 2 for error in found.standard_errors)
    assert result.version == "brighter-1"
    assert ranking.order[0] == int(LIGHTS.argmax())
    assert np.corrcoef(result.scores, LIGHTS.argsort().argsort())[0, 1] > 0.9
    assert result.details is not None
    assert sum(sum(record.values()) for record in result.details if record) == 2 * found.comparisons
    assert all(ranking.combined[winner] > ranking.combined[loser] for winner, loser in ranking.pairs)
    again = await client.rank("p", PICTURES, rewards={"judge": 1.0})
    assert again.combined == ranking.combined
    assert again.rewards["judge"].details is None


async def test_scores_do_not_depend_on_the_order_of_the_images(client: AsyncRankingClient) -> None:
    """Each image has the same score in another order and together with another group."""
    order = np.random.default_rng(1).permutation(11)
    groups = [Group("p", PICTURES[:11]), Group("q", PICTURES[11:14]), Group("p", PICTURES[order])]
    answer = await client.score(groups, rewards=["judge", "redness"])
    in_order, other, back = (group.rewards["judge"] for group in answer.groups)
    assert [in_order.scores[index] for index in order] == back.scores
    assert in_order.tournament is not None
    assert other.tournament is not None
    assert in_order.tournament.comparisons <= 44
    assert other.tournament.comparisons == 3
    assert np.argsort(other.scores).tolist() == np.argsort(LIGHTS[11:14]).tolist()
    assert answer.groups[0].rewards["redness"].scores == pytest.approx(REDS[:11].tolist())
    assert answer.groups[0].rewards["redness"].tournament is None


async def test_all_pairs_on_request(client: AsyncRankingClient) -> None:
    ranking = await client.rank("p", PICTURES[:12], rewards={"judge": 1.0}, all_pairs=True)
    assert ranking.rewards["judge"].tournament is not None
    assert ranking.rewards["judge"].tournament.comparisons == 66
    assert ranking.order == np.argsort(-LIGHTS[:12]).tolist()
    scored = await client.score([Group("p", PICTURES[:12])], rewards=["judge"], all_pairs=True)
    assert scored.groups[0].rewards["judge"].scores == ranking.rewards["judge"].scores


async def test_a_mixture_of_a_judge_and_a_pointwise_reward(client: AsyncRankingClient) -> None:
    ranking = await client.rank("p", PICTURES[:6], rewards={"judge": 1.0, "redness": 3.0})
    assert ranking.rewards["judge"].weight == 0.25
    zscores = []
    for name in ("judge", "redness"):
        scores = np.array(ranking.rewards[name].scores)
        zscores.append((scores - scores.mean()) / scores.std())
    assert ranking.combined == pytest.approx((0.25 * zscores[0] + 0.75 * zscores[1]).tolist())


async def test_rerank(client: AsyncRankingClient) -> None:
    answer = await client.rerank("p", PICTURES[:5], model="judge", top_n=2)
    best, second = (result.index for result in answer.results)
    assert [best, second] == np.argsort(-LIGHTS[:5])[:2].tolist()
    assert answer.results[0].relevance_score > answer.results[1].relevance_score


async def test_equal_images_are_tied(client: AsyncRankingClient) -> None:
    ranking = await client.rank("p", np.stack([PICTURES[0]] * 4), rewards={"judge": 1.0})
    assert ranking.all_tied
    assert ranking.rewards["judge"].tournament is not None
    assert ranking.rewards["judge"].tournament.ties == 6


async def test_a_judge_that_fails_fails_the_ranking(client: AsyncRankingClient) -> None:
    with pytest.raises(errors.RewardError, match="not a valid comparison") as caught:
        await client.rank("p", PICTURES[:6], rewards={"judge": 1.0}, metadata={"how": "unsure"})
    assert caught.value.reward == "judge"
