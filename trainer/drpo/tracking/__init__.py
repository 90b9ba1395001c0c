"""Send what a run logs to experiment trackers: curves, pictures, settings, results, and where the adapter is.

    with Trackers(config, run_dir, warn=print) as trackers:
        trackers.log_step(metrics)              # a line of metrics.jsonl
        trackers.log_evaluation(evaluation)     # a line of evaluations.jsonl
        trackers.log_summary(summary)           # the end

The trackers are those of accelerate. They run in the driver, each on a thread of its own: one that is slow, hangs or
breaks neither delays nor ends a run. What they show is in the run's folder anyway.

Files:
    trackers   the threads, and what a tracker gets
    backends   how each tracker is started, and how it takes pictures and results
    options    which options the start of a tracker takes
"""

from drpo.tracking.trackers import Trackers

__all__ = ["Trackers"]
