"""The sum of the gradients of all workers, which begins while the backward pass of a worker's last group still runs.

Gradients travel in buckets. A bucket is sent when its last gradient is complete and the bucket before it was sent, so
that all workers send the same buckets in the same order, also one whose last group failed and that has no such pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from drpo.training import collective

BUCKET_BYTES = 25 * 2**20


class Sent(NamedTuple):
    """A bucket on its way: its parameters, their gradients in float32 one after another, and what to wait for."""

    parameters: list[Tensor]
    flat: Tensor
    work: Any


class GradientSum:
    """Replaces each `.grad` by its sum over the workers; a missing one counts as 0. Every worker must do the same.

    Args:
        parameters: the same on every worker.
        bucket_bytes: size from which a bucket is full.

    Attributes:
        sent: the buckets of this step that are on their way.
    """

    def __init__(self, parameters: Sequence[Tensor], bucket_bytes: int = BUCKET_BYTES) -> None:
        self.parameters = list(parameters)
        self.bucket_bytes = bucket_bytes
        self._buckets = self._fill_buckets(range(len(self.parameters)))
        self._completed: list[int] = []  # in the order in which the first backward pass completed them
        self._order_is_known = False
        self._waiting: list[set[int]] = []  # of each bucket, the gradients that are not yet complete
        self.sent: list[Sent] = []

    @contextmanager
    def begun_early(self) -> Iterator[None]:
        """The block is the backward pass that completes this worker's gradients; the first one only shows their order.

        Raises:
            KeyError: it completes one of them twice.
        """
        if collective.world_size() == 1:
            yield
            return
        self._completed, self._waiting = [], [set(bucket) for bucket in self._buckets]
        hooks = [
            one.register_post_accumulate_grad_hook(partial(self._complete, number))
            for number, one in enumerate(self.parameters)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _complete(self, number: int, _: Tensor) -> None:
        """Notes that a gradient is complete, and sends the buckets that may go."""
        self._completed.append(number)
        for waiting in self._waiting:
            if number in waiting:
                waiting.remove(number)
                break
        else:
            raise KeyError(f"gradient {number} was completed twice")
        while self._order_is_known and len(self.sent) < len(self._buckets) and not self._waiting[len(self.sent)]:
            self._send()

    def _send(self) -> None:
        """Sends the next bucket, in float32."""
        parameters = [self.parameters[number] for number in self._buckets[len(self.sent)]]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
        flat = flat.float()
        for parameter in parameters:
            parameter.grad = None  # frees it
        work = dist.all_reduce(flat, async_op=True) if collective.world_size() > 1 else None
        self.sent.append(Sent(parameters, flat, work))

    def send_rest(self) -> None:
        """Sends what no backward pass has sent. Nothing else may be sent between this and `begun_early`."""
        while len(self.sent) < len(self._buckets):
            self._send()

    def finish(self, scale: float) -> None:
        """Waits for the sums, multiplies them by a factor, and makes them the gradients."""
        self.send_rest()
        for parameters, flat, work in self.sent:
            if work is not None:
                work.wait()
            flat *= scale
            for one, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                one.grad = gradient.view_as(one).to(one.dtype)
        self.sent = []
        if not self._order_is_known:
            self._learn_order()

    def _learn_order(self) -> None:
        """Fills the buckets in the order of the first pass of the first worker that had one, for the next steps."""
        completed = next(filter(None, collective.gather(self._completed)), None)
        if completed is not None:
            others = set(range(len(self.parameters))).difference(completed)
            self._buckets = self._fill_buckets([*completed, *sorted(others)])
            self._order_is_known = True

    def _fill_buckets(self, order: Sequence[int]) -> list[list[int]]:
        """The numbers of the parameters in this order, divided into buckets."""
        buckets: list[list[int]] = []
        size = self.bucket_bytes
        for number in order:
            if size >= self.bucket_bytes:
                buckets.append([])
                size = 0
            buckets[-1].append(number)
            size += 4 * self.parameters[number].numel()
        return buckets
