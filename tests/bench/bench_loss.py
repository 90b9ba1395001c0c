"""Compare the loss of a group with a plain form in float32, as the authors' trainer computes it, at SD-Turbo's sizes.

Launch: python tests/bench/bench_loss.py [--candidates 24] [--pairs 8] [--width 2048] [--rounds 7]

Six keys of 1, 16 and 4 tokens, as of `latent_mae_3`, with `variant: released`. Both forms take the same features and
alternate. The script prints the seconds of each, and

    ratio      this project's loss with its gradient / the plain form, which should be at most 0.8
    error      the largest error of the gradient of each form, relative to its root mean square, against the plain form
               in float64: this project's should not be larger than the plain form's
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hardware import describe_hardware
from torch import Tensor

from drpo.method.objectives.base import Group
from drpo.method.objectives.drpo import DrPOObjective, DrPOSettings

TOKENS = {"mean": 1, "std": 1, "mean_2": 16, "std_2": 16, "mean_4": 4, "std_4": 4}


def plain_field(queries_QD: Tensor, positives_PD: Tensor, negatives_ND: Tensor, masks: int, radii, weight: float):
    """The released field for one set: every distance from float32 inner products, every support written out."""
    queries = len(queries_QD)
    supports_SD = torch.cat([queries_QD, negatives_ND, positives_PD])
    weights_S = torch.cat([queries_QD.new_ones(queries), queries_QD.new_full((len(supports_SD) - queries,), weight)])
    squared_QS = queries_QD.square().sum(1)[:, None] + supports_SD.square().sum(1) - 2 * queries_QD @ supports_SD.T
    distances_QS = squared_QS.clamp_min(1e-8).sqrt()
    mean = (weights_S * distances_QS).mean() / weights_S.mean()
    scale = (mean / queries_QD.shape[1] ** 0.5).clamp_min(1e-3)
    mask_QS = torch.zeros_like(distances_QS)
    for number in range(masks):
        mask_QS.diagonal(number * queries).fill_(100.0)
    field_QD = torch.zeros_like(queries_QD)
    split = queries + len(negatives_ND)
    for radius in radii:
        logits_QS = -(distances_QS / mean + mask_QS) / radius
        affinity_QS = (logits_QS.softmax(1) * logits_QS.softmax(0)).clamp_min(1e-6).sqrt() * weights_S
        negative_QN, positive_QP = affinity_QS[:, :split], affinity_QS[:, split:]
        coefficients_QS = torch.cat(
            [-positive_QP.sum(1, keepdim=True) * negative_QN, negative_QN.sum(1, keepdim=True) * positive_QP], dim=1
        )
        moved_QD = coefficients_QS @ (supports_SD / scale)
        moved_QD = moved_QD - coefficients_QS.sum(1, keepdim=True) * (queries_QD / scale)
        field_QD = field_QD + moved_QD / moved_QD.square().mean().clamp_min(1e-8).sqrt()
    return field_QD, scale


def plain_loss(group: Group, settings: DrPOSettings) -> Tensor:
    """The released loss, key by key."""
    total = torch.zeros(())
    for key, tokens_KTD in group.features.items():
        queries_QD, detached_KTD = tokens_KTD.flatten(0, 1), tokens_KTD.detach()
        winners_PD, losers_ND = (detached_KTD[rows].flatten(0, 1) for rows in group.pairs_M2.T)
        detached_QD, reference_QD = detached_KTD.flatten(0, 1), group.reference_features[key].flatten(0, 1)
        with torch.no_grad():
            options = (settings.radii, settings.support_weight)
            preference = plain_field(detached_QD, winners_PD, losers_ND, 1, *options)
            to_reference = plain_field(detached_QD, reference_QD, detached_QD, 2, *options)
        for weight, (field_QD, scale) in ((1.0, preference), (settings.reference_weight, to_reference)):
            normalized_QD = queries_QD / scale
            total = total + weight * F.mse_loss(normalized_QD, (normalized_QD + field_QD).detach())
    return total


def make_group(candidates: int, pairs: int, width: int, dtype: torch.dtype) -> Group:
    """Features like those of a network: a common offset, a spread of the candidates, and references nearby."""
    random = torch.Generator().manual_seed(0)
    features, reference = {}, {}
    for key, tokens in TOKENS.items():
        common_1TD = torch.randn(1, tokens, width, generator=random)
        own_KTD = common_1TD + 0.3 * torch.randn(candidates, tokens, width, generator=random)
        features[key] = own_KTD.to(dtype).requires_grad_()
        reference[key] = (own_KTD + 0.1 * torch.randn(own_KTD.shape, generator=random)).to(dtype)
    order_K = torch.randperm(candidates, generator=random)
    pairs_M2 = torch.stack([order_K[:pairs], order_K.flip(0)[:pairs]], dim=1)
    return Group(features=features, reference_features=reference, pairs_M2=pairs_M2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--width", type=int, default=2048, help="features of a token")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    objective = DrPOObjective(DrPOSettings(variant="released"))
    group = make_group(arguments.candidates, arguments.pairs, arguments.width, torch.float32)
    exact_group = make_group(arguments.candidates, arguments.pairs, arguments.width, torch.float64)
    forms: dict[str, Callable[[], Tensor]] = {
        "this project": lambda: objective.loss(group).loss,
        "plain float32": lambda: plain_loss(group, objective.settings),
    }

    def gradients(loss: Tensor, of: Group) -> Tensor:
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(of.features.values()))])

    exact = gradients(plain_loss(exact_group, objective.settings), exact_group)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for passed in range(arguments.rounds + 1):
        for name, form in forms.items():
            started = time.perf_counter()
            found = gradients(form(), group)
            if passed:  # the first pass warms up
                seconds[name].append(time.perf_counter() - started)
                continue
            error = (found.double() - exact).abs().max() / exact.square().mean().sqrt()
            print(f"{name}: error {error:.1e}")
    print(describe_hardware())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.3f} s")
    print(f"ratio {medians['this project'] / medians['plain float32']:.2f}")


if __name__ == "__main__":
    main()
