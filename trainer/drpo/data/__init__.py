"""The data of a run: its prompts, and the random seeds of its steps and groups."""
