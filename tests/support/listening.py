"""Who listens where."""

from __future__ import annotations

import ipaddress

import psutil


def reachable_from_elsewhere(pid: int) -> list[str]:
    """What a process and those that it started listen at, other than the loopback interface."""
    process = psutil.Process(pid)
    family = {one.pid: one for one in [process, *process.children(recursive=True)]}
    listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.pid in family]
    assert listening, "nobody listens at all"
    return [
        f"{family[one.pid].name()}: {one.laddr.ip}:{one.laddr.port}"
        for one in listening
        if not is_loopback(ipaddress.ip_address(one.laddr.ip))
    ]


def is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
