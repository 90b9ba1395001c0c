"""The errors of `drpo`. They share one base class, and each is also the built-in error that a caller would expect.

Each takes one argument, its message, so it can be pickled and sent to another process. A message says what was wrong,
where, and what to do.
"""

from __future__ import annotations


class DrpoError(Exception):
    """Base of every error that `drpo` raises on purpose."""


class ConfigError(DrpoError, ValueError):
    """A setting is unknown, out of range, or contradicts another setting."""


class RunInUseError(ConfigError):
    """Another process trains this run."""


class ShapeError(DrpoError, ValueError):
    """A tensor has the wrong rank, size or dtype for a function."""


class ModelLoadError(DrpoError, OSError):
    """A model folder or checkpoint is missing, incomplete, or has an unsupported layout."""


class UnsupportedModelError(DrpoError, NotImplementedError):
    """A model was found and recognized, but this project does not support it yet."""


class DownloadError(DrpoError, ConnectionError):
    """A file could not be downloaded, or it is not the file that it should be."""


class CatalogueError(DrpoError, LookupError):
    """A name (of an objective, a feature map, ...) is not in its catalogue."""


class TrainingStoppedError(DrpoError, RuntimeError):
    """A run ended before its last step, and restarting its workers would not help."""


class StorageError(DrpoError, OSError):
    """A file of a run could not be written, for example because the disk is full."""


class EvaluationError(DrpoError, ValueError):
    """An evaluation has nothing to measure, or two evaluations cannot be compared."""
