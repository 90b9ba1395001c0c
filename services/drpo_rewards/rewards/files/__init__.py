"""A reward's files: their declaration, the model hub, and strict loading."""
