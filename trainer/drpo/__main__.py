"""`drpo`, or `python -m drpo`."""

import sys

from drpo_rewards.process import prepare_process, run_command_line


def main() -> None:
    """Runs the command line, unless something about the process keeps every command from running."""
    prepare_process("error")
    try:
        run_command_line("drpo.cli", "error", 1, prog_name="drpo")
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
