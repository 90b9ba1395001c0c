"""Does a training step fit into the memory of a GPU?"""

from __future__ import annotations

from collections.abc import Iterator

from drpo.checks.plan import Plan
from drpo.errors import DrpoError
from drpo_rewards.findings import Finding

SETTING = "training.candidates"


def check_memory(plan: Plan) -> Iterator[Finding]:
    """Yields what a step takes, and whether the GPUs of this machine have it. Runs without a GPU are not looked at."""
    if not (plan.trains and plan.config.training.use_gpu):
        return
    if plan.generator_folder is None:
        found = "what a step takes can be estimated once the generator's configs are on this machine"
        yield Finding("memory", SETTING, "skipped", found)
        return
    from drpo.training.choices import choose_memory
    from drpo.training.memory import estimate_memory

    config = plan.config.model_copy(deep=True)
    config.model.generator = str(plan.generator_folder)
    config.model.vae = plan.local_vae
    smallest = _find_smallest_gpu() if plan.starts_ray else None
    chosen = ""
    try:
        if config.training.memory is None:
            estimate = estimate_memory(config)
        elif smallest is None:
            yield Finding("memory", SETTING, "ok", "training.memory auto: chosen when the workers see their GPUs")
            return
        else:
            choice = choose_memory(config, smallest)
            estimate, chosen = choice.estimate, f"training.memory auto: {choice.way}: "
    except DrpoError:  # a finding about the models or the settings
        return
    if smallest is None or estimate.total <= smallest:
        yield Finding("memory", SETTING, "ok", f"{chosen}a step takes {estimate}")
        return
    found = f"{SETTING}: a step takes {estimate}, but a GPU of this machine has {smallest / 2**30:.1f} GiB"
    fix = "lower training.chunk_size, training.groups_in_flight or training.candidates, or set model.dtype to bfloat16"
    yield Finding("memory", SETTING, "wrong", found, f"{fix} and model.gradient_checkpointing to true")


def _find_smallest_gpu() -> int | None:
    """The bytes of the smallest GPU; None if there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(one).total_memory for one in range(torch.cuda.device_count()))
