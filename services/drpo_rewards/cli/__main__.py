"""python -m drpo_rewards.cli"""

from drpo_rewards.cli import app

app()
