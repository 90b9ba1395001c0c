"""The paper's tables and figures as experiments: `drpo paper table2`.

An experiment is one YAML file in `experiments/`: its runs, what varies between them, what is measured and drawn, and
the paper's own numbers.

Files:
    experiment   what such a file may say
    budget       how the time of training is written
    plan         the runs of an experiment in one world, with seeds and a budget, and what they need
    result       what the runs came to: means over seeds, differences from the base
    page         the page, with the paper's numbers beside ours
"""
