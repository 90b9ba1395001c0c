"""PartiPrompts: 1,632 prompts in 12 categories and 11 challenges.

The file has no quoting: one prompt begins with a quotation mark. White space around prompts is kept as it is.
"""

from __future__ import annotations

from drpo.config import PromptsConfig
from drpo.data.prompts.downloads import find_files
from drpo.data.prompts.problems import Problems
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.records import make_records
from drpo.data.prompts.rows import read_rows
from drpo.data.prompts.source import Origin, PromptSource, RemoteFile

FILE = "PartiPrompts.tsv"
COMMIT = "2c99f6652cbc7f0d0441aa91f4c7e7055bcb0071"
TASK_COLUMNS = ("Category", "Challenge")

ORIGIN = Origin(
    homepage="https://github.com/google-research/parti",
    licence="Apache-2.0",
    revision=COMMIT,
    files=(
        RemoteFile(
            FILE,
            url=f"https://raw.githubusercontent.com/google-research/parti/{COMMIT}/{FILE}",
            sha256="fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
        ),
    ),
)


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """All prompts, in the order of the file. The task is the category, or what `settings.task_column` names.

    Raises:
        ConfigError: the file was not downloaded, or is another one.
    """
    (path,) = find_files("parti", ORIGIN, FILE)
    problems = Problems(str(path))
    columns = {"column": "Prompt", "task_column": settings.task_column or TASK_COLUMNS[0]}
    return make_records(read_rows(path, problems), problems, settings.model_copy(update=columns))


SOURCE = PromptSource("PartiPrompts: 1,632 prompts in 12 categories", load, task_columns=TASK_COLUMNS, origin=ORIGIN)
