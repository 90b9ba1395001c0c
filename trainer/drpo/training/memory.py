"""How much memory a training step takes on one device, before anything is downloaded or started.

The networks are built from the generator's configs on torch's meta device, where tensors have shapes but no numbers.
The sampler of the training step then runs on them, and a meter adds up what is alive at the same time. So the estimate
follows the code: chunks, gradient checkpointing, groups in flight, decoded pictures.

Not counted are the objective's own tensors, and what a GPU's libraries take for themselves: `SPARE` stands for these.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn

from drpo.config import Config
from drpo.errors import DrpoError
from drpo.generators import generator_class
from drpo.generators.base import Conditions
from drpo.generators.configs import PipelineConfigs
from drpo.generators.one_step import OneStepPipeline
from drpo.method.objectives.base import Group, Needs, Objective, ObjectiveResult
from drpo.shapes.embedded import generator_source, is_embedded
from drpo.training.build import build_feature_map, build_objective, ranks_candidates, start_of
from drpo.training.meter import Meter, fused_attention
from drpo.training.sampling import GroupSampler, GroupSeed
from drpo.training.views import make_view

if TYPE_CHECKING:
    from drpo.training.reward_gradient import RewardGradient

META = torch.device("meta")
_PROMPT = "a photo of a bench"  # any
SPARE = 1.2
"""What a GPU needs for each byte that is counted: gaps between its blocks, and work space of its libraries.

On an H100 up to 1.16 bytes were allocated for each that is counted (deploy/GPU.md).
"""


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a step in bytes.

    Attributes:
        weights: of the generator, its text encoders, the feature map, a differentiable reward, and what is trained.
        optimizer: gradients of what is trained, two means for each weight, and the averaged weights if there are some.
        step: everything that a step makes, at its peak.
        missing: what is not counted, and why.
    """

    weights: int
    optimizer: int
    step: int
    missing: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """What a device should have."""
        return int(SPARE * (self.weights + self.optimizer + self.step))

    def __str__(self) -> str:
        parts = {"weights": self.weights, "optimizer": self.optimizer, "a step at its peak": self.step}
        listed = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items())
        rest = "".join(f"; without {one}" for one in self.missing)
        return f"about {self.total / 2**30:.1f} GiB on each worker's device ({listed}, and the rest to spare{rest})"


def estimate_memory(config: Config) -> MemoryEstimate:
    """Estimates what a training step of these settings takes on one worker's device.

    Args:
        config: the settings. The generator's configs must be in its folder or in the hub's cache. The files of the
            feature map and of a differentiable reward are read too, if they are there.

    Raises:
        ConfigError: there is no adapter where `lora.adapter` says.
        ModelLoadError, UnsupportedModelError: the generator's configs are not there, or of an unknown layout; or the
            adapter of `lora.adapter` does not fit.
    """
    source, training = generator_source(config.model.generator), config.training
    layout = generator_class(source)
    configs = layout.requirements.check(source, config.model.vae)
    dtype = getattr(torch, config.model.dtype)
    texts = _build_text_encoders(configs, dtype)
    pipeline = SimpleNamespace(
        unet=nn.Module.to(configs.unet, dtype),  # without the warning of diffusers about mixed precision
        vae=nn.Module.to(configs.vae, dtype),
        scheduler=configs.scheduler,
        vae_scale_factor=2 ** (len(configs.vae.config.block_out_channels) - 1),
        **dict(zip(("text_encoder", "text_encoder_2"), texts, strict=False)),
        tokenizer=None,
        tokenizer_2=None,
    )
    if config.model.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
    start = start_of(config.lora)
    generator = layout(pipeline, config.lora if start is None else None, whole=config.lora is None)
    if start is not None:
        generator.load_adapter(start)
    generator.to_uint8 = lambda images_N3HW: torch.zeros((len(images_N3HW), 1, 1, 3), dtype=torch.uint8)
    objective, feature_map, missing = build_objective(config), None, list[str]()
    if _is_here(config.features.path):
        try:
            feature_map = build_feature_map(config, objective, generator, device="meta")
        except (DrpoError, NotImplementedError) as error:
            missing.append(f"the feature map ({error})")
    else:
        missing.append(f"the feature map (the files of {config.features.path} are not here yet)")
    needs = Needs(latents=True, reference_latents=True) if missing else objective.needs
    reward, reward_size = _outline_reward(objective, generator, missing)
    trained = generator.adapter.parameters()
    networks = [generator.vae, *texts, getattr(feature_map, "model", None)]
    weights = reward_size + sum(
        _size(one) for network in networks if network is not None for one in network.parameters()
    )
    weights += sum(_size(one) for one in {id(p): p for p in [*generator.unet.parameters(), *trained]}.values())
    averages = 1 if config.training.ema is not None else 0
    optimizer = (3 + averages) * sum(map(_size, trained))
    if config.lora is None:  # autocast keeps a copy of each weight in 16 bits; the meta device has no autocast
        for parameter in trained:
            parameter.data = parameter.data.to(dtype)
        weights += sum(map(_size, trained)) if dtype != torch.float32 else 0
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)  # from the second group on they are there
    view = make_view(generator, feature_map, decode_again=training.chunk_size is None)
    sampler = GroupSampler(generator, view, needs, training.chunk_size, ranks=ranks_candidates(config))
    groups = -(-training.groups_per_step // training.num_workers)  # of a worker
    in_flight = min(groups, training.groups_in_flight if training.pipeline else 1)
    candidates = training.candidates
    if training.chunk_size is not None:  # no group keeps a graph, and after two chunks the others take no more
        at_once = 0 if reward is None else reward.batch_size
        candidates, in_flight = min(candidates, max(2 * training.chunk_size, at_once)), 1
    noise_KChw = torch.empty((candidates, *generator.latent_shape), dtype=dtype, device=META)
    with Meter(META) as meter, fused_attention():
        run_groups(sampler, noise_KChw, _make_conditions(configs, dtype), in_flight, reward)
    return MemoryEstimate(weights, optimizer, meter.peak, tuple(missing))


def run_groups(
    sampler: GroupSampler,
    noise_KChw: Tensor,
    conditions: Conditions,
    count: int,
    reward: RewardGradient | None = None,
) -> None:
    """Generates as many groups as are in flight at once, and backpropagates a loss of the first one."""
    seed, in_flight = GroupSeed(0, 0, 0), []
    for _ in range(count):
        candidates = sampler.generate(noise_KChw, conditions, seed)
        reference_KChw = sampler.refer(candidates)
        group = sampler.observe_reference(sampler.observe(candidates), candidates, reference_KChw)
        if reward is not None:
            scores_K, gradient_KChw = reward.compute(candidates.latents_KChw, _PROMPT)
            group = replace(group, scores_K=scores_K, reward_gradient_KChw=gradient_KChw)
        in_flight.append((group, candidates))
    sampler.backward(*in_flight[0], _plain_loss)


def _outline_reward(
    objective: Objective, generator: OneStepPipeline, missing: list[str]
) -> tuple[RewardGradient | None, int]:
    """The differentiable reward on the meta device, and the bytes of its weights. What is left out joins `missing`."""
    if not objective.needs.reward_gradient:
        return None, 0
    from drpo.training.reward_gradient import outline_reward_gradient

    source = objective.settings.reward
    try:
        reward = outline_reward_gradient(source, generator)
    except DrpoError as error:
        missing.append(f"the reward ({error})")
        return None, 0
    if reward is None:
        missing.append(f"the reward {source.type} (its files are not here yet, or it cannot be built without them)")
        return None, 0
    size = sum(_size(weight) for network in reward.networks() for weight in network.parameters())
    if not _runs_on_meta(reward, generator.latent_shape):
        missing.append(f"what the reward {source.type} makes of a picture (only its weights are counted)")
        return None, size
    return reward, size


def _runs_on_meta(reward: RewardGradient, latent_shape: tuple[int, ...]) -> bool:
    """Whether the reward's network asks for no numbers, which tensors of the meta device do not have."""
    try:
        reward.compute(torch.empty((1, *latent_shape), device=META), _PROMPT)
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _is_here(path: str | None) -> bool:
    """Whether the files of a feature map are on this machine; so nothing is downloaded for an estimate."""
    if not path or is_embedded(path) or os.path.exists(path):
        return True
    try:
        return isinstance(try_to_load_from_cache(path, "config.json"), str)
    except HFValidationError:
        return False


def _plain_loss(group: Group) -> ObjectiveResult:
    """Any loss of all that an objective sees."""
    seen = [*(group.features or {}).values(), *([] if group.latents_KChw is None else [group.latents_KChw])]
    return ObjectiveResult(torch.stack([one.float().square().mean() for one in seen]).sum(), {})


def _build_text_encoders(configs: PipelineConfigs, dtype: torch.dtype) -> list[nn.Module]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    classes = (CLIPTextModel, CLIPTextModelWithProjection)
    with META:
        return [nn.Module.to(one(config), dtype) for one, config in zip(classes, configs.texts, strict=False)]


def _make_conditions(configs: PipelineConfigs, dtype: torch.dtype) -> Conditions:
    """One encoded prompt."""
    first, last = configs.texts[0], configs.texts[-1]
    text_1TD = torch.empty(
        (1, first.max_position_embeddings, configs.unet.config.cross_attention_dim), dtype=dtype, device=META
    )
    pooled_1D = torch.empty((1, last.projection_dim or 0), dtype=dtype, device=META) if len(configs.texts) > 1 else None
    return Conditions(text_1TD, pooled_1D)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
