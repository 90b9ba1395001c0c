"""`drpo`, or `python -m drpo`."""

import sys

from drpo_rewards.process import find_problem, open_standard_streams


def main() -> None:
    """Runs the command line, unless something about the process keeps every command from running."""
    open_standard_streams()
    if problem := find_problem():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    try:
        from drpo.cli import app

        app(prog_name="drpo")
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
