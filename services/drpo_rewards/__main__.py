"""`drpo-rewards`, or `python -m drpo_rewards`."""

import sys

from drpo_rewards.process import prepare_process


def main() -> None:
    """Run the command line, unless something about the process keeps every command from running."""
    prepare_process("error (bad_config)")
    try:
        from drpo_rewards.cli import app

        app()
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
