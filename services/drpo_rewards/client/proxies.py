"""What is wrong with the proxies and certificates that the environment names: the user's mistake, told as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drpo_rewards.errors import ConfigError

VARIABLES = "$HTTP_PROXY, $HTTPS_PROXY, $ALL_PROXY, $NO_PROXY, $SSL_CERT_FILE or $SSL_CERT_DIR"


@contextmanager
def environment_is_read() -> Iterator[None]:
    """Within this block httpx may read the environment's proxies and certificates, which it does when it is built.

    Raises:
        ConfigError: it cannot use one of them.
    """
    import httpx

    try:
        yield
    except (ValueError, OSError, ImportError, httpx.InvalidURL) as error:
        # ImportError: a SOCKS proxy needs one more package. Its message names it.
        raise ConfigError(
            f"a proxy or certificate that the environment names cannot be used: {error}; correct {VARIABLES}"
        ) from error
