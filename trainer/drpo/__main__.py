"""`python -m drpo`."""

from drpo.cli import app

app(prog_name="drpo")
