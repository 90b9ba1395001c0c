"""What a run reads: prompts, and the seeds that follow from a place in it."""
