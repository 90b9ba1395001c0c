"""Base against adapter on held-out prompts, with the same noise for both.

evaluated = evaluate_adapter(config, "runs/NAME/adapter")     # a ranking service runs at config.rewards.address
evaluated.save(run_dir)                                       # evaluation.jsonl and samples/
write_summary(run_dir, evaluated.comparison, ...)             # summary.json
"""

from drpo.evaluation.adapter import AdapterEvaluation, evaluate_adapter
from drpo.evaluation.compare import bootstrap_interval, compare
from drpo.evaluation.evaluate import evaluate, plan
from drpo.evaluation.result import EvaluationResult, ScoredImage, Shot
from drpo.evaluation.summary import read_summary, write_summary

__all__ = [
    "AdapterEvaluation",
    "EvaluationResult",
    "ScoredImage",
    "Shot",
    "bootstrap_interval",
    "compare",
    "evaluate",
    "evaluate_adapter",
    "plan",
    "read_summary",
    "write_summary",
]
