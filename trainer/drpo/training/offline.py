"""Supervision by given preferences: chosen and rejected images of a prompt in the place of a ranking.

The paper's offline variant: the candidates are the queries, the positives are the chosen images, and the negatives the
rejected ones. Two settings go beyond it. With `offline.neighbours`, images of other prompts with a similar text join
the supports, with a weight. With `offline.own_samples`, the candidates that lie nearest to the chosen images, compared
with the rejected ones, become positives, and the farthest ones negatives.

Axes: K candidates, S supports of one side, T tokens, D features of a token, P prompts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from drpo.config import OfflineConfig
from drpo.data.preferences import Side
from drpo.data.preferences.cache import LatentCache, Place
from drpo.data.prompts.record import PromptRecord
from drpo.generators.base import OneStepGenerator
from drpo.method.objectives.base import Features, Group, Supports
from drpo.training import collective
from drpo.training.sampling import Candidates, GroupSampler
from drpo.training.tally import Tally
from drpo.transfer import move

SIDES: tuple[Side, Side] = ("chosen", "rejected")
PROMPTS_AT_ONCE = 64


class OfflineSupervision:
    """Gives a group the chosen and rejected images of its prompt as supports.

    Args:
        cache: the encoded images; complete.
        settings: the section `offline` of the config.
        generator: encodes the prompts, if the settings ask for neighbours. All workers must make this object.
    """

    def __init__(self, cache: LatentCache, settings: OfflineConfig, generator: OneStepGenerator) -> None:
        self.settings = settings
        self._cache = cache
        self._images = cache.read_index()
        self._neighbours = None
        if settings.neighbours:
            self._neighbours = Neighbours(list(self._images), generator, settings.neighbours)

    @property
    def records(self) -> list[PromptRecord]:
        """The prompts of the set."""
        return [PromptRecord(prompt) for prompt in self._images]

    def add_supports(
        self, group: Group, record: PromptRecord, candidates: Candidates, sampler: GroupSampler, tally: Tally
    ) -> Group:
        """The group with its positives and negatives, by the settings."""
        draw = random.Random(candidates.seed.derive("supports"))
        prompts = [(record.prompt, 1.0)]
        if self._neighbours is not None:
            prompts += self._neighbours.of(record.prompt)
            tally.add("neighbour_weight", sum(weight for _, weight in prompts[1:]))
        chosen, rejected = (self._read(side, prompts, candidates, sampler, draw) for side in SIDES)
        own = _detach(candidates, group.features)
        margins_K = preference_margins(own, chosen, rejected)
        tally.add("nearer_to_chosen", (margins_K > 0).float().mean())
        if self.settings.own_samples != "none":
            best, worst = self._split_own(margins_K, own)
            add = self.settings.own_samples == "add"
            chosen, rejected = (_join(chosen, best), _join(rejected, worst)) if add else (best, worst)
        return replace(group, positives=chosen, negatives=rejected)

    def _read(
        self,
        side: Side,
        prompts: Sequence[tuple[str, float]],
        candidates: Candidates,
        sampler: GroupSampler,
        draw: random.Random,
    ) -> Supports:
        """The images of one side, of the prompt and of its neighbours, and their features."""
        places: list[Place] = []
        weights: list[float] = []
        for prompt, weight in prompts:
            images = self._images[prompt].of(side)
            limit = self.settings.images_per_side
            drawn = images if len(images) <= limit else draw.sample(images, limit)
            places += drawn
            weights += [weight] * len(drawn)
        latents_SChw = move(self._cache.read(places), candidates.latents_KChw)
        features = sampler.observe_given(latents_SChw, candidates, side)
        return Supports(latents_SChw, features, move(torch.tensor(weights), latents_SChw.device))

    def _split_own(self, margins_K: Tensor, own: Supports) -> tuple[Supports, Supports]:
        """The share of the candidates with the largest margins, and that with the smallest ones."""
        count = max(1, int(self.settings.own_share * len(margins_K)))
        order_K = margins_K.argsort(descending=True, stable=True)
        return _pick(own, order_K[:count]), _pick(own, order_K[-count:])


def preference_margins(candidates: Supports, chosen: Supports, rejected: Supports) -> Tensor:
    """How much nearer each candidate is to the chosen images than to the rejected ones, (K,); positive: nearer.

    The distance to one side is the weighted mean over its images of the distance between features at the same token.
    For each key it is divided by the mean over both sides and all candidates; then the mean over the keys is taken.
    Without features, it is the distance between latents.
    """
    margins = []
    for key, tokens_KTD in _seen(candidates).items():
        to_chosen_K, to_rejected_K = (
            _mean_distances(tokens_KTD, _seen(side)[key], side) for side in (chosen, rejected)
        )
        scale = (to_chosen_K + to_rejected_K).mean().clamp_min(1e-12) / 2
        margins.append((to_rejected_K - to_chosen_K) / scale)
    return torch.stack(margins).mean(dim=0)


def _seen(supports: Supports) -> Features:
    """The features of images; without any, their latents as one token."""
    return supports.features or {"latents": supports.latents_SChw.flatten(1).unsqueeze(1)}


def _mean_distances(tokens_KTD: Tensor, given_STD: Tensor, side: Supports) -> Tensor:
    distances_TKS = torch.cdist(
        tokens_KTD.float().transpose(0, 1),
        given_STD.float().transpose(0, 1),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    return distances_TKS.mean(dim=0) @ (side.weights_S / side.weights_S.sum())


def _detach(candidates: Candidates, features: Features | None) -> Supports:
    """The candidates as supports of weight 1, without their graph."""
    latents_KChw = candidates.latents_KChw.detach()
    detached = {key: tokens.detach() for key, tokens in features.items()} if features is not None else None
    return Supports(latents_KChw, detached, torch.ones(len(latents_KChw), device=latents_KChw.device))


def _pick(supports: Supports, rows: Tensor) -> Supports:
    features = {key: tokens[rows] for key, tokens in supports.features.items()} if supports.features else None
    return Supports(supports.latents_SChw[rows], features, supports.weights_S[rows])


def _join(first: Supports, second: Supports) -> Supports:
    features = None
    if first.features is not None and second.features is not None:
        features = {key: torch.cat([tokens, second.features[key]]) for key, tokens in first.features.items()}
    latents_SChw = torch.cat([first.latents_SChw, second.latents_SChw])
    return Supports(latents_SChw, features, torch.cat([first.weights_S, second.weights_S]))


class Neighbours:
    """The prompts of a set that are nearest to one of them, by the generator's text encoder.

    A prompt's vector is its pooled one, or the mean over its tokens. The mean over all prompts is subtracted first,
    since otherwise all prompts are similar. The similarity is the cosine.

    Args:
        prompts: the different prompts of the set.
        generator: encodes them. The workers divide the prompts, so all of them must make this object.
        count: neighbours of each prompt.
    """

    def __init__(self, prompts: list[str], generator: OneStepGenerator, count: int) -> None:
        workers, rank = collective.world_size(), collective.rank()
        size = -(-len(prompts) // workers)
        mine = prompts[rank * size : (rank + 1) * size]
        shares = [share for share in collective.gather(_embed(mine, generator)) if share is not None]
        vectors_PD = torch.cat(shares)
        centred_PD = vectors_PD - vectors_PD.mean(dim=0)
        self._prompts = prompts
        self._vectors_PD = F.normalize(centred_PD, dim=-1)
        self._rows = {prompt: row for row, prompt in enumerate(prompts)}
        self._count = count

    def of(self, prompt: str) -> list[tuple[str, float]]:
        """The nearest other prompts with their similarity, the nearest one first; only similarities above 0."""
        row = self._rows[prompt]
        similarities_P = self._vectors_PD @ self._vectors_PD[row]
        similarities_P[row] = -1.0
        nearest = similarities_P.topk(min(self._count, len(similarities_P) - 1))
        found = zip(nearest.values.tolist(), nearest.indices.tolist(), strict=True)
        return [(self._prompts[index], similarity) for similarity, index in found if similarity > 0]


@torch.no_grad()
def _embed(prompts: list[str], generator: OneStepGenerator) -> Tensor | None:
    """One vector for each prompt, (P, D) float32 on the CPU; None if there are no prompts."""
    vectors = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        conditions = generator.encode_prompts(prompts[start : start + PROMPTS_AT_ONCE])
        pooled_PD = conditions.pooled_ND if conditions.pooled_ND is not None else conditions.text_NTD.mean(dim=1)
        vectors.append(pooled_PD.float().cpu())
    return torch.cat(vectors) if vectors else None
