"""Are the trackers there that the settings name, and do they take the options?"""

from __future__ import annotations

from collections.abc import Iterator

from drpo.checks.plan import Plan
from drpo.tracking.options import find_wrong_options
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.findings import Finding

_PACKAGES = {"mlflow": "mlflow", "comet_ml": "comet-ml"}
"""The names of packages that differ from the tracker's own, or have a smaller form."""


def check_trackers(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the experiment trackers."""
    use = plan.config.trackers.use
    if not plan.trains or not use:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(name) for name in get_available_trackers()}
    for name in use:
        if name not in LOGGER_TYPE_TO_CLASS:
            found = f"trackers.use: there is no tracker {name!r}{did_you_mean(name, LOGGER_TYPE_TO_CLASS)}"
            fix = f"choose from {', '.join(LOGGER_TYPE_TO_CLASS)}"
            yield Finding("trackers", "trackers.use", "wrong", found, fix)
        elif name not in available:
            found = f"trackers.use: {name} is not installed"
            fix = f"pip install {_PACKAGES.get(name, name)}, or leave it out"
            yield Finding("trackers", "trackers.use", "wrong", found, fix)
        else:
            yield Finding("trackers", "trackers.use", "ok", name)
            for problem in find_wrong_options(name, plan.config.trackers.options.get(name, {})):
                yield Finding("trackers", "trackers.options", "wrong", f"trackers.options.{name}: {problem}")
