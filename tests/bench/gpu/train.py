"""A run of `drpo train`: Ray Serve ranks and Ray Train trains, with shares of the one GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from bench.gpu.checkpoints import PROMPT, generator_folder, latent_mae_folder, latent_mae_keys, pickscore_folder
from bench.gpu.measure import Bench

from drpo.training.choices import describe_choices

STEPS, GROUPS = 3, 4


def run(bench: Bench) -> None:
    """Trains three steps, and shows the seconds of each."""
    folder = bench.scratch / "train"
    folder.mkdir(exist_ok=True)
    preset = write_preset(bench, folder)
    command = [sys.executable, "-m", "drpo", "train", "--preset", str(preset)]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    total = time.perf_counter() - started
    lines = [json.loads(line) for line in (folder / "runs" / "bench" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        stages = {stage: seconds for stage, seconds in line["seconds"].items() if stage != "total"}
        bench.record.row(
            "steps",
            step=line["step"],
            **stages,
            total=line["seconds"]["total"],
            images_per_s=images_of(bench) / line["seconds"]["total"],
        )
    for choice in describe_choices(folder / "runs" / "bench"):
        bench.record.note(f"`{choice.replace(' auto:', ': auto`:', 1)}.")
    bench.record.note(
        f"{len(lines)} steps of {GROUPS} groups, ranked by PickScore, took {total:.0f} s with the start of Ray, the "
        "rewards and the worker. `rank` is the time from a request to its answer, while the next group is generated. "
        "Stages are in seconds, summed over the groups."
    )


def images_of(bench: Bench) -> int:
    """Images of a step."""
    return GROUPS * (4 if bench.small else 24)


def write_preset(bench: Bench, folder: Path) -> Path:
    """Writes the preset, the service's config and the prompts."""
    on_gpu = bench.device == "cuda"
    pickscore = {"type": "pickscore", "options": {"model": str(pickscore_folder(bench))}, "num_cpus": 0.5}
    pickscore |= {"num_gpus": 0.3 if on_gpu else 0, "batch_size": 32}
    (folder / "service.yaml").write_text(yaml.safe_dump({"rewards": {"pickscore": pickscore}}))
    prompts = [json.dumps({"prompt": f"{PROMPT}, version {number}"}) for number in range(STEPS * GROUPS)]
    (folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    candidates = images_of(bench) // GROUPS
    training: dict[str, Any] = {
        "steps": STEPS,
        "groups_per_step": GROUPS,
        "candidates": candidates,
        "pairs": candidates // 2,
        "groups_in_flight": 2,
        "memory": "auto",
        "decode_chunk": "auto",
        "use_gpu": on_gpu,
        "resources_per_worker": {"GPU": 0.6} if on_gpu else None,
    }
    preset = {
        "preset": "bench",
        "run": {"name": "bench", "folder": str(folder / "runs")},
        "model": {
            "generator": str(generator_folder(bench, "sd_turbo")),
            "dtype": str(bench.dtype).removeprefix("torch."),
        },
        "features": {"path": str(latent_mae_folder(bench)), "options": {"keys": latent_mae_keys(bench)}},
        "rewards": {"service": str(folder / "service.yaml")},
        "prompts": {"source": "jsonl", "path": str(folder / "prompts.jsonl")},
        "training": training,
        "evaluation": {"enabled": False},
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(preset))
    return path
