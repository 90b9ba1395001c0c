"""Objectives: how a ranked group becomes a loss. Each has one file, and one line in `OBJECTIVES`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import BaseModel

from drpo.errors import CatalogueError
from drpo.method.objectives.base import Objective, ObjectiveResult

OBJECTIVES = {
    "dpo": "drpo.method.objectives.dpo:DPOObjective",
    "draft": "drpo.method.objectives.draft:DRaFTObjective",
    "drpo": "drpo.method.objectives.drpo:DrPOObjective",
    "grpo": "drpo.method.objectives.grpo:GRPOObjective",
    "pso": "drpo.method.objectives.pso:PSOObjective",
    "vgg_flow": "drpo.method.objectives.vgg_flow:VGGFlowObjective",
}


def load_objective(name: str, settings: Mapping[str, Any] | BaseModel | None = None) -> Objective:
    """Builds an objective.

    Args:
        name: a key of `OBJECTIVES`.
        settings: a mapping, the objective's own pydantic model, or None for the defaults.

    Raises:
        CatalogueError: there is no objective of that name.
        pydantic.ValidationError: the settings are wrong.
    """
    return objective_class(name)(settings)


def objective_class(name: str) -> Any:
    """The class of an objective.

    Raises:
        CatalogueError: there is no objective of that name.
    """
    if name not in OBJECTIVES:
        raise CatalogueError(f"there is no objective {name!r}; choose from {', '.join(sorted(OBJECTIVES))}")
    module, _, attribute = OBJECTIVES[name].partition(":")
    return getattr(import_module(module), attribute)


__all__ = ["OBJECTIVES", "Objective", "ObjectiveResult", "load_objective", "objective_class"]
