"""Watch a run while it trains: evaluate its adapter, draw the same pictures again, keep the best, stop what degrades.

Every worker calls `RunWatch.visit` after each step. When an evaluation is due, each takes its share of the prompts, and
the first one writes what was found: evaluations.jsonl, samples/step-N.png and adapter-best/. Nothing here changes what
is trained: the weights and the random state are as before. An evaluation that fails is logged and does not end the run.

Files:
    watch      when to evaluate, what to do with what was found
    evaluator  the scores and the guard metrics of the present weights, by all workers together
    guards     two numbers that no reward sees: diversity, and the distance to the base's pictures
    grid       the fixed pictures
"""

from drpo.watching.watch import RunWatch

__all__ = ["RunWatch"]
