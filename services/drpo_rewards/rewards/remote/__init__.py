"""Someone else's scorer: a reward that asks another HTTP service."""
