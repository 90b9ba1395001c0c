"""What a training step of a config costs on this machine, phase by phase.

Files:
    counting    what operations do: floating point operations, bytes, memory
    clock       adds up a step's seconds, operations, bytes and memory by phase
    profile     runs a few steps of a config in this process, and measures them

The phases are those that `drpo.training.phases` names.
"""

from __future__ import annotations

from drpo.profiling.profile import PhaseCost, Profile, measure_matmul_peak, profile

__all__ = ["PhaseCost", "Profile", "measure_matmul_peak", "profile"]
