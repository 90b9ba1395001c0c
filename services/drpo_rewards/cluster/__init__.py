"""How this package meets Ray: a local Ray of this machine alone, and calls between deployments."""
