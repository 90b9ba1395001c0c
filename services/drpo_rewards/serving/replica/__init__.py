"""From a question to scores: one reward's replica, and its batches across requests."""
