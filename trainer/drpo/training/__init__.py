"""Training without Ray: the step and its pipeline, the trainer's state, checkpoints, metrics, the run's folder.

Read `trainer` first, then `step`. `build` makes the parts from the settings, `check` finds mistakes before a run
starts, and `drpo.cluster` runs it all on the workers of Ray Train.
"""
