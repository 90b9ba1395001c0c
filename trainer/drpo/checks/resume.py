"""Can the run that shall go on do so with these settings, and from which checkpoint?"""

from __future__ import annotations

from collections.abc import Iterator

from drpo.checks.plan import Plan
from drpo.errors import DrpoError
from drpo.training.resume import find_changes, find_start
from drpo.training.run_folder import read_config
from drpo_rewards.findings import Finding

RESUME = "resume"
"""The name of this check."""


def check_resume(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the run that goes on; as warnings what its user should know."""
    if plan.run_dir is None or not plan.trains:
        return
    try:
        changes = find_changes(read_config(plan.run_dir), plan.config, plan.run_dir)
        for key, change in changes.items():
            fix = f"the steps of {plan.run_dir.name} so far depend on it: leave it out, or start a new run"
            yield Finding(RESUME, key, "wrong", change, fix)
        if not changes:
            notes = find_start(plan.config, plan.run_dir)
            yield Finding(RESUME, "--resume", "ok", f"{plan.run_dir} can go on")
            yield from (Finding(RESUME, "--resume", "warning", note) for note in notes)
    except DrpoError as error:
        yield Finding(RESUME, "--resume", "wrong", str(error))
