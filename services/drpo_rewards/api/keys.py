"""API keys, which travel as a header of HTTP or as metadata of gRPC."""

from __future__ import annotations

from drpo_rewards.errors import ConfigError


def check_key(text: str, where: str) -> str:
    """Check that a key can travel in a header, and return it without the line end that a file leaves on it.

    Args:
        text: the key.
        where: where it comes from, for the message. The key itself is never printed.

    Raises:
        ConfigError: it has characters that headers cannot carry.
    """
    key = text.removesuffix("\n").removesuffix("\r")
    for position, letter in enumerate(key, 1):
        if not "!" <= letter <= "~":
            kind = "a space or control character" if letter.isspace() or not letter.isprintable() else "not ASCII"
            raise ConfigError(
                f"{where}: character {position} is {kind}; headers carry only ASCII letters, digits and punctuation, "
                "so use another key"
            )
    return key
