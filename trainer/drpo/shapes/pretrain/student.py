"""Stage 4, the student: one step distilled from the teacher by regression on its pairs of noise and sample.

The student predicts what `EulerDiscreteScheduler` calls epsilon at a noise level sigma of 1, where one step is
`x = z - epsilon(z / sqrt(2))`: the same form as the teacher's velocity at t = 1, so it starts as the teacher.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor

from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.data import draw_prompts
from drpo.shapes.pretrain.flow import LAST_TIMESTEP, LATENT, new_unet, sample
from drpo.shapes.pretrain.stage import StepRandom, fit

_BATCH = 64
_PAIRS_PER_FILE = 256
_ABSOLUTE_ERROR_WEIGHT = 0.3


def new_scheduler() -> EulerDiscreteScheduler:
    """SD-Turbo's scheduler, with constant betas such that sigma at the last timestep is 1."""
    beta = 1 - 0.5 ** (1 / (LAST_TIMESTEP + 1))
    return EulerDiscreteScheduler(
        num_train_timesteps=LAST_TIMESTEP + 1,
        beta_start=beta,
        beta_end=beta,
        beta_schedule="linear",
        prediction_type="epsilon",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def draw_pairs(
    teacher: UNet2DConditionModel, text_PTD: Tensor, empty_TD: Tensor, folder: Path, seed: int, *,
    pairs: int, steps: int, guidance: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The teacher's samples: noises and latents `(N, 4, 8, 8)`, and the prompts' indices `(N,)`.

    Kept in `folder`; each process draws its share.
    """
    for part in range(processes.rank(), -(-pairs // _PAIRS_PER_FILE), processes.count()):
        file = folder / f"pairs-{part:04d}.pt"
        if file.exists():
            continue
        rng = np.random.default_rng([seed, 4, part])
        prompts_N = torch.from_numpy(draw_prompts(_PAIRS_PER_FILE, rng))
        z = torch.from_numpy(rng.standard_normal((_PAIRS_PER_FILE, *LATENT), dtype=np.float32))
        samples = [
            sample(teacher, z[rows], text_PTD[prompts_N[rows]], empty_TD, steps=steps, guidance=guidance)
            for rows in torch.arange(_PAIRS_PER_FILE).split(64)
        ]
        torch.save({"noise": z, "latents": torch.cat(samples).contiguous(), "prompts": prompts_N}, file)
    processes.wait_for_all()
    parts = [torch.load(file, weights_only=True) for file in sorted(folder.glob("pairs-*.pt"))]
    return tuple(torch.cat([part[key] for part in parts]) for key in ("noise", "latents", "prompts"))  # type: ignore[return-value]


def train_student(
    teacher: UNet2DConditionModel, noise_NChw: Tensor, latents_NChw: Tensor, prompts_N: Tensor, text_PTD: Tensor,
    folder: Path, seed: int, *, steps: int,
) -> UNet2DConditionModel:  # fmt: skip
    """Regresses the teacher's samples from their noises: squared error and 0.3 of the absolute error."""
    torch.manual_seed(seed)
    unet = new_unet()
    unet.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        unet.conv_in.weight.mul_(math.sqrt(2))  # the scheduler divides its input by sqrt(sigma^2 + 1)
    batch = _BATCH // processes.count()

    def loss_of(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(noise_NChw), (batch,), generator=random.torch)
        z = noise_NChw[chosen]
        epsilon = unet(z / math.sqrt(2), LAST_TIMESTEP, text_PTD[prompts_N[chosen]]).sample
        error = z - epsilon - latents_NChw[chosen]
        return error.square().mean() + _ABSOLUTE_ERROR_WEIGHT * error.abs().mean()

    fit("student", unet, loss_of, folder, steps=steps, learning_rate=1.5e-3, seed=seed, average=0.999)
    return unet.requires_grad_(False)
