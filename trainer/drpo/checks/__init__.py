"""What can be known before a start is told before it: one check for `train`, `demo`, `eval`, `sample` and `doctor`.

    plan = Plan(config)
    findings = examine(plan)        # everything that was looked at, with what is wrong
    require(findings)               # raises one error with all that is wrong

Each question has a file and a function from the plan to findings, and a line in `CHECKS`. The checks write nothing, and
load no weights: of models they read only configs and the headers of weight files.

Files:
    plan           what is about to start
    settings       Do the settings of the objective and the feature map exist?
    models         Are the files of the generator and the feature map there, and whole?
    prompts        Can every prompt of training and evaluation be read, tokenized and ranked?
    rewards        Are there the rewards, mixtures and metrics that the settings name?
    ray            Does the Ray that the run shall join answer?
    memory         Does a step fit into a GPU?
    devices        Are there the devices, CPUs and Ray resources?
    outputs        Can everything be written, and is there room for it?
    resume         Can the run that shall go on do so with these settings?
    trackers       Are the experiment trackers installed, and do they take the options?
    surroundings   Do the temporary folder, the home folder and the locale serve?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from drpo.checks.devices import check_devices
from drpo.checks.memory import check_memory
from drpo.checks.models import check_models
from drpo.checks.outputs import check_outputs
from drpo.checks.paths import make_paths_absolute
from drpo.checks.plan import Plan
from drpo.checks.prompts import check_prompts
from drpo.checks.ray import check_ray
from drpo.checks.resume import RESUME, check_resume
from drpo.checks.rewards import check_rewards
from drpo.checks.settings import check_settings
from drpo.checks.surroundings import check_surroundings
from drpo.checks.trackers import check_trackers
from drpo.config import Config, Problem
from drpo.errors import ConfigError
from drpo_rewards.findings import Finding

CHECKS: tuple[Callable[[Plan], Iterator[Finding]], ...] = (
    check_settings,
    check_models,
    check_prompts,
    check_rewards,
    check_devices,
    check_ray,
    check_memory,
    check_outputs,
    check_resume,
    check_trackers,
    check_surroundings,
)

# Settings that say nothing of the others in their section, and sections of which each setting is one.
SEPARATE = ("run", "training", "model.dtype", "model.device")


def examine(plan: Plan, problems: Iterable[Problem] = ()) -> list[Finding]:
    """Looks at everything that a start needs.

    Args:
        plan: what is about to start, with absolute paths (see `make_paths_absolute`).
        problems: settings that are wrong, in whose place the plan has defaults. They come first, and what follows from
            a default is left out: what is found of the setting, or of its section if its keys depend on each other.
    """
    findings = [Finding("settings", problem.key, "wrong", problem.message) for problem in problems]
    spoilt = {_what_depends_on(finding.about) for finding in findings if finding.about}
    for check in CHECKS:
        findings += [finding for finding in check(plan) if not spoilt & {finding.about, finding.about.split(".")[0]}]
    return list(dict.fromkeys(findings))


def _what_depends_on(key: str) -> str:
    section = key.partition(".")[0]
    return key if section in SEPARATE or key in SEPARATE else section


def require(findings: Iterable[Finding]) -> None:
    """Raises an error if something is wrong.

    Raises:
        ConfigError: has a line for each finding that is wrong.
    """
    wrong = [finding for finding in findings if finding.state == "wrong"]
    if wrong:
        raise ConfigError("\n".join(_line(finding) for finding in wrong))


def _line(finding: Finding) -> str:
    return f"{finding.named}; {finding.fix}" if finding.fix else finding.named


def check_config(config: Config) -> Config:
    """Checks a config for a training run, and returns a copy with absolute paths, because workers run in other folders.

    Raises:
        ConfigError: something is wrong; the message has a line for each problem.
    """
    config = make_paths_absolute(config)
    require(examine(Plan(config)))
    return config


__all__ = ["CHECKS", "RESUME", "Plan", "check_config", "examine", "make_paths_absolute", "require"]
