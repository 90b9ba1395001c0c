"""One-step generators, one file per layout."""
