"""A table of several models on several sets of prompts: `drpo eval --row NAME=WHAT ...`.

Everything lies in one folder. A second call goes on where the first one stopped, and makes the table again from it.

Files:
    named         an option given several times, each time for a thing with a name
    row           what a row is, and how it is written
    prompt_set    what a set of prompts is, and how it is written
    painters      what generates the pictures of a row
    pictures      pictures on the disk, with a manifest
    scores        scores on the disk
    statistics    means, standard errors and paired differences
    distribution  FID and KID
    render        JSON, CSV, Markdown and LaTeX
    grid          matched pictures side by side
    run           all of it
"""
