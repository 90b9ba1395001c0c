"""Which options the start of a tracker takes, so that a misspelt one is found before a run and not in it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from drpo_rewards.api.suggestions import did_you_mean


@dataclass(frozen=True)
class _Start:
    """What takes the options of a tracker.

    Attributes:
        takes: the function or class, as "module:name".
        ours: those of its arguments that are no options, and what sets them.
        more: options that it does not take itself, see `drpo.tracking.backends`.
    """

    takes: str
    ours: Mapping[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()


_PROJECT = "trackers.project"
_STARTS = {
    "tensorboard": _Start("torch.utils.tensorboard:SummaryWriter", {"log_dir": "the folder of the run"}),
    "wandb": _Start("wandb:init", {"project": _PROJECT}),
    "mlflow": _Start("accelerate.tracking:MLflowTracker", {"experiment_name": _PROJECT}, ("tracking_uri",)),
    "swanlab": _Start("swanlab:init", {"project": _PROJECT}),
    "trackio": _Start("trackio:init", {"project": _PROJECT}),
    "comet_ml": _Start("comet_ml:start", {"project_name": _PROJECT}),
    "aim": _Start("aim:Run", {"repo": "the folder of the run"}),
    "clearml": _Start("clearml:Task.init"),
    "dvclive": _Start("dvclive:Live"),
}


def find_wrong_options(name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the options of a tracker that is installed, as far as its signature says it.

    Args:
        name: the tracker.
        options: its line of `trackers.options`.
    """
    if name not in _STARTS or not options:
        return
    start = _STARTS[name]
    module, _, path = start.takes.partition(":")
    function: Any = import_module(module)
    for part in path.split("."):
        function = getattr(function, part)
    parameters = inspect.signature(function).parameters
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    known = [*parameters, *start.more]
    for option, value in options.items():
        if option in start.ours:
            yield f"{option} is no option, because {start.ours[option]} sets it"
        elif option in known:
            choices = _find_choices(function, option)
            if choices and value not in choices:
                names = [choice for choice in choices if isinstance(choice, str)]
                yield f"{option} = {value!r}{did_you_mean(str(value), names)}; it takes {', '.join(names)}"
        elif not takes_any:
            there = [one for one in known if one not in start.ours]
            yield f"there is no option {option!r}{did_you_mean(option, there)}; it takes {', '.join(there)}"


def _find_choices(function: Any, option: str) -> tuple[Any, ...]:
    """The only values that an argument may have, if its type says so, such as wandb's `mode`; else none."""
    try:
        hint = get_type_hints(function).get(option)
    except (NameError, TypeError):  # it has types that only a type checker knows
        return ()
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not all(kind is NoneType or get_origin(kind) is Literal for kind in kinds):
        return ()
    return (*(value for kind in kinds if kind is not NoneType for value in get_args(kind)), None)
