"""The captions of Pick-a-Pic v2, which users wrote: the set that the paper trains and tests on.

    test        the paper's "424 prompts". They are a part of the 500 captions of the split test_unique, and the paper
                does not say which. `TEST_RULES` has the rules that other users of the data apply; the first one that
                leaves 424 is used. If none does, the first rule is, with a warning that gives the counts.
    train       the different captions of the split train, without those of test_unique, whichever rule holds

Captions that are empty are left out. The repository without images is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from drpo.config import PromptsConfig
from drpo.data.prompts.downloads import find_files
from drpo.data.prompts.overlap import fold
from drpo.data.prompts.problems import find_text_problem
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.source import Origin, PromptSource, RemoteFile

TRAIN_FILES, TEST_FILES = "data/train-*.parquet", "data/test_unique-*.parquet"
PAPER_TEST_PROMPTS = 424

ORIGIN = Origin(
    homepage="https://huggingface.co/datasets/yuvalkirstain/pickapic_v2_no_images",
    licence="not stated on the page of the data set; see Pick-a-Pic, arXiv 2305.01569",
    revision="main",
    repository="yuvalkirstain/pickapic_v2_no_images",
    files=(RemoteFile(TRAIN_FILES), RemoteFile(TEST_FILES)),
)

Row = dict[str, Any]

TEST_RULES: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "rows whose has_label is true": lambda rows: [row["caption"] for row in rows if row["has_label"]],
    "rows whose label_0 is 0 or 1, so without ties": lambda rows: [
        row["caption"] for row in rows if row["label_0"] in (0, 1)
    ],
    "captions that differ in more than white space around them": lambda rows: list(
        {row["caption"].strip(): row["caption"] for row in rows}.values()
    ),
}

_log = logging.getLogger(__name__)


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """The captions of a split.

    Raises:
        ConfigError: the files were not downloaded.
    """
    rows = [row for row in _read(TEST_FILES, ["caption", "has_label", "label_0"]).to_pylist() if row["caption"]]
    rule, test = choose_test_captions(rows)
    if settings.split == "test":
        if len(test) == PAPER_TEST_PROMPTS:
            _log.info("pickapic_v2: the test set is the %d %s", len(test), rule)
        else:
            counts = "; ".join(f"{len(choose(rows))} {name}" for name, choose in TEST_RULES.items())
            _log.warning(
                "pickapic_v2: no rule gives the paper's %d test prompts (%s); this is not its test set, but the %d %s",
                PAPER_TEST_PROMPTS,
                counts,
                len(test),
                rule,
            )
        return [PromptRecord(caption) for caption in _drop_unusable(test)]
    held_out = {fold(row["caption"]) for row in rows}
    captions = _read(TRAIN_FILES, ["caption"])["caption"].unique().to_pylist()
    return [PromptRecord(caption) for caption in _drop_unusable(captions) if fold(caption) not in held_out]


def choose_test_captions(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """The rule that leaves 424 captions of test_unique, or else the first rule, and the captions that it leaves."""
    chosen = {rule: choose(rows) for rule, choose in TEST_RULES.items()}
    rule = next((rule for rule, captions in chosen.items() if len(captions) == PAPER_TEST_PROMPTS), next(iter(chosen)))
    return rule, chosen[rule]


def _read(pattern: str, columns: list[str]) -> Any:
    from pyarrow import concat_tables, parquet

    return concat_tables(
        [parquet.read_table(path, columns=columns) for path in find_files("pickapic_v2", ORIGIN, pattern)]
    )


def _drop_unusable(captions: Iterable[str | None]) -> list[str]:
    return [caption for caption in captions if caption and caption.strip() and find_text_problem(caption) is None]


SOURCE = PromptSource("the captions of Pick-a-Pic v2, as in the paper", load, splits=("train", "test"), origin=ORIGIN)
