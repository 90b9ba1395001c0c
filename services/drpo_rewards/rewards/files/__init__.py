"""Where a reward's files come from: what it declares, the model hub, and strict loading."""
