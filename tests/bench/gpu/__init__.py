"""What one GPU does: the parts of a training step, the rewards, a run and the service, with random weights.

Launch: make bench-gpu, or PYTHONPATH=tests python -m bench.gpu --out runs/bench-gpu [--only rewards,train] [--small]

The networks have the sizes of the public models. Their weights are random, so nothing is downloaded, and the scores
and pictures mean nothing. Each part runs in a process of its own, with a time limit. Its rows are in `results.json`
and `results.md` as soon as they are measured. `--small` runs the same code with tiny networks, on a CPU too.

Files:
    parts, runner    which parts there are, and how they are run
    record, measure  rows and their tables; seconds, memory, FLOPs
    sizes            the sizes of the public models
    checkpoints      files of random weights in these sizes
    peak, generator, rewards, figure5, train, service, speed   the parts
    hpsv3_pixels     HPSv3 as a differentiable function of pixels, for figure5
"""
