"""Tiny random checkpoints in the layouts of the public ones, one file per model."""
