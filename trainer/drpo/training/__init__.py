"""Training without Ray: the step and its pipeline, the trainer's state, checkpoints, metrics, the run's folder.

Read `trainer` first, then `step`. In an offline run, `encoding` encodes the given images once, and `offline` gives them
to the groups instead of a ranking. `build` builds single parts from the settings, `parts` all that a run needs.
`drpo.cluster` runs the loop on the workers of Ray Train. `drpo.checks` finds mistakes in settings before a run starts.
"""
