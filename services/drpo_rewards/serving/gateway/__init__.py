"""The gateway: it reads requests, asks the rewards, and responds."""
