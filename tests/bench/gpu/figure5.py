"""DrPO against DRaFT, which backpropagates the reward, both with HPSv3: figure 5 of the paper.

As there: SD-Turbo, K 24, 12 pairs, 192 images an update, LoRA of rank 16, bfloat16, the latent-MAE in float32, pictures
decoded and scored one by one, no reference drift although the reference is generated. An update accumulates eight
micro-batches of 24 images. One micro-batch is measured, and everything but the optimizer is multiplied by eight.
"""

from __future__ import annotations

from typing import Any

import torch
from bench.gpu.checkpoints import PROMPT, generator_folder, load_hpsv3
from bench.gpu.generator import load_map, set_checkpointing
from bench.gpu.hpsv3_pixels import score_pixels
from bench.gpu.measure import Bench, Clock, peak_gb, reset_peak
from torch import Tensor

from drpo.config import LoraConfig
from drpo.generators import load_generator
from drpo.method.features.base import FeatureContext
from drpo.method.objectives import load_objective
from drpo.method.objectives.base import Group

CANDIDATES, PAIRS, ACCUMULATION = 24, 12, 8
WARM_UP = 8  # images before the measurement
PHASES = (
    "text_encode",
    "student_unet_generate",
    "reference_unet_generate",
    "vae_decode",
    "hpsv3_score",
    "rank_select",
    "feature_extract",
    "loss_build",
    "backward",
    "optimizer_step",
)
PAPER = {"DrPO": (6.17, 0.34), "DRaFT": (21.62, 9.99)}  # seconds of an update and of its backward pass


class Methods:
    """Both methods on the same networks."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.count = 2 if bench.small else CANDIDATES
        self.generator: Any = load_generator(
            generator_folder(bench, "sd_turbo"), device=bench.device, dtype=bench.dtype, lora=LoraConfig()
        )
        self.features = load_map(bench, "sd_turbo").map
        self.reward = load_hpsv3(bench)
        self.objective = load_objective("drpo", {"reference_weight": 0.0})
        self.optimizer = torch.optim.AdamW(self.generator.adapter.parameters(), lr=1e-4)
        for module in (self.reward.network, self.reward.head):
            module.requires_grad_(False)

    def drpo(self, clock: Clock, chunk: int) -> None:
        """One micro-batch of DrPO and an update; pictures are decoded and scored `chunk` at a time."""
        generator = self.generator
        set_checkpointing(generator, True)
        self._set_reward_checkpointing(False)
        with clock("text_encode"):
            conditions = generator.encode_prompts([PROMPT])
        noise_NChw = generator.noise(self.count, torch.Generator().manual_seed(0))
        with clock("student_unet_generate"):
            latents_NChw = generator.sample(noise_NChw, conditions)
        with clock("reference_unet_generate"), torch.no_grad(), generator.reference():
            generator.sample(noise_NChw, conditions)
        with clock("vae_decode"), torch.no_grad():
            images_N3HW = torch.cat([generator.decode_float(part) for part in latents_NChw.split(chunk)])
        with clock("hpsv3_score"), torch.no_grad():
            scores_N = torch.cat([score_pixels(self.reward, part, PROMPT) for part in images_N3HW.split(chunk)])
        with clock("rank_select"):
            pairs_M2 = self._pairs(scores_N)
        with clock("feature_extract"):
            features = self.features.of_latents(latents_NChw, FeatureContext(conditions))
        with clock("loss_build"):
            loss = self.objective.loss(Group(features=features, pairs_M2=pairs_M2)).loss
        with clock("backward"):
            loss.backward()
        self._update(clock)

    def draft(self, clock: Clock) -> None:
        """One micro-batch of DRaFT and an update: a pass forward and back for each picture, through HPSv3."""
        generator = self.generator
        set_checkpointing(generator, False)
        self._set_reward_checkpointing(True)
        with clock("text_encode"):
            conditions = generator.encode_prompts([PROMPT])
        for noise_1Chw in generator.noise(self.count, torch.Generator().manual_seed(0)).split(1):
            with clock("student_unet_generate"):
                latents_1Chw = generator.sample(noise_1Chw, conditions)
            with clock("reference_unet_generate"), torch.no_grad(), generator.reference():
                generator.sample(noise_1Chw, conditions)
            with clock("vae_decode"):
                image_13HW = generator.decode_float(latents_1Chw)
            with clock("hpsv3_score"):
                score_1 = score_pixels(self.reward, image_13HW, PROMPT)
            with clock("loss_build"):
                loss = -score_1.sum() / self.count
            with clock("backward"):
                loss.backward()
        self._update(clock)

    def _pairs(self, scores_N: Tensor) -> Tensor:
        order_N = scores_N.argsort(descending=True)
        pairs = min(PAIRS, self.count // 2)
        return torch.stack([order_N[:pairs], order_N.flip(0)[:pairs]], dim=1)

    def _update(self, clock: Clock) -> None:
        with clock("optimizer_step"):
            torch.nn.utils.clip_grad_norm_(self.generator.adapter.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def _set_reward_checkpointing(self, on: bool) -> None:
        network: Any = self.reward.network
        if on:
            network.activation_checkpointing_enable({"use_reentrant": False})
        else:
            network.activation_checkpointing_disable()
        network.train(on)  # transformers checkpoints in training mode only; this network has no dropout


def run(bench: Bench) -> None:
    """Measures an update of both methods, and DrPO also with larger batches."""
    methods = Methods(bench)
    cases = {
        "DrPO": lambda clock: methods.drpo(clock, 1),
        "DRaFT": methods.draft,
        "DrPO, 8 pictures at a time": lambda clock: methods.drpo(clock, 8),
    }
    count = methods.count
    updates, phases = {}, {}
    for name, step in cases.items():
        methods.count = min(WARM_UP, count)
        step(Clock())
        methods.count = count
        reset_peak()
        clock = Clock()
        step(clock)
        totals = clock.totals()
        phases[name] = {
            phase: seconds * (1 if phase == "optimizer_step" else ACCUMULATION) for phase, seconds in totals.items()
        }
        updates[name] = sum(phases[name].values())
        paper = PAPER.get(name, (None, None))
        bench.record.row(
            "an update of 192 images on one GPU",
            method=name,
            seconds=updates[name],
            backward=phases[name]["backward"],
            peak_GB=peak_gb(),
            seconds_in_the_paper=paper[0],
            backward_in_the_paper=paper[1],
        )
    for name in ("DrPO", "DrPO, 8 pictures at a time"):
        bench.record.row("DRaFT over DrPO", method=name, ratio=updates["DRaFT"] / updates[name], in_the_paper=3.51)
    for phase in PHASES:
        bench.record.row("phases", phase=phase, **{name: seconds.get(phase) for name, seconds in phases.items()})
    bench.record.note(
        f"One micro-batch of {count} images was measured, after fewer to warm up. All its phases but the optimizer "
        f"are multiplied by {ACCUMULATION}. The paper's numbers are of four GPUs with two micro-batches each, so only "
        "the ratio compares."
    )
