"""`drpo-rewards`, or `python -m drpo_rewards`."""

import sys

from drpo_rewards.process import find_problem


def main() -> None:
    """Run the command line, unless something about the process keeps every command from running."""
    if problem := find_problem():
        print(f"error (bad_config): {problem}", file=sys.stderr)
        sys.exit(2)
    from drpo_rewards.cli import app

    app()


if __name__ == "__main__":
    main()
