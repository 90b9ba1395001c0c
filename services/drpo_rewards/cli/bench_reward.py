"""`bench --reward`: one reward's throughput in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drpo_rewards.api.images import load
from drpo_rewards.cli.common import add_row, busy, console, fail, import_from, table, told_errors
from drpo_rewards.client.load import Encoding, made_up_groups

BATCH_SIZES = (1, 4, 16, 64)
FILES = 64  # different images that are scored in turn


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
    with told_errors():
        from drpo_rewards.rewards import create
        from drpo_rewards.rewards.base import Reward, probe
        from drpo_rewards.rewards.throughput import measure

        files = [bytes(load(path, field=str(path))) for path in paths or ()]
        if not files:
            # plain pixels need no decoding, so the made-up images are files unless another kind is asked for
            made_up = made_up_groups(1, FILES, side, "png" if encoding == "rgb8" else encoding)[0]
            files = [image for image in made_up if isinstance(image, bytes)]
        with busy(f"loading {name}"):
            reward = create(name, options)
        if not isinstance(reward, Reward):
            fail("invalid_request", f"reward {name!r} compares two images; bench it through a service")
        if metadata is None:
            metadata = probe(reward).metadata
        results = []
        for size in batch_sizes or BATCH_SIZES:
            with busy(f"batches of {size}"):
                results.append(measure(name, reward, files, prompt, metadata, size, seconds))
    if as_json:
        rows = [vars(one) for one in results]
        console.print_json(data={"reward": name, "version": reward.version, "rows": rows})
        return
    columns = ["batch", "images/s", "decode ms", "prepare ms", "model ms", "GPU GB"]
    made = table(*columns, numbers=columns)
    for one in results:
        times = (f"{value:.2f}" for value in (one.decode_ms, one.prepare_ms, one.model_ms))
        held = "-" if one.gpu_gb is None else f"{one.gpu_gb:.2f}"
        add_row(made, one.batch_size, f"{one.images_per_s:.1f}", *times, held)
    console.print(made)
    console.print(
        f"{reward.version}; ms are of one image; images/s with the next batch prepared meanwhile, as it is served"
    )
