"""The averaged adapter: diffusers' exponential moving average of the trained weights.

average = AveragedWeights(adapter.parameters(), EmaConfig(decay=0.99))
average.update()                 # after every optimizer step
with average.applied():          # the adapter has the averaged weights
    adapter.save(folder)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.training_utils import EMAModel
from torch import nn

from drpo.config import EmaConfig


class AveragedWeights:
    """The average of some parameters.

    Args:
        parameters: the trained weights.
        settings: the section `training.ema`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: EmaConfig) -> None:
        self._parameters = list(parameters)
        self._average = EMAModel(self._parameters, decay=settings.decay, update_after_step=settings.from_step)

    def update(self) -> None:
        """Takes the present weights into the average."""
        self._average.step(self._parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the parameters have the averaged values; afterwards their own again, bit for bit."""
        self._average.store(self._parameters)
        try:
            self._average.copy_to(self._parameters)
            yield
        finally:
            self._average.restore(self._parameters)

    def state_dict(self) -> dict[str, Any]:
        """The average, and how often it was updated."""
        state = self._average.state_dict()
        return {"step": state["optimization_step"], "weights": [one.detach().cpu() for one in state["shadow_params"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._average.optimization_step = state["step"]
        for average, saved in zip(self._average.shadow_params, state["weights"], strict=True):
            average.copy_(saved)
