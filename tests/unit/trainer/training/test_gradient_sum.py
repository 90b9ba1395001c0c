"""The gradients of two real workers, sent while the backward pass runs, against a sum made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

WORKERS, STEPS = 2, 4
SCALE = 0.25
WIDTH = 32


def make_network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 1))


def losses(network: torch.nn.Module, worker: int, step: int) -> list[Tensor]:
    """The losses of a worker's groups: two, or none where all of them failed; the last step leaves a layer out."""
    if worker == 1 and step == 2:
        return []
    random = torch.Generator().manual_seed(10 * worker + step)
    used = network[2:] if step == 3 else network
    return [used(torch.randn(8, WIDTH, generator=random)).square().mean() for _ in range(2)]


def sum_on_worker(worker: int, folder: str) -> None:
    """What each process does: the steps of a worker."""
    import torch.distributed as dist

    from drpo.training import collective
    from drpo.training.gradient_sum import GradientSum

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=worker, world_size=WORKERS)
    network = make_network()
    gradient_sum = GradientSum(list(network.parameters()), bucket_bytes=4 * WIDTH * WIDTH)
    results = []
    for step in range(STEPS):
        network.zero_grad()
        groups = losses(network, worker, step)
        for loss in groups[:-1]:
            loss.backward()
        for loss in groups[-1:]:
            with gradient_sum.begun_early():
                loss.backward()
        early = len(gradient_sum.sent)
        gradient_sum.send_rest()
        trained = sum(collective.gather(len(groups)))
        gradient_sum.finish(SCALE)
        results.append((early, trained, [parameter.grad for parameter in network.parameters()]))
    torch.save(results, f"{folder}/{worker}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[int, int, list[Tensor]]]]:
    """Of each worker, for each step: the buckets sent during the pass, the groups of both, the gradients."""
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(sum_on_worker, (str(folder),), nprocs=WORKERS)
    return [torch.load(Path(folder) / f"{worker}.pt") for worker in range(WORKERS)]


@pytest.mark.parametrize("step", range(STEPS))
def test_every_worker_has_the_sum_of_all_groups(results, step: int) -> None:
    expected = []
    for worker in range(WORKERS):
        network = make_network()
        for loss in losses(network, worker, step):
            loss.backward()
        expected.append([torch.zeros_like(one) if one.grad is None else one.grad for one in network.parameters()])
    for worker in range(WORKERS):
        _, trained, gradients = results[worker][step]
        assert trained == (2 if step == 2 else 4)
        for one, first, second in zip(gradients, *expected, strict=True):
            assert torch.equal(one, (first + second) * SCALE)


def test_buckets_are_sent_during_the_pass_from_the_second_step_on(results) -> None:
    sent = [[early for early, _, _ in steps] for steps in results]
    assert [early[0] for early in sent] == [0, 0], "the first pass shows the order"
    assert sent[0][1] == sent[1][1] == sent[0][2] >= 4, "all of them"
    assert sent[1][2] == 0, "this worker had no pass"
    assert 0 < sent[0][3] == sent[1][3] < sent[0][1], "those before the first one that gets no gradient"
