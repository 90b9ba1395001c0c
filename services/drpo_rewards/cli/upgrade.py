"""`upgrade`: one reward of a running service deployed anew."""

from __future__ import annotations

from typing import Annotated

import typer

from drpo_rewards.cli.common import busy, console, errors, told_errors


def upgrade(
    config: Annotated[str, typer.Argument(help="The service's config as it shall be now.")],
    reward: Annotated[str, typer.Argument(help="A reward in it with `own_app: true`.")],
    address: Annotated[str, typer.Option(help="Where Ray is; `serve` prints it. `auto` finds one on this machine.")],
) -> None:
    """Replace one reward of a running service; the gateway and all other rewards go on."""
    from drpo_rewards.cluster.local_ray import join_ray, stop_ray

    with told_errors():
        join_ray(address)
        from drpo_rewards.serving import upgrade as replace

        try:
            with busy(f"starting {reward} anew"):
                replace(config, reward, on_up=lambda name: errors.print(f"{name} is up", highlight=False))
        finally:
            stop_ray()  # this process leaves; what it joined goes on
    console.print(f"upgraded  {reward}")
