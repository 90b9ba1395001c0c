"""Compare an adapter with its base on held-out prompts, from the same noise.

    evaluated = evaluate_adapter(config, "runs/NAME/adapter")     # a ranking service runs at config.rewards.address
    evaluated.save(run_dir)                                       # evaluation.jsonl, evaluation.json and samples/
    write_summary(run_dir, config, seconds=...)                   # summary.json

Files:
    plan       which images to generate: prompts and noise seeds
    metric     which number of a reward to show
    evaluate   generate the images and score them
    diversity  how different the images of one prompt are
    result     the scored images
    compare    differences between base and adapter, with intervals
    judging    which of two models makes the better picture, by a judge
    table/     several models on several sets of prompts
    adapter    the whole evaluation, from a run's settings
    summary    summary.json
"""

from drpo.evaluation.adapter import AdapterEvaluation, evaluate_adapter
from drpo.evaluation.compare import bootstrap_interval, compare
from drpo.evaluation.diversity import PictureFeatures, measure_diversity
from drpo.evaluation.evaluate import evaluate
from drpo.evaluation.metric import ShownMetric
from drpo.evaluation.plan import PlannedImage, plan_images
from drpo.evaluation.result import EvaluationResult, ScoredImage
from drpo.evaluation.summary import read_summary, write_summary

__all__ = [
    "AdapterEvaluation",
    "EvaluationResult",
    "PictureFeatures",
    "PlannedImage",
    "ScoredImage",
    "ShownMetric",
    "bootstrap_interval",
    "compare",
    "evaluate",
    "evaluate_adapter",
    "measure_diversity",
    "plan_images",
    "read_summary",
    "write_summary",
]
