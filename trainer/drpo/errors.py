"""Errors of `drpo`: one base class, and each error is also the built-in that a caller would expect.

All of them are plain exceptions with one message argument, so they can be pickled and cross process boundaries.
A message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations


class DrpoError(Exception):
    """Base of every error that `drpo` raises on purpose."""


class ConfigError(DrpoError, ValueError):
    """A setting is unknown, out of range, or contradicts another one."""


class ShapeError(DrpoError, ValueError):
    """A tensor has the wrong rank, size or dtype for the function it was given to."""


class ModelLoadError(DrpoError, OSError):
    """A model folder or checkpoint is missing, incomplete, or in a layout that is not supported."""


class UnsupportedModelError(DrpoError, NotImplementedError):
    """A model was found and understood, but this project cannot run it (yet)."""


class CatalogueError(DrpoError, LookupError):
    """A name (of an objective, a feature map, ...) is not in its catalogue."""


class TrainingStoppedError(DrpoError, RuntimeError):
    """A run ended before its last step for a reason that starting it again would not cure."""


class EvaluationError(DrpoError, ValueError):
    """An evaluation has nothing to measure, or two of them cannot be compared."""


class ReportError(DrpoError, ValueError):
    """A run's folder lacks what its report is made of."""
