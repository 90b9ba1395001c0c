"""Plan the images of an evaluation: prompts, and a noise seed for each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drpo.data.prompts.record import PromptRecord
from drpo.data.seeds import derive_seed
from drpo.errors import EvaluationError


@dataclass(frozen=True)
class PlannedImage:
    """One image to generate.

    Attributes:
        record: its prompt.
        number: its index among the images of that prompt, from 0.
        seed: the seed of its noise. It depends only on the evaluation's seed, the task, the prompt and the number.
        example: whether the picture itself is kept.
    """

    record: PromptRecord
    number: int
    seed: int
    example: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        """The task, the prompt and the noise seed. They identify the same image in another evaluation."""
        return self.record.task, self.record.prompt, self.seed


def plan_images(
    records: Sequence[PromptRecord],
    *,
    images_per_prompt: int = 2,
    prompts_per_task: int | None = None,
    seed: int = 0,
    examples_per_task: int = 8,
) -> list[PlannedImage]:
    """Chooses prompts and noise seeds.

    The order of a task's prompts depends only on the seed, the task and the prompts. The noise of an image depends only
    on the seed, the task, the prompt and the image's number. So more images, prompts or tasks do not change the others.

    Args:
        records: prompts with their tasks; a prompt that appears twice in a task counts once.
        images_per_prompt: images per prompt.
        prompts_per_task: prompts per task, the first ones in its order; None: all.
        seed: another seed gives another evaluation set.
        examples_per_task: prompts per task that keep the picture of their first image, the first ones in its order.

    Raises:
        EvaluationError: there are no prompts.
    """
    if not records:
        raise EvaluationError("there are no prompts to evaluate on")
    by_task: dict[str, dict[str, PromptRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, {}).setdefault(record.prompt, record)
    planned = []
    for task, prompts in by_task.items():
        ordered = sorted(prompts, key=lambda prompt: derive_seed(seed, "order", task, prompt))
        for position, prompt in enumerate(ordered[:prompts_per_task]):
            for number in range(images_per_prompt):
                noise_seed = derive_seed(seed, "noise", task, prompt, number)
                example = number == 0 and position < examples_per_task
                planned.append(PlannedImage(prompts[prompt], number, noise_seed, example))
    return planned
