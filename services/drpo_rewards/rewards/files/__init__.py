"""Where a reward's files come from: what the reward declares, the model hub, and strict loading."""
