"""API keys, which travel as a header of HTTP or as metadata of gRPC."""

from __future__ import annotations

import hashlib
import hmac

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


def digest(key: str) -> bytes:
    """Return the SHA-256 of an API key."""
    return hashlib.sha256(key.encode()).digest()


def key_is_known(key: str | None, digests: list[bytes]) -> bool:
    """Return whether `key` is accepted. The time that this takes does not depend on how much of the key is right."""
    if not digests:
        return True
    offered = digest(key or "")
    matches = [hmac.compare_digest(offered, accepted) for accepted in digests]  # no early exit
    return key is not None and any(matches)
