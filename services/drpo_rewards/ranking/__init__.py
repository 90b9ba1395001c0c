"""How scores become an order: mixtures, pairs, and tournaments of a judge. Pure functions."""
