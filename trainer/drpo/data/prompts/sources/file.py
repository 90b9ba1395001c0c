"""Prompts from a file: .txt, .jsonl, .csv, .tsv or .parquet.

A .txt has one prompt on each line; the others have columns, and optionally a task and metadata for each prompt:

    {"prompt": "a photo of a cat", "task": "animals", "metadata": {"source": "mine"}}

GenEval's evaluation_metadata.jsonl can be used unchanged.
"""

from __future__ import annotations

from pathlib import Path

from drpo.config import PromptsConfig
from drpo.data.prompts.problems import Problems
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.records import make_records
from drpo.data.prompts.rows import read_rows
from drpo.data.prompts.source import PromptSource


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """Reads all of the file `settings.path`, in its order. Lines of white space are skipped.

    Raises:
        ConfigError: there is no such file, or something in it is wrong; the message has a line for each problem.
    """
    assert settings.path is not None  # `load_prompts` has checked it
    problems = Problems(settings.path)
    return make_records(read_rows(Path(settings.path).expanduser(), problems), problems, settings)


SOURCE = PromptSource("the file prompts.path: .txt, .jsonl, .csv, .tsv or .parquet", load, reads_path=True)
