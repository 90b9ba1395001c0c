"""How Ray is started, kept to this machine, and called: its environment, a local Ray, and deployment handles."""
