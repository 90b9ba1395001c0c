"""The ranking contract, its client, and the rewards behind it."""
