"""The gateway's own listeners: HTTP by uvicorn and gRPC by grpc.aio, in the event loop that answers the calls.

Pictures come straight to the process that reads them. Through Ray Serve's proxy each body would be copied, pickled and
received once more. The gateways of a service on one machine share its ports: the system gives each connection to one
of them.
"""

from __future__ import annotations

import asyncio

import grpc
import uvicorn

from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.gateway.gateway import Gateway
from drpo_rewards.serving.gateway.grpc import build_server
from drpo_rewards.serving.gateway.http import build_app
from drpo_rewards.serving.gateway.http_protocol import BoundedProtocol
from drpo_rewards.serving.gateway.middleware import NamedService
from drpo_rewards.serving.ports import check_shared_port, open_shared_port, to_url_host

# Seconds for which a connection without requests stays open: longer than clients keep theirs, so that none is closed
# while a client sends its next request.
KEEP_ALIVE_S = 90

# Seconds for which calls in progress may go on when the gateway ends.
DRAIN_S = 4


class Listeners:
    """Listens for one gateway. Used in the gateway's event loop.

    Args:
        gateway: what answers the calls.
        application: the name of the service's Serve application.
        http_port, grpc_port: None for no such listener.
    """

    def __init__(self, gateway: Gateway, application: str, http_port: int | None, grpc_port: int | None) -> None:
        self._gateway = gateway
        self._application = application
        self._http_port, self._grpc_port = http_port, grpc_port
        self._http: uvicorn.Server | None = None
        self._grpc: grpc.aio.Server | None = None
        self._running: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start to answer. Return when all listeners do.

        Raises:
            ConfigError: a port cannot be used.
        """
        host = self._gateway.config.host
        for port in (self._http_port, self._grpc_port):
            if port is not None:
                await asyncio.to_thread(check_shared_port, host, port, self._application)
        if self._grpc_port is not None:
            self._grpc = build_server(self._gateway, self._application)
            try:
                self._grpc.add_insecure_port(f"{to_url_host(host)}:{self._grpc_port}")
            except RuntimeError as error:
                raise ConfigError(f"{host}:{self._grpc_port} is not available for gRPC: {error}") from None
            await self._grpc.start()
            self._running.append(asyncio.create_task(_wait_for_end(self._grpc)))
        if self._http_port is not None:
            listener = open_shared_port(host, self._http_port)
            self._http = _make_http_server(self._gateway, self._application)
            serving = asyncio.create_task(self._http.serve(sockets=[listener]))
            self._running.append(serving)
            while not (self._http.started or serving.done()):
                await asyncio.sleep(0.01)
        self.check()

    def check(self) -> None:
        """Raise an error if a listener has ended."""
        if any(task.done() for task in self._running):
            raise RuntimeError("a listener of the gateway has ended")

    async def close(self) -> None:
        """Accept no more calls, and return when those in progress have ended, after DRAIN_S at the latest."""
        ending = [task for task in self._running if not task.done()]
        if self._http is not None:
            self._http.should_exit = True
        if self._grpc is not None:
            await self._grpc.stop(DRAIN_S)
        if ending:
            await asyncio.wait(ending, timeout=DRAIN_S + 1)


def _make_http_server(gateway: Gateway, application: str) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            NamedService(build_app(gateway), application, f"/{application}"),
            http=BoundedProtocol,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nobody's word is taken for where a request comes from
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )


async def _wait_for_end(server: grpc.aio.Server) -> None:
    await server.wait_for_termination()
