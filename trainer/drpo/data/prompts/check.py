"""Everything about the prompts of a run that is known before it starts."""

from __future__ import annotations

from drpo.config import Config, PromptsConfig
from drpo.data.prompts import PromptRecord, load_prompts
from drpo.data.prompts.overlap import find_overlap
from drpo.errors import DrpoError

_SHOWN = 3


def check_prompts(config: Config) -> list[str]:
    """The problems of the training prompts, of the evaluation prompts, and of both together: one line for each.

    The evaluation prompts are not loaded if the evaluation is switched off.
    """
    problems: list[str] = []
    train = _try_loading(config.prompts, "prompts", problems)
    if not config.evaluation.enabled:
        return problems
    settings = config.evaluation_prompts()
    evaluation = _try_loading(settings, "evaluation", problems)
    if train is None or evaluation is None or config.prompts.allow_overlap:
        return list(dict.fromkeys(problems))  # one file for both is told once
    overlap = find_overlap(train, evaluation)
    if overlap:
        examples = ", ".join(repr(prompt) for prompt in overlap[:_SHOWN]) + (", ..." if len(overlap) > _SHOWN else "")
        problems.append(
            f"{len(overlap)} of the {len({record.prompt for record in evaluation})} evaluation prompts are also "
            f"training prompts ({examples}): choose other prompts with evaluation.source, evaluation.path or "
            "evaluation.split; or set prompts.allow_overlap to true, or evaluation.enabled to false"
        )
    return problems


def _try_loading(settings: PromptsConfig, section: str, problems: list[str]) -> list[PromptRecord] | None:
    try:
        return load_prompts(settings, section)
    except DrpoError as error:
        problems += str(error).splitlines()
        return None
