"""`score` and `compare`: one reward in this process, without Ray or a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from drpo_rewards.cli.common import (
    AsJson,
    Metadata,
    Prompt,
    add_row,
    busy,
    console,
    errors,
    import_from,
    read_metadata,
    reasons,
    table,
    told_errors,
)
from drpo_rewards.errors import InvalidRequestError, RewardError, RewardsError
from drpo_rewards.images import decode, load

if TYPE_CHECKING:
    from drpo_rewards.rewards.base import Reward, Score

RewardName = Annotated[str, typer.Argument(help="A name of the catalogue, or package.module:Class of your own.")]
Model = Annotated[str | None, typer.Option(help="Its checkpoint: a folder, or an id of the model hub.")]
Option = Annotated[
    list[str] | None, typer.Option(help="KEY=VALUE of the reward's options; may be given several times.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that one call of the reward scores at most.")]


def score(
    reward: RewardName,
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.")],
    prompt: Prompt,
    model: Model = None,
    metadata: Metadata = None,
    option: Option = None,
    batch_size: BatchSize = 16,
    as_json: AsJson = False,
) -> None:
    """Score images with one reward in this process: no server, no Ray. Prints raw scores in the order given."""
    with told_errors():
        scorer, scores = _score(reward, model, option, images, prompt, read_metadata(metadata), batch_size)
    if as_json:
        entries = [_entry(image, one) for image, one in zip(images, scores, strict=True)]
        console.print_json(data=_head(reward, scorer, prompt) | {"scores": entries})
        return
    made = table("image", reward, "says", numbers=[reward])
    for image, one in zip(images, scores, strict=True):
        add_row(made, image, f"{one.value:.6g}", reasons([one.details]))
    console.print(made)


def compare(
    reward: RewardName,
    first: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    prompt: Prompt,
    model: Model = None,
    metadata: Metadata = None,
    option: Option = None,
    as_json: AsJson = False,
) -> None:
    """Which of two images one reward prefers, in this process. Equal scores are a tie."""
    with told_errors():
        scorer, (one, two) = _score(reward, model, option, [first, second], prompt, read_metadata(metadata), 2)
    ahead = (one.value - two.value) * (1 if getattr(scorer, "higher_is_better", True) else -1)
    winner = "tie" if ahead == 0 else "first" if ahead > 0 else "second"
    if as_json:
        entries = [_entry(first, one), _entry(second, two)]
        console.print_json(data=_head(reward, scorer, prompt) | {"winner": winner, "scores": entries})
        return
    made = table("", "image", reward, "says", numbers=[reward])
    for place, image, score in (("first", first, one), ("second", second, two)):
        add_row(made, "better" if place == winner else "", image, f"{score.value:.6g}", reasons([score.details]))
    console.print(made)
    if winner == "tie":
        console.print("a tie: the scores are equal")


def _score(
    name: str,
    model: str | None,
    option: Sequence[str] | None,
    images: Sequence[Path],
    prompt: str,
    metadata: dict[str, Any] | None,
    batch_size: int,
) -> tuple[Reward, list[Score]]:
    """The reward and its score of each image. Raises a RewardsError that names the image or the reward."""
    from drpo_rewards.rewards import create
    from drpo_rewards.rewards.base import Reward, ScoreItem, checked_scores

    pictures = [decode(bytes(load(path, field=str(path))), field=str(path)) for path in images]
    items = [ScoreItem(picture, prompt, metadata) for picture in pictures]
    import_from(Path.cwd())
    with busy(f"loading {name}"):
        reward = create(name, read_options(option) | ({"model": model} if model else {}))
    if not isinstance(reward, Reward):
        raise InvalidRequestError(
            f"reward {name!r} compares two images and has no scores; serve it, and ask POST /v1/compare"
        )
    scores: list[Score] = []
    columns = TextColumn("scoring"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("", total=len(items))
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            try:
                scores += checked_scores(name, reward, batch)
            except RewardsError:
                raise
            except Exception as error:  # whatever a reward raises, as the service would say it
                raise RewardError(f"reward {name!r} failed: {type(error).__name__}: {error}", reward=name) from error
            progress.advance(bar, len(batch))
    return reward, scores


def read_options(given: Sequence[str] | None) -> dict[str, Any]:
    """KEY=VALUE, the values read as YAML: 3 is a number, true a truth value, [1, 2] a list."""
    options = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r}: write KEY=VALUE", param_hint="--option")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{text!r}: {error}", param_hint="--option") from None
    return options


def _head(name: str, reward: Reward, prompt: str) -> dict[str, Any]:
    better = getattr(reward, "higher_is_better", True)
    return {"reward": name, "version": reward.version, "higher_is_better": better, "prompt": prompt}


def _entry(image: Path, score: Score) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": str(image), "score": float(score.value)}
    return entry | ({"details": score.details} if score.details else {})
