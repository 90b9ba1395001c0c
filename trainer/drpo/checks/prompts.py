"""Can every prompt of training and evaluation be read, tokenized and ranked?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from drpo.checks.plan import Plan
from drpo.data.prompts.problems import find_half_character, find_unknown_byte
from drpo.data.prompts.record import PromptRecord
from drpo.errors import DrpoError
from drpo_rewards.api.contract import Metadata, PromptText
from drpo_rewards.findings import Finding

MOST_PROBLEMS = 20
"""Problems of one prompt set that are listed; the rest is counted."""
CHUNK = 10_000
"""Prompts that are tokenized at once."""


def check_prompts(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the prompts."""
    if plan.verb == "sample":
        yield from _check_records(plan, "prompt", [PromptRecord(text) for text in plan.texts])
    if plan.trains:
        yield from _check_set(plan, "prompts" if plan.config.offline is None else "offline", plan.training_prompts)
    if plan.evaluates:
        yield from _check_set(plan, "evaluation", plan.evaluation_prompts)
    if plan.trains and plan.evaluates:
        yield from _check_overlap(plan)
    grid = plan.config.evaluation.grid
    if plan.trains and plan.config.evaluates_during_training and grid is not None and grid.prompts is not None:
        yield from _check_records(plan, "evaluation.grid.prompts", [PromptRecord(text) for text in grid.prompts])


def _check_set(plan: Plan, section: str, loaded: list[PromptRecord] | DrpoError) -> Iterator[Finding]:
    if not isinstance(loaded, DrpoError):
        if section == "offline" and not loaded:
            yield Finding("prompts", section, "skipped", "the prompts are known when the preferences are read")
        else:
            yield from _check_records(plan, section, loaded)
        return
    own = section != "evaluation" or plan.config.evaluation.path is not None
    settings = plan.config.evaluation_prompts() if section == "evaluation" else getattr(plan.config, section)
    path = settings.path
    for line in str(loaded).splitlines():
        owner = "evaluation" if "evaluation." in line else section if own else "prompts"
        named = (
            any(f"{name}." in line for name in ("prompts", "evaluation", "offline")) or f"{path}:" in line
        )  # a setting, or file:line
        yield Finding("prompts", owner, "wrong", line if named or path is None else f"{owner}.path: {line}")


def _check_overlap(plan: Plan) -> Iterator[Finding]:
    """Checks that no evaluation prompt is also trained on, which would flatter the result."""
    from drpo.data.prompts.overlap import OVERLAP_FIX, describe_overlap

    training, evaluation = plan.training_prompts, plan.evaluation_prompts
    if plan.config.prompts.allow_overlap or isinstance(training, DrpoError) or isinstance(evaluation, DrpoError):
        return
    if found := describe_overlap(training, evaluation):
        yield Finding("prompts", "evaluation", "wrong", found, OVERLAP_FIX)


def _check_records(plan: Plan, section: str, records: Sequence[PromptRecord]) -> Iterator[Finding]:
    problems = []
    for number, record in enumerate(records, start=1):
        problem, fix = _find_problem(record, typed=plan.verb == "sample")
        if problem:
            shown = record.prompt if len(record.prompt) <= 60 else f"{record.prompt[:60]}..."
            problems.append((f"prompt {number} of {section} ({shown!a}) {problem}", fix))
    for found, fix in problems[:MOST_PROBLEMS]:
        yield Finding("prompts", section, "wrong", found, fix)
    if len(problems) > MOST_PROBLEMS:
        yield Finding(
            "prompts", section, "wrong", f"{len(problems) - MOST_PROBLEMS} more prompts of {section} are wrong"
        )
    if not problems:
        yield Finding("prompts", section, "ok", f"{len(records)} prompts{_count_cut(plan, records)}")


_TEXT: TypeAdapter[str] = TypeAdapter(PromptText)
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)


def _find_problem(record: PromptRecord, *, typed: bool) -> tuple[str, str]:
    """What is wrong with a prompt and what to do; "" if nothing is. The images of one that was typed are not ranked."""
    if typed and (unknown := find_unknown_byte(record.prompt)):
        return unknown
    problem = find_half_character(record.prompt) or ("" if typed else _find_limit(record))
    return problem, "correct or remove it"


def _find_limit(record: PromptRecord) -> str:
    """Why no service would rank images of a prompt; "" if there is no reason."""
    if not record.prompt.strip():
        return "is empty"
    try:
        _TEXT.validate_python(record.prompt)
        if record.metadata is not None:
            _METADATA.validate_python(dict(record.metadata))
    except ValidationError as error:
        return f"is refused by every ranking service: {error.errors()[0]['msg']}"
    return ""


def _count_cut(plan: Plan, records: Sequence[PromptRecord]) -> str:
    """How many prompts are longer than what the generator reads of a prompt, in words; "" if none is."""
    folder = plan.generator_folder
    if folder is None or not (folder / "tokenizer").is_dir():
        return ""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        limit = tokenizer.model_max_length
        # A token has at least one byte, and two tokens mark the beginning and the end.
        long = [record.prompt for record in records if len(record.prompt.encode()) > limit - 2]
        chunks = [long[start : start + CHUNK] for start in range(0, len(long), CHUNK)]
        cut = sum(len(ids) > limit for chunk in chunks for ids in tokenizer(chunk, verbose=False).input_ids)
    except Exception:  # what is wrong with the tokenizer is a finding about the models
        return ""
    return f"; the generator reads only the first {limit} tokens of {cut} of them" if cut else ""
