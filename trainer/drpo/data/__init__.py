"""What a run reads: prompts, and the random seeds of its steps and groups."""
