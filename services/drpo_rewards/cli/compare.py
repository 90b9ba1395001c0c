"""`compare`: compare two images with one reward in this process, without Ray or a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from drpo_rewards.cli.local_reward import create_reward, reward_entry, score_entry, stdout_for_results
from drpo_rewards.cli.options import (
    JsonOption,
    MetadataOption,
    ModelOption,
    PromptOption,
    RewardArgument,
    RewardOptions,
    read_metadata,
)
from drpo_rewards.cli.output import add_row, console, join_reasons, table
from drpo_rewards.rewards.base import Comparison, Reward, Score
from drpo_rewards.rewards.in_process import better_of, compare_items, read_items, score_items


def compare(
    reward: RewardArgument,
    first: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    prompt: PromptOption,
    model: ModelOption = None,
    metadata: MetadataOption = None,
    option: RewardOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which of two images a reward prefers, in this process. Equal scores are a tie."""
    images = first, second
    items = read_items(images, prompt, read_metadata(metadata))
    with stdout_for_results():
        scorer = create_reward(reward, model, option)
        entry = reward_entry(reward, scorer, prompt)
        if isinstance(scorer, Reward):
            one, two = score_items(reward, scorer, items, batch_size=2)
        else:
            (comparison,) = compare_items(reward, scorer, items, [(0, 1)])
    if isinstance(scorer, Reward):
        _print_scores(entry, images, (one, two), better_of(scorer, one, two), as_json)
    else:
        _print_comparison(entry, images, comparison, as_json)


def _print_scores(
    entry: dict[str, Any], images: tuple[Path, Path], scores: tuple[Score, Score], winner: str, as_json: bool
) -> None:
    if as_json:
        entries = [score_entry(image, score) for image, score in zip(images, scores, strict=True)]
        console.print_json(data=entry | {"winner": winner, "scores": entries})
        return
    compared = table("", "image", entry["reward"], "reasons", numbers=[entry["reward"]])
    for position, image, score in zip(("first", "second"), images, scores, strict=True):
        mark = "better" if position == winner else ""
        add_row(compared, mark, image, f"{score.value:.6g}", join_reasons([score.details]))
    console.print(compared)
    if winner == "tie":
        console.print("a tie: the scores are equal")


def _print_comparison(entry: dict[str, Any], images: tuple[Path, Path], comparison: Comparison, as_json: bool) -> None:
    if as_json:
        fields = ("winner", "confidence", "flipped", "unparsed", "details")
        console.print_json(data=entry | {name: getattr(comparison, name) for name in fields})
        return
    confidence = "" if comparison.confidence is None else f" (confidence {comparison.confidence:.2f})"
    if comparison.winner == "tie":
        console.print(f"a tie{confidence}")
    else:
        console.print(escape(f"better: {images[comparison.winner == 'second']}{confidence}"))
    if comparison.flipped:
        console.print("the answer changed with the order of the two images, so it counts as a tie")
    if comparison.unparsed:
        console.print(f"{comparison.unparsed} of {comparison.asked} answers could not be read")
    if reasons := join_reasons([comparison.details]):
        console.print(escape(reasons))
