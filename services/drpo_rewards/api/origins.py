"""Origins of web pages and host names, as a config names them and as browsers send them."""

from __future__ import annotations

import re


def check_origin(origin: str) -> str:
    """Return an origin that can be equal to a browser's header `Origin`, letter by letter; `*` stands for all.

    Raises:
        ValueError: no browser sends it.
    """
    usual_port = re.fullmatch(r"https://.*:443|http://.*:80", origin)
    if origin not in ("*", "null") and (usual_port or not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+", origin)):
        raise ValueError(
            f"{origin!r} is no origin as browsers send it; write scheme and host in small letters, without the usual "
            "port and without a slash at the end, such as https://my.site"
        )
    return origin


def check_host(name: str) -> str:
    """Return a host name without scheme, port and path; `*` stands for all.

    Raises:
        ValueError: it has one of these.
    """
    if not re.fullmatch(r"[^/:@?#\s]+", name):
        raise ValueError(f"{name!r} is not a host name; write it without scheme, port and path, such as rank.my.site")
    return name
