"""The data of a run: its prompts, its preferences if it is offline, and the random seeds of its steps and groups."""
