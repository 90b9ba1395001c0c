"""The sources of preferences, one file each."""
