"""`bench --reward`: one reward's throughput in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drpo_rewards.api.images import load
from drpo_rewards.cli.local_reward import import_from, stdout_for_results
from drpo_rewards.cli.output import add_row, busy, console, fail, table
from drpo_rewards.client.load import Encoding, draw_groups
from drpo_rewards.rewards import create
from drpo_rewards.rewards.base import Reward
from drpo_rewards.rewards.checks import probe
from drpo_rewards.rewards.throughput import Throughput, measure

BATCH_SIZES = (1, 4, 16, 64)
FILES = 64  # different images, which are scored in turn


def bench_reward(
    name: str,
    options: dict[str, Any],
    batch_sizes: Sequence[int] | None,
    seconds: float,
    side: int,
    encoding: Encoding,
    paths: Sequence[Path] | None,
    prompt: str,
    metadata: dict[str, Any] | None,
    as_json: bool,
) -> None:
    """Print a row for each batch size."""
    import_from(Path.cwd())
    files = [bytes(load(path, field=str(path))) for path in paths or ()] or _generate_files(side, encoding)
    with busy(f"loading {name}"), stdout_for_results():
        reward = create(name, options)
    if not isinstance(reward, Reward):
        fail("invalid_request", f"reward {name!r} compares two images; measure it through a service", status=2)
    if metadata is None:
        metadata = probe(reward).metadata
    results = []
    for size in batch_sizes or BATCH_SIZES:
        with busy(f"batches of {size}"), stdout_for_results():
            results.append(measure(name, reward, files, prompt, metadata, size, seconds))
    if as_json:
        rows = [vars(result) for result in results]
        console.print_json(data={"reward": name, "version": reward.version, "rows": rows})
    else:
        _print(reward.version, results)


def _generate_files(side: int, encoding: Encoding) -> list[bytes]:
    """Draw images, and encode them as PNG unless another encoding is given: plain pixels need no decoding."""
    images = draw_groups(1, FILES, side, "png" if encoding == "rgb8" else encoding)[0]
    return [image for image in images if isinstance(image, bytes)]


def _print(version: str, results: Sequence[Throughput]) -> None:
    columns = ["batch", "images/s", "decode ms", "prepare ms", "model ms", "GPU GB"]
    rows = table(*columns, numbers=columns)
    for result in results:
        times = (f"{value:.2f}" for value in (result.decode_ms, result.prepare_ms, result.model_ms))
        gpu_gb = "-" if result.gpu_gb is None else f"{result.gpu_gb:.2f}"
        add_row(rows, result.batch_size, f"{result.images_per_s:.1f}", *times, gpu_gb)
    console.print(rows)
    console.print(f"{version}; times are per image; images/s with the next batch prepared meanwhile, as in a service")
