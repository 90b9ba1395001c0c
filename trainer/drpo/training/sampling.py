"""The candidates of a group: generated whole or in chunks, looked at by the feature map, and backpropagated into.

Held whole, the graph of all K candidates stays in memory until the loss is known. In chunks, they are first generated
without a graph. Then the loss is differentiated with respect to what the objective sees, and each chunk is generated
again, now with its graph, and its rows of that gradient are backpropagated through it. Both give the same gradient.

Axes: K candidates of a group, N images or latents, (C, h, w) of a latent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drpo.data.seeds import derive_seed
from drpo.generators.base import Conditions, OneStepGenerator
from drpo.method.features.base import FeatureContext
from drpo.method.objectives.base import Explorer, Features, Group, Needs, ObjectiveResult
from drpo.training.phases import phase
from drpo.training.views import View
from drpo.transfer import Arriving


@dataclass(frozen=True)
class GroupSeed:
    """Where the random numbers of a group come from: the run's seed, the step, and the group's number in the step."""

    run: int
    step: int
    group: int

    def derive(self, name: str, *, bits: int = 63) -> int:
        """The seed for one purpose, such as "noise"."""
        return derive_seed(self.run, self.step, self.group, name, bits=bits)


@dataclass(frozen=True)
class Candidates:
    """K generated candidates.

    Attributes:
        noise_KChw, conditions, seed: what they were generated from.
        latents_KChw: with their graph, unless they are generated in chunks.
        images_KHWC: uint8, on their way to the rewards: of the candidates, or of the actions; None if nobody
            ranks them.
        actions_KChw: what was decoded in place of the latents, if the objective explores.
        features: those that came from the same decoded images; None: they are still to be computed.
    """

    noise_KChw: Tensor
    conditions: Conditions
    seed: GroupSeed
    latents_KChw: Tensor
    images_KHWC: Arriving | None
    features: Features | None
    actions_KChw: Tensor | None = None


class GroupSampler:
    """Generates candidates and references, computes what an objective needs of them, and backpropagates its loss.

    Args:
        generator: see `drpo.generators`.
        view: where the feature map looks; see `drpo.training.views`.
        needs: what the objective needs of a group.
        chunk_size: candidates computed at once; None: all.
        ranks: whether the candidates will be ranked, and are therefore decoded.
        explorer: makes the actions that are ranked, if the objective needs them.
    """

    def __init__(
        self,
        generator: OneStepGenerator,
        view: View,
        needs: Needs,
        chunk_size: int | None,
        *,
        ranks: bool,
        explorer: Explorer | None = None,
    ) -> None:
        self.generator = generator
        self.view = view
        self.needs = needs
        self.chunk_size = chunk_size
        self.ranks = ranks
        self.explorer = explorer

    def generate(
        self, noise_KChw: Tensor, conditions: Conditions, seed: GroupSeed, *, ranked: bool = False
    ) -> Candidates:
        """Lines 3 and 4 of Algorithm 1: candidates from the noises, decoded for the rewards unless they are ranked."""
        latents, images, features, actions = [], [], [], []
        with torch.set_grad_enabled(self.chunk_size is None):
            for start, noise_NChw in self._chunks(noise_KChw):
                with phase("student_unet_generate"):
                    latents.append(self.generator.sample(noise_NChw, conditions))
                if ranked or not self.ranks:
                    continue
                if self.explorer is not None:
                    with phase("vae_decode"):
                        actions.append(self.explorer.explore(latents[-1].detach(), noise_NChw))
                        images.append(self.generator.decode_uint8(actions[-1]))
                    continue
                with phase("vae_decode"):
                    seen = self.view.look(latents[-1], self._context(conditions, seed, "candidates", start))
                images.append(seen[0])
                if seen[1] is not None:
                    features.append(seen[1])
        joined = _join(features) if features and self.needs.features else None
        images_KHWC = Arriving(torch.cat(images)) if images else None
        actions_KChw = torch.cat(actions) if actions else None
        return Candidates(noise_KChw, conditions, seed, torch.cat(latents), images_KHWC, joined, actions_KChw)

    @torch.no_grad()
    def look(self, noise_KChw: Tensor, conditions: Conditions) -> Arriving:
        """Images (K, H, W, 3) uint8 of candidates that may not be used."""
        with phase("student_unet_generate"):
            parts = [self.generator.sample(noise_NChw, conditions) for _, noise_NChw in self._chunks(noise_KChw)]
        with phase("vae_decode"):
            return Arriving(torch.cat([self.generator.decode_uint8(latents_NChw) for latents_NChw in parts]))

    def observe(self, candidates: Candidates) -> Group:
        """The candidates as the objective sees them, without their references and ranking."""
        latents_KChw = candidates.latents_KChw if self.needs.latents else None
        group = Group(latents_KChw=latents_KChw, actions_KChw=candidates.actions_KChw)
        if not self.needs.features:
            return group
        features = candidates.features
        if features is None:
            with torch.set_grad_enabled(self.chunk_size is None):
                features = self._features(candidates, candidates.latents_KChw, "candidates")
        return replace(group, features=features)

    @torch.no_grad()
    def refer(self, candidates: Candidates) -> Tensor | None:
        """The latents of the reference generator from the same noises; None if the objective needs none."""
        if not (self.needs.reference_latents or self.needs.reference_features):
            return None
        with phase("reference_unet_generate"), self.generator.reference():
            chunks = self._chunks(candidates.noise_KChw)
            return torch.cat([self.generator.sample(noise, candidates.conditions) for _, noise in chunks])

    @torch.no_grad()
    def observe_reference(self, group: Group, candidates: Candidates, reference_KChw: Tensor | None) -> Group:
        """The group with what the objective needs of its references."""
        if self.needs.reference_latents:
            group = replace(group, reference_KChw=reference_KChw)
        if self.needs.reference_features and reference_KChw is not None:
            group = replace(group, reference_features=self._features(candidates, reference_KChw, "reference"))
        return group

    @torch.no_grad()
    def observe_given(self, latents_NChw: Tensor, candidates: Candidates, role: str) -> Features | None:
        """The features of given latents, under the prompt of the candidates; None if the objective needs none."""
        return self._features(candidates, latents_NChw, role) if self.needs.features else None

    def backward(
        self,
        group: Group,
        candidates: Candidates,
        loss: Callable[[Group], ObjectiveResult],
        last_backward: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> ObjectiveResult:
        """Backpropagates the loss of a group into the generator's trainable weights.

        Args:
            group: what the objective sees.
            candidates: what it was made from.
            loss: of a group.
            last_backward: what the last pass of the backpropagation runs in; in chunks there are several passes.
        """
        if self.chunk_size is None:
            with phase("loss_build"):
                result = loss(group)
            with phase("backward"), last_backward():
                result.loss.backward()
            return result
        leaves: Features = {key: feature.requires_grad_() for key, feature in (group.features or {}).items()}
        if group.latents_KChw is not None:
            group = replace(group, latents_KChw=group.latents_KChw.detach().requires_grad_())
        inputs = [tensor for tensor in (group.latents_KChw, *leaves.values()) if tensor is not None]
        with phase("loss_build"):
            result = loss(group)
            gradients = torch.autograd.grad(result.loss, inputs, materialize_grads=True)
        with phase("backward"):
            self._regenerate(group, candidates, leaves, gradients, last_backward)
        return result

    def _regenerate(
        self,
        group: Group,
        candidates: Candidates,
        leaves: Features,
        gradients: Sequence[Tensor],
        last_backward: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Generates each chunk again, now with its graph, and backpropagates its rows of the gradients."""
        for start, noise_NChw in self._chunks(candidates.noise_KChw):
            latents_NChw = self.generator.sample(noise_NChw, candidates.conditions)
            outputs = [latents_NChw] if group.latents_KChw is not None else []
            if leaves:
                context = self._context(candidates.conditions, candidates.seed, "candidates", start)
                features = self.view.features(latents_NChw, context)
                outputs += [features[key] for key in leaves]
            rows = slice(start, start + len(noise_NChw))
            is_last = rows.stop == len(candidates.noise_KChw)
            with last_backward() if is_last else nullcontext():
                torch.autograd.backward(outputs, [gradient[rows] for gradient in gradients])

    def _features(self, candidates: Candidates, latents_KChw: Tensor, role: str) -> Features:
        parts = []
        for start, latents_NChw in self._chunks(latents_KChw):
            context = self._context(candidates.conditions, candidates.seed, role, start)
            with phase("feature_extract"):
                parts.append(self.view.features(latents_NChw, context))
        return _join(parts)

    def _context(self, conditions: Conditions, seed: GroupSeed, role: str, start: int) -> FeatureContext:
        step_seed = derive_seed(seed.run, seed.step, "features")
        return FeatureContext(conditions, step_seed, seed.derive(f"features/{role}/{start}"))

    def _chunks(self, x_KChw: Tensor) -> list[tuple[int, Tensor]]:
        """The chunks of a group, each with the number of its first candidate."""
        size = self.chunk_size or len(x_KChw)
        return list(zip(range(0, len(x_KChw), size), x_KChw.split(size), strict=True))


def _join(parts: list[Features]) -> Features:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
