"""Drifting Preference Optimization for one-step text-to-image generators."""

import sys

if sys.version_info < (3, 11):
    raise ImportError("the trainer needs Python 3.11 or newer; on Python 3.10 only drpo_rewards' client works")

__version__ = "0.1.0"
