"""`drpo profile`: what a training step costs, phase by phase."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpo.cli.common import check_before_start, console, ray_and_rewards, say
from drpo.config import Config, preset_names, read_preset, set_value
from drpo.errors import ConfigError

if TYPE_CHECKING:
    from drpo.profiling import Profile


def profile(
    context: typer.Context,
    preset: Annotated[str, typer.Argument(help="The name of a preset, or a YAML file; settings may follow.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 3,
    rewards: Annotated[
        bool, typer.Option(help="Rank with the preset's rewards; without them, by brightness in no time.")
    ] = True,
    compare: Annotated[
        str | None,
        typer.Option(help="A second objective: its name, or a preset that has it with its settings."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write one more step to this file, for chrome://tracing or ui.perfetto.dev.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
) -> None:
    """Run a few steps of a preset in this process, and show what each phase costs. Nothing is kept of them.

    One worker's share of a step is run, with the names of figure 5 of the paper.
    """
    from drpo.checks.outputs import find_results_obstacle

    overrides = context.args
    objective = None if compare is None else _find_objective(compare)
    traces = [_number(trace, number) for number in range(1 if compare is None else 2)]
    writes = [("--trace", file, "traceEvents") for file in traces] + [("--out", out, "matmul_flops_per_s")]
    for option, file, key in writes:
        if file is None:
            continue
        if obstacle := find_results_obstacle(file, key):
            raise ConfigError(f"{option}: {obstacle}; give another file")
        if not file.resolve().parent.is_dir():
            raise ConfigError(f"{file}: there is no folder {file.resolve().parent}; make it, or choose another place")
    values = read_preset(preset)
    config = _prepare(values, overrides, rewards=rewards)
    configs = {config.objective.name: config}
    if objective is not None:
        other = _prepare({**read_preset(preset), "objective": objective}, overrides, rewards=rewards)
        name = other.objective.name
        configs[name if name not in configs else f"{name} of {compare}"] = other

    import torch

    from drpo.profiling import measure_matmul_peak
    from drpo.training.build import ranks_candidates

    device = torch.device(config.model.device)
    peak = measure_matmul_peak(device, getattr(torch, config.model.dtype), threads=config.training.threads_per_worker)
    profiles: dict[str, Profile] = {}
    asks = rewards and any(map(ranks_candidates, configs.values()))
    with ExitStack() as stack:
        served = stack.enter_context(ray_and_rewards(config)) if asks else config
        for number, (name, one) in enumerate(configs.items()):
            with console.status(f"measuring {name}"):
                one = one.model_copy(update={"rewards": served.rewards})
                profiles[name] = _measure(one, steps, rewards, _number(trace, number))
    say(f"{_describe(config, device)}; matrix products reach {peak / 1e12:.3g} TFLOP/s here")
    for name, measured in profiles.items():
        _print_table(name, measured, peak)
    if len(profiles) > 1:
        first, second = profiles
        ratio = profiles[second].step_s / profiles[first].step_s
        say(f"a step of {second} takes {ratio:.2f} times as long as one of {first}")
    if out is not None:
        numbers = {"matmul_flops_per_s": peak, "profiles": {name: asdict(one) for name, one in profiles.items()}}
        out.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def _find_objective(name: str) -> dict[str, Any]:
    """The section `objective` of a preset, or an objective with its defaults."""
    from drpo.method.objectives import OBJECTIVES

    if name in OBJECTIVES:
        return {"name": name}
    if name in preset_names() or Path(name).is_file():
        return dict(read_preset(name).get("objective") or {"name": "drpo"})
    raise ConfigError(
        f"--compare: there is no objective and no preset {name!r}; the objectives are {', '.join(OBJECTIVES)}"
    )


def _prepare(values: dict[str, Any], overrides: list[str], *, rewards: bool) -> Config:
    """The settings of one worker's share, checked; `model.device` says cpu or cuda."""
    import torch

    set_value(values, "evaluation.enabled", False)
    config = check_before_start(values, overrides, rewards=rewards)
    training = config.training
    share = -(-training.groups_per_step // training.num_workers)
    device = config.model.device
    if device == "auto":
        device = "cuda" if training.use_gpu and torch.cuda.is_available() else "cpu"
    return config.model_copy(
        update={
            "training": training.model_copy(update={"num_workers": 1, "groups_per_step": share}),
            "model": config.model.model_copy(update={"device": device}),
        }
    )


def _measure(config: Config, steps: int, rewards: bool, trace: Path | None) -> Profile:
    from drpo.profiling import profile as run_profile
    from drpo.profiling.no_rewards import BrightnessRanker
    from drpo.training.ranking_client import make_ranker

    return run_profile(config, steps, (lambda: make_ranker(config)) if rewards else BrightnessRanker, trace)


def _number(trace: Path | None, number: int) -> Path | None:
    """The trace's file for each objective: FILE, then FILE with a 2 before its ending."""
    return trace if trace is None or number == 0 else trace.with_stem(f"{trace.stem}-{number + 1}")


def _describe(config: Config, device: Any) -> str:
    import torch

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    groups = f"{config.training.groups_per_step} groups of {config.training.candidates} candidates"
    return f"{where}, {config.model.dtype}; a step has {groups}"


def _print_table(name: str, measured: Profile, peak: float) -> None:
    """One row for each phase, and one for the whole step."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"one step of {name}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("phase", "seconds", "share", "GFLOP", "of peak", "GB moved", "peak GB"):
        table.add_column(column, justify="left" if column == "phase" else "right", no_wrap=True)
    total = sum(cost.seconds for cost in measured.phases.values())
    rows = {phase: asdict(cost) for phase, cost in measured.phases.items()}
    rows["whole step"] = {
        "seconds": total,
        "flops": sum(cost.flops for cost in measured.phases.values()),
        "moved": sum(cost.moved for cost in measured.phases.values()),
        "peak": max(cost.peak for cost in measured.phases.values()),
    }
    for phase, cost in rows.items():
        table.add_row(
            phase,
            f"{cost['seconds']:.4f}",
            f"{cost['seconds'] / total:.1%}",
            f"{cost['flops'] / 1e9:.1f}",
            f"{cost['flops'] / cost['seconds'] / peak:.1%}",
            f"{cost['moved'] / 1e9:.3f}",
            f"{cost['peak'] / 1e9:.3f}",
        )
    console.print(table)
    for choice in measured.choices:
        say(choice)
    say(f"undisturbed, a step takes {measured.step_s:.3f} s: {measured.images / measured.step_s:.1f} images/s")
    if measured.rank_s:
        waits = measured.phases["reward_score"].seconds if "reward_score" in measured.phases else 0.0
        say(f"a group is ranked in {measured.rank_s:.3f} s in the background; the step waits {waits:.3f} s for it")
