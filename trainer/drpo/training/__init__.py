"""Training: the step and its pipeline, the workers, checkpoints, and the driver."""
