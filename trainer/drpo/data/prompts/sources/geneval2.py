"""GenEval 2: 800 prompts with questions about each picture and their answers, for the reward `soft_tifa`.

The task is the number of atoms, 3 to 10: objects, counts, attributes, positions and actions that the prompt asks for.
"""

from __future__ import annotations

from drpo.config import PromptsConfig
from drpo.data.prompts.downloads import find_files
from drpo.data.prompts.problems import Problems
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.records import make_records
from drpo.data.prompts.rows import Row, read_rows
from drpo.data.prompts.source import Origin, PromptSource, RemoteFile
from drpo.errors import ConfigError

FILE = "geneval2_data.jsonl"
COMMIT = "a6e82d2289e8d418f27f0adee77908b07060eea3"
COUNT = 800

ORIGIN = Origin(
    homepage="https://github.com/facebookresearch/GenEval2",
    licence="CC BY-NC 4.0",
    revision=COMMIT,
    files=(RemoteFile(FILE, url=f"https://raw.githubusercontent.com/facebookresearch/GenEval2/{COMMIT}/{FILE}"),),
)


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """All prompts, in the order of the file.

    Raises:
        ConfigError: the file was not downloaded, or is another one.
    """
    (path,) = find_files("geneval2", ORIGIN, FILE)
    problems = Problems(str(path))
    rows = []
    for position, values in read_rows(path, problems):
        problem = _find_problem(values)
        if problem:
            problems.add(position, problem)
        else:
            rows.append(_make_row((position, values)))
    problems.raise_if_any()
    if len(rows) != COUNT:
        raise ConfigError(f"{path} has {len(rows)} prompts; GenEval 2 has {COUNT}: download it again")
    return make_records(rows, problems, settings.model_copy(update={"column": "prompt", "task_column": "task"}))


def _find_problem(values: dict[str, object]) -> str | None:
    questions, skills, atoms = (values.get(key) for key in ("vqa_list", "skills", "atom_count"))
    if not isinstance(questions, list) or not isinstance(skills, list) or len(questions) != len(skills):
        return 'needs "vqa_list" and "skills", two lists of one length'
    return None if isinstance(atoms, int) else 'needs "atom_count", a whole number'


def _make_row(row: Row) -> Row:
    position, values = row
    metadata = {"vqa": values["vqa_list"], "skills": values["skills"]}
    return position, {"prompt": values.get("prompt"), "metadata": metadata, "task": f"{values['atom_count']} atoms"}


SOURCE = PromptSource("GenEval 2: 800 prompts with questions, by their number of atoms", load, origin=ORIGIN)
