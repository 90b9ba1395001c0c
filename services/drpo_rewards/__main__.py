"""`drpo-rewards`, or `python -m drpo_rewards`."""

import sys

from drpo_rewards.process import find_problem, open_standard_streams


def main() -> None:
    """Run the command line, unless something about the process keeps every command from running."""
    open_standard_streams()
    if problem := find_problem():
        print(f"error (bad_config): {problem}", file=sys.stderr)
        sys.exit(2)
    try:
        from drpo_rewards.cli import app

        app()
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
