"""Ray Train around the training loop: `connect` starts or joins Ray, `launch` is the driver, `worker` its workers."""
