"""Training on Ray Train.

Files:
    connect    start or join Ray
    launch     the driver: starts the workers and watches them
    worker     the training loop on each worker
    room       how many runs fit on it at once
    gauges     metrics for Prometheus
"""
