"""`drpo-rewards`, or `python -m drpo_rewards`."""

import sys

from drpo_rewards.process import prepare_process, run_command_line


def main() -> None:
    """Run the command line, unless something about the process keeps every command from running."""
    prepare_process("error (bad_config)")
    try:
        run_command_line("drpo_rewards.cli", "error ({code})", 2)
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
