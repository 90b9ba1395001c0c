"""Training without Ray: the step and its pipeline, the trainer's state, checkpoints, metrics, the run's folder.

Read `trainer` first, then `step`. `build` builds the parts from the settings, `check` finds mistakes in the settings
before a run starts, and `drpo.cluster` runs the training loop on the workers of Ray Train.
"""
