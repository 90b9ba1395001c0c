"""One stage of the pretraining: a resumable, seeded training loop with warm-up, cosine decay and weight averaging.

All random numbers of a step follow from `(seed, stage, step, process)`, so a resumed stage draws the same numbers as
one that was never interrupted.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from drpo.shapes.pretrain import processes


class StepRandom:
    """The random generators of one step of one stage: `.numpy` and `.torch`."""

    def __init__(self, seed: int, stage: str, step: int):
        key = [seed, zlib.crc32(stage.encode()), step, processes.rank()]
        self.numpy = np.random.default_rng(key)
        self.torch = torch.Generator().manual_seed(int(self.numpy.integers(2**63)))


def fit(
    name: str,
    model: nn.Module,
    compute_loss: Callable[[StepRandom], Tensor],
    folder: Path,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    weight_decay: float = 0.01,
    warmup_steps: int = 100,
    ema_decay: float | None = None,
    save_every: int = 200,
) -> None:
    """Trains `model` in place for `steps` steps of AdamW.

    Args:
        name: the name of the stage; its random numbers depend on it.
        model: the model; only parameters that require a gradient are trained.
        compute_loss: computes the scalar loss of one step with the random generators of that step.
        folder: where the state is saved as `NAME.pt`; if the file exists, training resumes from it.
        ema_decay: decay of the exponential moving average of the weights, with which the model ends. The first steps
            use a smaller decay. None: the model ends with the last weights.
    """
    state_file = folder / f"{name}.pt"
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay)
    averaged = [p.detach().clone() for p in parameters]
    start = 0
    if state_file.exists():
        state = torch.load(state_file, map_location=parameters[0].device, weights_only=True)
        start = state["step"]
        model.load_state_dict(state["model"])
        averaged = state["averaged"]
        if start < steps:
            optimizer.load_state_dict(state["optimizer"])

    def save(step: int) -> None:
        state = {"step": step, "model": model.state_dict(), "averaged": averaged, "optimizer": optimizer.state_dict()}
        torch.save(state, state_file.with_suffix(".tmp"))
        os.replace(state_file.with_suffix(".tmp"), state_file)

    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    )  # fmt: skip
    columns += (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("loss {task.fields[loss]}"))
    with Progress(*columns, disable=processes.rank() != 0) as bar:
        task = bar.add_task(name, total=steps, completed=start, loss="-")
        model.train()
        for step in range(start, steps):
            rate = learning_rate * min(1.0, (step + 1) / warmup_steps) * (0.02 + 0.98 * _cosine(step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = compute_loss(StepRandom(seed, name, step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            processes.average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if ema_decay is not None:
                decay = min(ema_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(averaged, [p.detach() for p in parameters], 1 - decay)
            if step % 10 == 0:
                bar.update(task, completed=step + 1, loss=f"{loss.item():.4f}")
            if processes.rank() == 0 and ((step + 1) % save_every == 0 or step + 1 == steps):
                save(step + 1)
        bar.update(task, completed=steps)
    processes.wait_for_all()
    if ema_decay is not None:
        with torch.no_grad():
            for parameter, value in zip(parameters, averaged, strict=True):
                parameter.copy_(value)
    model.eval()


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
