"""`upgrade`: replace one reward of a running service."""

from __future__ import annotations

from typing import Annotated

import typer

from drpo_rewards.cli.output import busy, console, errors


def upgrade(
    config: Annotated[str, typer.Argument(help="The service's config, with the new settings of the reward.")],
    reward: Annotated[str, typer.Argument(help="A reward in it that has `own_app: true`.")],
    address: Annotated[
        str, typer.Option(help="The address of Ray, which `serve` prints; `auto` finds a Ray on this machine.")
    ],
) -> None:
    """Replace one reward of a running service. The gateway and all other rewards keep running."""
    from drpo_rewards.cluster.local_ray import join_ray, stop_ray

    join_ray(address)
    from drpo_rewards.serving import upgrade as replace

    try:
        with busy(f"restarting {reward}"):
            replace(config, reward, on_up=lambda name: errors.print(f"{name} is up", highlight=False))
    finally:
        stop_ray()  # only disconnects this process; the Ray that it joined keeps running
    console.print(f"upgraded  {reward}")
