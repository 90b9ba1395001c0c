"""drpo-rewards: serve rewards behind the ranking API, ask a running service, or score images without one."""

from __future__ import annotations

import typer

from drpo_rewards.cli.bench import bench
from drpo_rewards.cli.compare import compare
from drpo_rewards.cli.doctor import doctor
from drpo_rewards.cli.download import download
from drpo_rewards.cli.group import Commands, take_options
from drpo_rewards.cli.models import models
from drpo_rewards.cli.rank import rank
from drpo_rewards.cli.score import score
from drpo_rewards.cli.serve import serve
from drpo_rewards.cli.upgrade import upgrade

app = typer.Typer(cls=Commands, help=__doc__, no_args_is_help=True)
app.callback(help=__doc__)(take_options)
for command in (serve, rank, models, score, compare, bench, download, doctor, upgrade):
    app.command()(command)
