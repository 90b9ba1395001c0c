"""The metrics of a run for Prometheus. Ray exports them on the metrics port of each node, as `ray_drpo_run_...`.

metrics.jsonl is the record of a run. These gauges show the run on the dashboard, next to the metrics of the cluster and
of the ranking service.
"""

from __future__ import annotations

from typing import Any

GAUGES = {
    "step": "Optimizer steps done.",
    "loss": "The objective of the last step.",
    "combined_mean": "Mean combined score within a group, in the last step.",
    "combined_std": "Standard deviation of the combined score within a group, in the last step.",
    "grad_norm": "Norm of the adapter's gradient before it was clipped.",
    "images_per_s": "Candidates of the last step divided by its seconds.",
    "groups": "Groups of the last step.",
    "groups_dropped": "Groups of the last step that could not be ranked.",
    "groups_tied": "Groups of the last step whose candidates all had the same score.",
}

REWARD_GAUGES = {
    "reward": ("reward_mean", "Mean raw score of the last step's candidates, by reward."),
    "reward_std": ("reward_std", "Standard deviation of a reward's raw scores within a group, in the last step."),
}
"""Prefix of a key in the metrics (see `drpo.training.tally`) to a gauge's name and description."""


class RunGauges:
    """Exports each step's metrics under the run's name. One worker does this, inside Ray."""

    def __init__(self, run: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._tags = {"run": run}
        self._gauges = {name: Gauge(f"drpo_run_{name}", text, ("run",)) for name, text in GAUGES.items()}
        self._rewards = {
            prefix: Gauge(f"drpo_run_{name}", text, ("run", "reward")) for prefix, (name, text) in REWARD_GAUGES.items()
        }
        self._metric = Gauge(
            "drpo_run_metric", "Mean of a metric that a reward declares, in the last step.", ("run", "reward", "metric")
        )
        self._images = Counter("drpo_run_images", "Candidates generated.", ("run",))
        self._stages = Gauge("drpo_run_stage_seconds", "Seconds of the last step, by stage.", ("run", "stage"))

    def show(self, metrics: dict[str, Any]) -> None:
        """Exports one step's metrics, as `DrPOTrainer.run_step` returns them."""
        for name, gauge in self._gauges.items():
            if metrics[name] is not None:
                gauge.set(metrics[name], self._tags)
        for name, value in metrics.items():
            prefix, _, rest = name.partition("/")
            if prefix in self._rewards:
                self._rewards[prefix].set(value, {**self._tags, "reward": rest})
            elif prefix == "metric":
                reward, _, metric = rest.rpartition("/")
                self._metric.set(value, {**self._tags, "reward": reward, "metric": metric})
        if metrics["images"]:  # a counter refuses 0
            self._images.inc(metrics["images"], self._tags)
        for stage, seconds in metrics["seconds"].items():
            self._stages.set(seconds, {**self._tags, "stage": stage})
