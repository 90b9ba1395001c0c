"""`score` and `compare`: one reward in this process, without Ray or a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from drpo_rewards.api.images import decode, load
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

if TYPE_CHECKING:
    from drpo_rewards.ranking.tournament import TournamentResult
    from drpo_rewards.rewards.base import AnyReward, Comparison, PairwiseReward, Reward, Score, ScoreItem

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
    all_pairs: Annotated[bool, typer.Option(help="A judge compares every pair, not only O(K log K) of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score images with one reward in this process: no server, no Ray. Prints raw scores in the order given.

    A judge compares pairs of the images, and the scores are strengths fitted to the outcome.
    """
    from drpo_rewards.rewards.base import Reward

    with told_errors():
        items = _items(images, prompt, read_metadata(metadata))
        scorer = _create(reward, model, option)
        if not isinstance(scorer, Reward):
            result = _play(reward, scorer, items, batch_size, all_pairs)
            return _print_result(_head(reward, scorer, prompt), reward, images, result, as_json)
        scores = _score(reward, scorer, items, batch_size)
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
    from drpo_rewards.rewards.base import Reward

    with told_errors():
        items = _items([first, second], prompt, read_metadata(metadata))
        scorer = _create(reward, model, option)
        if not isinstance(scorer, Reward):
            (comparison,) = _compare(reward, scorer, items, [(0, 1)])
            return _print_comparison(_head(reward, scorer, prompt), first, second, comparison, as_json)
        one, two = _score(reward, scorer, items, 2)
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


def _items(images: Sequence[Path], prompt: str, metadata: dict[str, Any] | None) -> list[ScoreItem]:
    """Each image, decoded. Raises InvalidImageError, naming the file."""
    from drpo_rewards.rewards.base import ScoreItem

    pictures = [decode(bytes(load(path, field=str(path))), field=str(path)) for path in images]
    return [ScoreItem(picture, prompt, metadata) for picture in pictures]


def _create(name: str, model: str | None, option: Sequence[str] | None) -> AnyReward:
    from drpo_rewards.rewards import create

    import_from(Path.cwd())
    with busy(f"loading {name}"):
        return create(name, read_options(option) | ({"model": model} if model else {}))


def _score(name: str, reward: Reward, items: Sequence[ScoreItem], batch_size: int) -> list[Score]:
    """The reward's score of each image. Raises a RewardsError that names the reward."""
    from drpo_rewards.rewards.base import checked_scores

    scores: list[Score] = []
    with _progress("scoring", len(items)) as advance:
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            with _named_errors(name):
                scores += checked_scores(name, reward, batch)
            advance(len(batch))
    return scores


def _compare(
    name: str, judge: PairwiseReward, items: Sequence[ScoreItem], pairs: Sequence[tuple[int, int]]
) -> list[Comparison]:
    """The judge's judgement of each pair of images. Raises a RewardsError that names the reward."""
    from drpo_rewards.rewards.base import PairItem, checked_comparisons

    sides = [(items[first], items[second]) for first, second in pairs]
    asked = [PairItem(one.image, two.image, one.prompt, one.metadata) for one, two in sides]
    with _named_errors(name):
        return checked_comparisons(name, judge, asked)


def _play(
    name: str, judge: PairwiseReward, items: Sequence[ScoreItem], batch_size: int, all_pairs: bool
) -> TournamentResult:
    """A tournament of the images."""
    from drpo_rewards.ranking.tournament import Tournament, seeding

    if len(items) < 2:
        raise InvalidRequestError(f"reward {name!r} compares images; give at least two")
    tournament = Tournament(seeding(items[0].prompt, [item.image for item in items]), all_pairs)
    with _progress("comparing", tournament.most_comparisons) as advance:
        while pairs := tournament.next_round():
            comparisons: list[Comparison] = []
            for start in range(0, len(pairs), batch_size):
                comparisons += _compare(name, judge, items, pairs[start : start + batch_size])
                advance(len(comparisons) - start)
            tournament.record(pairs, comparisons)
    return tournament.result()


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Whatever a reward raises, as the service would say it."""
    try:
        yield
    except RewardsError:
        raise
    except Exception as error:
        raise RewardError(f"reward {name!r} failed: {type(error).__name__}: {error}", reward=name) from error


@contextmanager
def _progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, where somebody watches; what it gives is called with how many more are done."""
    columns = TextColumn(doing), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        yield lambda done: progress.advance(bar, done)


def _print_result(
    head: dict[str, Any], name: str, images: Sequence[Path], result: TournamentResult, as_json: bool
) -> None:
    summary = result.summary
    rows = list(zip(images, result.scores, summary.standard_errors, strict=True))
    if as_json:
        entries = [_entry(image, score) | {"standard_error": error} for image, score, error in rows]
        counts = summary.model_dump(exclude={"standard_errors"})
        console.print_json(data=head | {"scores": entries, "tournament": counts})
        return
    made = table("image", name, "+-", "wins, ties, losses", numbers=[name, "+-"])
    for image, score, error in rows:
        add_row(made, image, f"{score.value:.3f}", f"{error:.3f}", ", ".join(map(str, (score.details or {}).values())))
    console.print(made)
    flips = "" if summary.flip_rate is None else f", {summary.flip_rate:.0%} changed with the order of the two"
    unread = f", {summary.unparsed} answers could not be read" if summary.unparsed else ""
    console.print(f"{summary.comparisons} comparisons{flips}{unread}")


def _print_comparison(head: dict[str, Any], first: Path, second: Path, found: Comparison, as_json: bool) -> None:
    if as_json:
        said = {"winner": found.winner, "confidence": found.confidence, "flipped": found.flipped}
        console.print_json(data=head | said | {"unparsed": found.unparsed, "details": found.details})
        return
    images = {"first": first, "second": second}
    sure = "" if found.confidence is None else f" (confidence {found.confidence:.2f})"
    console.print(escape(f"better: {images[found.winner]}{sure}" if found.winner in images else f"a tie{sure}"))
    if found.flipped:
        console.print("the answer changed with the order of the two, so it counts as a tie")
    if found.unparsed:
        console.print(f"{found.unparsed} of {found.asked} answers could not be read")
    if why := reasons([found.details]):
        console.print(escape(why))


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


def _head(name: str, reward: AnyReward, prompt: str) -> dict[str, Any]:
    better = getattr(reward, "higher_is_better", True)
    return {"reward": name, "version": reward.version, "higher_is_better": better, "prompt": prompt}


def _entry(image: Path, score: Score) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": str(image), "score": float(score.value)}
    return entry | ({"details": score.details} if score.details else {})
