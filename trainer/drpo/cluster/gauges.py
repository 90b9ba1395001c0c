"""The metrics of a run for Prometheus, through Ray: each node's agent has them on its metrics port, as `ray_drpo_...`.

metrics.jsonl stays the record of a run; these are for watching it, beside the cluster and the ranking service.
"""

from __future__ import annotations

from typing import Any

GAUGES = {
    "step": "Optimizer steps done.",
    "loss": "The objective of the last step.",
    "reward_mean": "Mean raw reward of the last step's candidates.",
    "reward_std": "Spread of the raw reward within a group, in the mean.",
    "grad_norm": "Norm of the adapter's gradient before it was clipped.",
    "images_per_s": "Candidates of the last step by its seconds.",
    "groups": "Groups of the last step.",
    "groups_dropped": "Groups of the last step that could not be ranked.",
    "groups_tied": "Groups of the last step whose candidates were all scored alike.",
}


class RunGauges:
    """Shows each step's metrics under the run's name. Used on one worker, inside Ray."""

    def __init__(self, run: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._tags = {"run": run}
        self._gauges = {name: Gauge(f"drpo_run_{name}", text, ("run",)) for name, text in GAUGES.items()}
        self._images = Counter("drpo_run_images", "Candidates generated.", ("run",))
        self._stages = Gauge("drpo_run_stage_seconds", "Seconds of the last step, by stage.", ("run", "stage"))

    def show(self, metrics: dict[str, Any]) -> None:
        """One step's metrics, as `DrPOTrainer.run_step` returns them."""
        for name, gauge in self._gauges.items():
            if metrics[name] is not None:
                gauge.set(metrics[name], self._tags)
        if metrics["images"]:  # a counter takes no 0
            self._images.inc(metrics["images"], self._tags)
        for stage, seconds in metrics["seconds"].items():
            self._stages.set(seconds, {**self._tags, "stage": stage})
