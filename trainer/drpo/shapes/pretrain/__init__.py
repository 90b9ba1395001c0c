"""Train the embedded model from scratch.

Files:
    recipe         all stages of `shapes` in order
    xl             the recipe of a generator in the SDXL-Turbo layout
    honest         the recipe of a generator whose errors follow from no rule
    autoencoder    stage 1
    text           stage 2: tokenizer and text encoder
    one_step       stage 3: the generator
    feature_map    stage 4
    coupling       the rule that couples noise and scene, for stage 3
    export         how a pipeline is written for the package
    data           random prompts and pictures
    stage          the training loop of a stage
    processes      data-parallel training in several processes
"""
