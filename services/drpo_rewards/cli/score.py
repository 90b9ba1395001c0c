"""`score`: score images with one reward in this process, without Ray or a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from drpo_rewards.cli.local_reward import create_reward, reward_entry, score_entry, stdout_for_results
from drpo_rewards.cli.options import (
    ImagesArgument,
    JsonOption,
    MetadataOption,
    ModelOption,
    PromptOption,
    RewardArgument,
    RewardOptions,
    read_metadata,
)
from drpo_rewards.cli.output import add_row, console, join_reasons, progress_bar, table
from drpo_rewards.ranking.tournament import TournamentResult
from drpo_rewards.rewards.base import Reward, Score
from drpo_rewards.rewards.in_process import play_tournament, read_items, score_items


def score(
    reward: RewardArgument,
    images: ImagesArgument,
    prompt: PromptOption,
    model: ModelOption = None,
    metadata: MetadataOption = None,
    option: RewardOptions = None,
    batch_size: Annotated[int, typer.Option(min=1, max=65_536, help="The most images in one call of the reward.")] = 16,
    all_pairs: Annotated[
        bool, typer.Option(help="A judge compares every pair of images, instead of O(K log K) pairs.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score images with one reward in this process: no server, no Ray. Prints raw scores in the given order.

    A judge compares pairs of the images. The scores are strengths that are fitted to its comparisons.
    """
    items = read_items(images, prompt, read_metadata(metadata))
    with stdout_for_results():
        scorer = create_reward(reward, model, option)
        entry = reward_entry(reward, scorer, prompt)
        with progress_bar("scoring" if isinstance(scorer, Reward) else "comparing") as on_progress:
            if isinstance(scorer, Reward):
                found: list[Score] | TournamentResult = score_items(reward, scorer, items, batch_size, on_progress)
            else:
                found = play_tournament(reward, scorer, items, batch_size, all_pairs, on_progress)
    if isinstance(found, TournamentResult):
        _print_tournament(entry, images, found, as_json)
    else:
        _print_scores(entry, images, found, as_json)


def _print_scores(entry: dict[str, Any], images: Sequence[Path], scores: Sequence[Score], as_json: bool) -> None:
    if as_json:
        entries = [score_entry(image, score) for image, score in zip(images, scores, strict=True)]
        console.print_json(data=entry | {"scores": entries})
        return
    scored = table("image", entry["reward"], "reasons", numbers=[entry["reward"]])
    for image, score in zip(images, scores, strict=True):
        add_row(scored, image, f"{score.value:.6g}", join_reasons([score.details]))
    console.print(scored)


def _print_tournament(entry: dict[str, Any], images: Sequence[Path], result: TournamentResult, as_json: bool) -> None:
    summary = result.summary
    rows = list(zip(images, result.scores, summary.standard_errors, strict=True))
    if as_json:
        entries = [score_entry(image, score) | {"standard_error": error} for image, score, error in rows]
        counts = summary.model_dump(exclude={"standard_errors"})
        console.print_json(data=entry | {"scores": entries, "tournament": counts})
        return
    name = entry["reward"]
    scored = table("image", name, "+-", "wins, ties, losses", numbers=[name, "+-"])
    for image, score, error in rows:
        counts_text = ", ".join(map(str, (score.details or {}).values()))
        add_row(scored, image, f"{score.value:.3f}", f"{error:.3f}", counts_text)
    console.print(scored)
    flips = "" if summary.flip_rate is None else f", {summary.flip_rate:.0%} changed with the order of the two images"
    unparsed = f", {summary.unparsed} answers could not be read" if summary.unparsed else ""
    console.print(f"{summary.comparisons} comparisons{flips}{unparsed}")
