"""Generate the pictures of an evaluation on several Ray workers. All of them write into one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drpo.errors import EvaluationError
from drpo.evaluation.table.painters import Model
from drpo.evaluation.table.prompt_set import PromptSet


def draw_on_workers(
    folder: Path,
    model: Model,
    sets: Sequence[PromptSet],
    *,
    workers: int,
    use_gpu: bool,
    threads: int,
    batch_size: int,
) -> None:
    """Generates what is missing of a row.

    Args:
        folder: see `drpo.evaluation.table.pictures.open_row`; on machines that share no files, pictures would be lost.
        model: the row.
        sets: the sets of prompts.
        workers: how many, each with a share of the pictures.
        use_gpu: whether each has a GPU.
        threads: CPU threads of each.
        batch_size: pictures at once.

    Raises:
        EvaluationError: a worker could not go on. What is generated stays.
    """
    import ray

    remote: Any = ray.remote(num_cpus=threads, num_gpus=int(use_gpu), max_retries=2)(_draw_share)
    waiting = [
        remote.remote(folder, model, sets, worker, workers, "cuda" if use_gpu else "cpu", threads, batch_size)
        for worker in range(workers)
    ]
    try:
        ray.get(waiting)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise EvaluationError(f"a worker could not generate pictures: {cause}") from error


def _draw_share(
    folder: Path,
    model: Model,
    sets: Sequence[PromptSet],
    worker: int,
    workers: int,
    device: str,
    threads: int,
    batch_size: int,
) -> None:
    import torch

    from drpo.evaluation.table.painters import load_painter
    from drpo.evaluation.table.pictures import draw_missing

    torch.set_num_threads(threads)
    draw_missing(
        folder,
        model,
        sets,
        lambda model: load_painter(model, device),
        batch_size=batch_size,
        worker=worker,
        workers=workers,
    )
