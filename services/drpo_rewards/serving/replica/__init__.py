"""A reward's replica: it turns questions into scores, in batches across requests."""
