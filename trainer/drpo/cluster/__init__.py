"""Ray Train around the training loop: the driver's side, the workers, and Ray's environment."""
