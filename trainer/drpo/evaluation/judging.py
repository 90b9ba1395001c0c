"""Pairwise judging: which of two models makes the better picture, pair by pair, from the same prompt and noise.

A pair is sent in one order, which a hash of its prompt and seed fixes, as in the paper; with `both_orders` in both.
Verdicts lie in a file of JSON lines and are never asked twice.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drpo.errors import ConfigError, EvaluationError
from drpo.evaluation.compare import RESAMPLES
from drpo.evaluation.table.pictures import ROW_FILE, Key, PictureFolder, append_lines, digest_metadata, read_lines
from drpo.training.files import storing
from drpo_rewards.api.metadata import Schema, take_share
from drpo_rewards.client import RankingClient

_SALT = "qwen3vl_pairwise_v1"
"""The paper's: another salt would show other pairs in the other order."""
_SHUFFLE_SEED = 123

WIN, LOSS, TIE = "win", "loss", "tie"


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt from the same noise.

    Attributes:
        prompts: the folder of the set of prompts.
        key: task, prompt and seed.
        first, second: where the pictures are.
    """

    prompts: str
    key: Key
    first: PictureFolder
    second: PictureFolder

    @property
    def swapped(self) -> bool:
        """Whether the second picture is shown first."""
        _, prompt, seed = self.key
        digest = hashlib.sha256(f"{_SALT}:{prompt}:{seed}".encode("utf-8", "backslashreplace")).digest()
        return int.from_bytes(digest[:4], "big") % 2 == 1

    @property
    def metadata_digest(self) -> str:
        """Of the prompt's metadata, see `digest_metadata`."""
        return digest_metadata(self.first.metadata(self.key))


@dataclass(frozen=True)
class Outcome:
    """What a judge said about the pictures of one model against those of another.

    Rates are shares of all pairs. Intervals are 95 % bootstrap intervals over prompts.

    Attributes:
        pairs, prompts: how many were judged.
        win, loss, tie: rates of the first model, each with its interval.
        without_ties: wins among the pairs that are no ties, with its interval; None if all are ties.
        half_ties: wins and half of the ties, with its interval.
        flips: the share of pairs whose verdict changed with the order; None: none was judged in both.
        unparsed: answers of the judge that could not be read.
    """

    pairs: int
    prompts: int
    win: tuple[float, float, float]
    loss: tuple[float, float, float]
    tie: tuple[float, float, float]
    without_ties: tuple[float, float, float] | None
    half_ties: tuple[float, float, float]
    flips: float | None
    unparsed: int

    def to_json(self) -> dict[str, Any]:
        """All numbers; each rate is [rate, low, high]."""
        return asdict(self)


def read_row_name(folder: Path) -> str:
    """The name of a row, as it was given; that of its folder if that is not known any more."""
    try:
        return str(json.loads((folder / ROW_FILE).read_text(encoding="utf-8"))["name"])
    except (ValueError, KeyError, TypeError):
        return folder.name


def find_pairs(first: Path, second: Path, most: int | None = None) -> list[Pair]:
    """The pictures of two rows that are of the same prompt and noise, in a fixed random order.

    Args:
        first, second: the folders of two rows, see `drpo.evaluation.table.pictures`.
        most: take at most so many, the first ones in that order; None: all.

    Raises:
        ConfigError: one is no row's folder, or they have no pictures in common.
    """
    for folder in (first, second):
        if not (folder / ROW_FILE).is_file():
            raise ConfigError(f"{folder} has no pictures of a row: make them with `drpo eval --row NAME=WHAT`")
    pairs = []
    for name in sorted(each.name for each in first.iterdir() if each.is_dir()):
        one, other = PictureFolder(first / name), PictureFolder(second / name)
        pairs += [Pair(name, key, one, other) for key in sorted(one.keys() & other.keys())]
    if not pairs:
        raise ConfigError(f"{first.name} and {second.name} have no prompts and noises in common: use the same sets")
    random.Random(_SHUFFLE_SEED).shuffle(pairs)
    return pairs[:most]


class Verdicts:
    """The verdicts about two rows, on the disk.

    Args:
        path: the file of JSON lines.
        judge: the name of the reward; a pointwise one compares by its scores. Verdicts of another one do not count.
        version: of the judge; those of another one do not count either.
        both_orders: whether each pair is judged in both orders.
    """

    def __init__(self, path: Path, judge: str, version: str, *, both_orders: bool) -> None:
        self._path = path
        self._judge = judge
        self._both_orders = both_orders
        self._version = version
        self._lines: dict[tuple[Any, ...], dict[str, Any]] = {}
        for line in read_lines(path):
            self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        mine = {"judge": self._judge, "version": self._version, "both_orders": self._both_orders}
        if mine.items() <= line.items():
            self._lines[line["prompts"], line["task"], line["prompt"], line["seed"]] = line

    def of(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """The verdicts of these pairs; those that are not judged are left out."""
        return [line for pair in pairs if (line := self._find(pair)) is not None]

    def missing(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs that are not judged, or were with other metadata."""
        return [pair for pair in pairs if self._find(pair) is None]

    def _find(self, pair: Pair) -> dict[str, Any] | None:
        line = self._lines.get((pair.prompts, *pair.key))
        return line if line is not None and line.get("metadata") == pair.metadata_digest else None

    def judge(
        self,
        pairs: Sequence[Pair],
        client: RankingClient,
        *,
        schema: Schema = None,
        concurrency: int = 8,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Asks the judge, and keeps each verdict as it arrives.

        Args:
            pairs: see `missing`.
            client: a client of the ranking service.
            schema: which keys of a prompt's metadata the judge reads; None: any.
            concurrency: pairs at once.
            progress: called after each pair.

        Raises:
            drpo_rewards.errors.RewardsError: a pair could not be judged. Verdicts that arrived are kept.
        """
        with storing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(concurrency, thread_name_prefix="judging") as pool:
            answers = [pool.submit(self._ask, pair, client, schema) for pair in pairs]
            try:
                for answer in as_completed(answers):
                    line = answer.result()
                    append_lines(self._path, [line])
                    self._add(line)
                    progress()
            finally:
                for answer in answers:  # only after an error
                    answer.cancel()

    def _ask(self, pair: Pair, client: RankingClient, schema: Schema) -> dict[str, Any]:
        task, prompt, seed = pair.key
        metadata = take_share(pair.first.metadata(pair.key), schema)
        pictures = pair.first.read(pair.key), pair.second.read(pair.key)
        results, flipped, unparsed = [], [], 0
        for swapped in (pair.swapped, not pair.swapped) if self._both_orders else (pair.swapped,):
            shown = pictures[::-1] if swapped else pictures
            response = client.compare(prompt, shown[0], shown[1], model=self._judge, metadata=metadata)
            won = {"first": LOSS if swapped else WIN, "second": WIN if swapped else LOSS, "tie": TIE}
            results.append(won[response.winner])
            if response.verdict is not None:
                unparsed += response.verdict.unparsed
                flipped += [response.verdict.flipped] if response.verdict.flipped is not None else []
        if self._both_orders:
            flipped.append(results[0] != results[1])
        return {
            "prompts": pair.prompts,
            "task": task,
            "prompt": prompt,
            "seed": seed,
            "metadata": pair.metadata_digest,
            "result": results[0] if len(set(results)) == 1 else TIE,
            "flipped": any(flipped) if flipped else None,
            "unparsed": unparsed,
            "swapped": pair.swapped,
            "judge": self._judge,
            "version": self._version,
            "both_orders": self._both_orders,
        }


def summarize(lines: Sequence[Mapping[str, Any]], *, seed: int = 0) -> Outcome:
    """Counts verdicts.

    Raises:
        EvaluationError: there are none.
    """
    if not lines:
        raise EvaluationError("there are no verdicts to count")
    by_prompt: dict[tuple[str, str, str], list[float]] = {}
    for line in lines:
        counts = by_prompt.setdefault((line["prompts"], line["task"], line["prompt"]), [0.0, 0.0, 0.0])
        counts[(WIN, LOSS, TIE).index(line["result"])] += 1
    counts_P3 = np.array(list(by_prompt.values()))
    random_numbers = np.random.default_rng(seed)
    drawn_RP = random_numbers.multinomial(len(counts_P3), np.full(len(counts_P3), 1 / len(counts_P3)), size=RESAMPLES)
    resampled_R3, total_3 = drawn_RP @ counts_P3, counts_P3.sum(axis=0)

    def rate(weights: Sequence[float], among: Sequence[float]) -> tuple[float, float, float]:
        """A share, and its interval over the resamples in which it is defined."""
        below_R = resampled_R3 @ np.array(among)
        shares = (resampled_R3 @ np.array(weights))[below_R > 0] / below_R[below_R > 0]
        low, high = np.quantile(shares, [0.025, 0.975])
        return float(total_3 @ np.array(weights) / (total_3 @ np.array(among))), float(low), float(high)

    everything = (1.0, 1.0, 1.0)
    flips = [line["flipped"] for line in lines if line["flipped"] is not None]
    return Outcome(
        pairs=len(lines),
        prompts=len(by_prompt),
        win=rate((1, 0, 0), everything),
        loss=rate((0, 1, 0), everything),
        tie=rate((0, 0, 1), everything),
        without_ties=rate((1, 0, 0), (1, 1, 0)) if total_3[:2].any() else None,
        half_ties=rate((1, 0, 0.5), everything),
        flips=float(np.mean(flips)) if flips else None,
        unparsed=sum(line["unparsed"] for line in lines),
    )


def draw_bars(path: Path, first: str, outcomes: Mapping[str, Outcome]) -> None:
    """Draws wins, ties and losses of a model against others as bars, as in the paper's figure 2.

    Args:
        path: the SVG file.
        first: the name of the model.
        outcomes: against each other model, by its name.

    Raises:
        StorageError: it could not be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": first, "font.size": 10, "text.parse_math": False}
    with matplotlib.rc_context(settings), storing(path):
        figure = Figure(figsize=(7.0, 1.0 + 0.5 * len(outcomes)), layout="constrained")
        axes = figure.add_subplot()
        places = np.arange(len(outcomes))[::-1]
        left = np.zeros(len(outcomes))
        axes.axvline(50, color="black", linewidth=0.6, zorder=0)  # behind the bars and their numbers
        for part, color, ink in ((WIN, "#2f6f4f", "white"), (TIE, "#c9c9c9", "black"), (LOSS, "#b5523b", "white")):
            width = 100 * np.array([getattr(outcome, part)[0] for outcome in outcomes.values()])
            axes.barh(places, width, left=left, color=color, label=part, height=0.6)
            for place, start, share in zip(places, left, width, strict=True):
                if share >= 6:
                    axes.text(start + share / 2, place, f"{share:.1f}", ha="center", va="center", color=ink)
            left += width
        axes.set_yticks(places, [f"{first} against {name}" for name in outcomes])
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of pairs")
        axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
