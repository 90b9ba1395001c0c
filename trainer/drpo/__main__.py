"""`drpo`, or `python -m drpo`."""

import sys

from drpo_rewards.process import prepare_process


def main() -> None:
    """Runs the command line, unless something about the process keeps every command from running."""
    prepare_process("error")
    try:
        from drpo.cli import app

        app(prog_name="drpo")
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
