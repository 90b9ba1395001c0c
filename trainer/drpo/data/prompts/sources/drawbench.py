"""DrawBench: the 200 prompts of the Imagen paper, in 11 categories.

The authors published it as a spreadsheet without a licence. This is a mirror of it that has a fixed commit and hash.
"""

from __future__ import annotations

from drpo.config import PromptsConfig
from drpo.data.prompts.downloads import find_files
from drpo.data.prompts.problems import Problems
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.records import make_records
from drpo.data.prompts.rows import Row, read_rows
from drpo.data.prompts.source import Origin, PromptSource, RemoteFile

FILE = "data/test-00000-of-00001.parquet"

CATEGORIES = (
    "Colors", "Conflicting", "Counting", "DALL-E", "Descriptions", "Gary Marcus et al.", "Misspellings", "Positional",
    "Rare Words", "Reddit", "Text",
)  # fmt: skip
"""The file has a category's number in this order."""

ORIGIN = Origin(
    homepage="https://huggingface.co/datasets/Jialuo21/DrawBench",
    licence="not stated by the authors (Imagen, arXiv 2205.11487)",
    revision="870c4ef7e6c67eafa7c6e26ba79b7c0d52c9cb16",
    repository="Jialuo21/DrawBench",
    files=(RemoteFile(FILE, sha256="951d1d0162ff983840f0dc662c52a8b73a62d3a26db87294f43641fda739fe8e"),),
)


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """All prompts, with their category as task.

    Raises:
        ConfigError: the file was not downloaded, or is another one.
    """
    (path,) = find_files("drawbench", ORIGIN, FILE)
    problems = Problems(str(path))
    rows = (_name_category(row) for row in read_rows(path, problems))
    return make_records(rows, problems, settings.model_copy(update={"column": "prompts", "task_column": "category"}))


def _name_category(row: Row) -> Row:
    position, values = row
    number = values.get("category")
    named = CATEGORIES[number] if isinstance(number, int) and 0 <= number < len(CATEGORIES) else number
    return position, {**values, "category": named}


SOURCE = PromptSource("DrawBench: 200 prompts in 11 categories", load, origin=ORIGIN)
