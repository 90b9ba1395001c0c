"""Ways to reach a ranking service, behind one small interface; the address' scheme picks one."""

from drpo_rewards.client.transports.base import Transport, open_transport

__all__ = ["Transport", "open_transport"]
