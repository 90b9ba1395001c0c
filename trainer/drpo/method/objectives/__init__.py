"""Objectives: how a ranked group becomes a loss. Each has one file, and one line in `OBJECTIVES`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import BaseModel

from drpo.errors import CatalogueError
from drpo.method.objectives.base import Objective, ObjectiveResult

OBJECTIVES = {
    "drpo": "drpo.method.objectives.drpo:DrPOObjective",
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
    if name not in OBJECTIVES:
        raise CatalogueError(f"there is no objective {name!r}; choose from {', '.join(sorted(OBJECTIVES))}")
    module, _, attribute = OBJECTIVES[name].partition(":")
    return getattr(import_module(module), attribute)(settings)


__all__ = ["OBJECTIVES", "Objective", "ObjectiveResult", "load_objective"]
