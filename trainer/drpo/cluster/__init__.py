"""Training on Ray Train.

Files:
    connect    start or join Ray
    launch     the driver: starts the workers and watches them
    worker     the training loop on each worker
    gauges     metrics for Prometheus
"""
