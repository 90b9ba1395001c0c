"""Objectives: how a ranked group becomes a loss. One file each, one line in the catalogue."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from drpo.errors import CatalogueError
from drpo.method.objectives.base import Objective, ObjectiveResult

OBJECTIVES = {
    "drpo": "drpo.method.objectives.drpo:DrPOObjective",
}


def load_objective(name: str, settings: Any = None) -> Objective:
    """The objective `name`, built from its settings (a mapping, its pydantic model, or None for the defaults)."""
    if name not in OBJECTIVES:
        raise CatalogueError(f"no objective {name!r}; there are {', '.join(sorted(OBJECTIVES))}")
    module, _, attribute = OBJECTIVES[name].partition(":")
    return getattr(import_module(module), attribute)(settings)


__all__ = ["OBJECTIVES", "Objective", "ObjectiveResult", "load_objective"]
