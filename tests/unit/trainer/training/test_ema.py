"""`training.ema`: the averaged weights against the formula, and a run that goes on from a checkpoint bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from drpo.training.checkpoint import find_newest_checkpoint, read_checkpoint, write_checkpoint

EMA = {"decay": 0.6, "from_step": 2}


def averaged(trainer) -> list[Tensor]:
    with trainer.average.applied():
        return [parameter.detach().clone() for parameter in trainer.parameters]


def test_the_average_is_that_of_the_formula(make_trainer, records) -> None:
    trainer = make_trainer(ema=EMA)
    expected = [parameter.detach().clone() for parameter in trainer.parameters]
    for step in range(5):
        trainer.run_step(records)
        past = step - EMA["from_step"]  # the first steps keep less: (1 + n) / (10 + n) of the average
        kept = min(EMA["decay"], (1 + past) / (10 + past)) if past > 0 else 0.0
        expected = [
            kept * one + (1 - kept) * parameter.detach()
            for one, parameter in zip(expected, trainer.parameters, strict=True)
        ]
        for one, other in zip(averaged(trainer), expected, strict=True):
            torch.testing.assert_close(one, other)
    assert any(not torch.equal(one, other) for one, other in zip(expected, trainer.parameters, strict=True))


@pytest.mark.parametrize("steps_before", [1, 3], ids=["before from_step", "after from_step"])
def test_the_average_goes_on_from_a_checkpoint_bit_for_bit(
    make_trainer, records, tmp_path: Path, steps_before: int
) -> None:
    whole, resumed = make_trainer(ema=EMA), make_trainer(ema=EMA)
    for _ in range(steps_before):
        whole.run_step(records)
    write_checkpoint(tmp_path, whole.state_dict(), whole.generator.adapter, keep=1)
    state = read_checkpoint(find_newest_checkpoint(tmp_path).path)
    resumed.load_state_dict(state)
    for _ in range(3):
        whole.run_step(records)
        resumed.run_step(records)
    assert all(torch.equal(*pair) for pair in zip(averaged(whole), averaged(resumed), strict=True))
    assert all(torch.equal(*pair) for pair in zip(whole.parameters, resumed.parameters, strict=True))
    assert any(not torch.equal(*pair) for pair in zip(averaged(whole), whole.parameters, strict=True))
