"""`drpo`, or `python -m drpo`."""

import sys

from drpo_rewards.process import find_problem


def main() -> None:
    """Runs the command line, unless something about the process keeps every command from running."""
    if problem := find_problem():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    from drpo.cli import app

    app(prog_name="drpo")


if __name__ == "__main__":
    main()
