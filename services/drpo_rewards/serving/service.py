"""Start a ranking service on a live Ray, and stop it again."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from drpo_rewards.errors import ConfigError, ServiceUnavailableError
from drpo_rewards.serving.config import RewardConfig, ServiceConfig
from drpo_rewards.serving.gateway import Gateway
from drpo_rewards.serving.grpc import SERVICER_FUNCTIONS
from drpo_rewards.serving.reward import RewardDeployment

DEFAULT_APP = "ranking"


@dataclass
class RunningService:
    """A deployed service and where it can be reached. Also a context manager that stops it."""

    app_name: str
    http_url: str | None
    grpc_address: str | None
    started_serve: bool

    @property
    def handle_address(self) -> str:
        """For clients inside the same Ray cluster; the fastest way in."""
        return f"serve://{self.app_name}"

    def stop(self, *, keep_serve: bool = False) -> None:
        """Take the service down; Ray Serve too, where this started it and nothing else runs on it.

        `keep_serve` leaves that to the end of Ray itself, for whoever is about to end it anyway.
        """
        if not ray.is_initialized():
            return
        serve.delete(self.app_name)
        if self.started_serve and not keep_serve and not serve.status().applications:
            serve.shutdown()

    def __enter__(self) -> RunningService:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def start(
    config: ServiceConfig | Path | str = "shapes",
    *,
    app_name: str = DEFAULT_APP,
    http_port: int | None = None,
    grpc_port: int | None = None,
) -> RunningService:
    """Deploy the service and wait until every replica is up. Needs a Ray that is initialised in this process.

    `http_port` and `grpc_port`: None for no such listener, 0 for any free port. Ports belong to the whole Ray Serve
    of a cluster: where one runs already, its own are used. Raises ConfigError for a configuration that cannot work
    and ServiceUnavailableError where it does not come up within `deploy_timeout_s`.
    """
    settings = ServiceConfig.load(config)
    digests = settings.api_key_digests()
    if not ray.is_initialized():
        raise ServiceUnavailableError("Ray is not running in this process; call ray.init() first")
    _check_resources(settings)
    addresses = _start_serve(settings.host, http_port, grpc_port)
    application = build(settings, digests)
    route = "/" if app_name == DEFAULT_APP else f"/{app_name}"
    target = serve.RunTarget(application, name=app_name, route_prefix=route)
    service = RunningService(app_name, None, None, addresses.started_serve)
    try:
        serve.run_many([target], wait_for_applications_running=False)
        _wait_until_running(app_name, settings.deploy_timeout_s)
    except BaseException:
        service.stop()
        raise
    if addresses.http is not None:
        service.http_url = f"http://{addresses.http}{route.rstrip('/')}"
    if addresses.grpc is not None:
        # A client names the application in its metadata; the address carries that name where it is not the default.
        service.grpc_address = f"grpc://{addresses.grpc}{route.rstrip('/')}"
    return service


def build(settings: ServiceConfig, digests: list[bytes]) -> serve.Application:
    """The Serve application: one deployment per reward, and the gateway in front of them."""
    rewards = {name: _reward_deployment(name, reward) for name, reward in settings.rewards.items()}
    limits = settings.limits
    gateway: serve.Deployment = serve.deployment(  # type: ignore[assignment]  # its overloads miss this form
        serve.ingress()(Gateway),
        name="gateway",
        num_replicas=settings.num_gateways,
        # The gateway itself says who waits and who is refused (admission.py), and has room beyond for health checks.
        max_ongoing_requests=limits.max_ongoing + limits.max_queued + 32,
        max_queued_requests=limits.max_queued,
        backpressure_config={"status_code": 429, "retry_after_s": limits.retry_after_s},
        ray_actor_options={"num_cpus": 0, "resources": settings.gateway_resources},
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
    )
    return gateway.bind(settings.model_dump(mode="json"), digests, rewards)


def _reward_deployment(name: str, reward: RewardConfig) -> serve.Application:
    deployment: serve.Deployment = serve.deployment(  # type: ignore[assignment]
        RewardDeployment,
        name=f"reward-{name}",
        num_replicas=reward.num_replicas,
        max_ongoing_requests=reward.max_ongoing,
        max_queued_requests=reward.max_queued,
        ray_actor_options={"num_cpus": reward.num_cpus, "num_gpus": reward.num_gpus, "resources": reward.resources},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=2,
    )
    return deployment.bind(name, reward.model_dump(mode="json"))


def _check_resources(settings: ServiceConfig) -> None:
    """Serve would wait for ever, and say nothing, for CPUs, GPUs or nodes that the cluster does not have."""
    have = ray.cluster_resources()
    labels = {"CPU": "num_cpus", "GPU": "num_gpus"}
    wanted: dict[str, float] = defaultdict(float)
    for reward in settings.rewards.values():
        one_replica = {"CPU": reward.num_cpus, "GPU": reward.num_gpus, **reward.resources}
        for resource, amount in one_replica.items():
            wanted[resource] += amount * reward.num_replicas
    for resource, amount in wanted.items():
        if amount > have.get(resource, 0.0):
            label = labels.get(resource, "resources")
            raise ConfigError(
                f"the rewards ask for {amount:g} {resource}s together and this Ray cluster has "
                f"{have.get(resource, 0.0):g}; lower `{label}` or `num_replicas`, or give Ray more"
            )


@dataclass(frozen=True)
class _Addresses:
    http: str | None
    grpc: str | None
    started_serve: bool


def _start_serve(host: str, http_port: int | None, grpc_port: int | None) -> _Addresses:
    """Start Ray Serve with these listeners, or take the addresses of the one that runs."""
    running = _running_serve()
    if running is not None:
        _check_port("HTTP", http_port, running.http)
        _check_port("gRPC", grpc_port, running.grpc)
        return running
    listens = http_port is not None or grpc_port is not None
    # Serve's HTTP listener cannot be left out beside gRPC's; it then takes a free port and is as protected.
    http_port = http_port or free_port(host)
    grpc_port = free_port(host) if grpc_port == 0 else grpc_port
    serve.start(
        proxy_location="HeadOnly" if listens else "Disabled",
        http_options=HTTPOptions(host=host, port=http_port),
        grpc_options=gRPCOptions(
            port=grpc_port or 0,
            grpc_servicer_functions=SERVICER_FUNCTIONS if grpc_port is not None else [],
            enable_reflection=False,
        ),
    )
    return _Addresses(
        http=f"{host}:{http_port}" if listens else None,
        grpc=f"{host}:{grpc_port}" if grpc_port is not None else None,
        started_serve=True,
    )


def _running_serve() -> _Addresses | None:
    """The addresses of the cluster's Ray Serve; None where there is none."""
    try:
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return None
    http: Any = ray.get(controller.get_http_config.remote())
    grpc: Any = ray.get(controller.get_grpc_config.remote())
    location: Any = ray.get(controller.get_proxy_location.remote())
    listens = location != ProxyLocation.Disabled
    return _Addresses(
        http=f"{http.host}:{http.port}" if listens else None,
        grpc=f"{http.host}:{grpc.port}" if listens and grpc.grpc_servicer_functions else None,
        started_serve=False,
    )


def _check_port(kind: str, wanted: int | None, running: str | None) -> None:
    if wanted is None:
        return
    if running is None:
        raise ConfigError(f"this cluster's Ray Serve runs without {kind}; shut it down (serve.shutdown()) first")
    if wanted not in (0, int(running.rpartition(":")[2])):
        raise ConfigError(f"this cluster's Ray Serve has {kind} on {running}; port {wanted} cannot be had beside it")


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that is free on `host` just now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _wait_until_running(app_name: str, timeout_s: float) -> None:
    """Wait for every replica; a deployment that cannot start is an error with its own message."""
    deadline = time.monotonic() + timeout_s
    while True:
        application = serve.status().applications.get(app_name)
        if application is not None and application.status == ApplicationStatus.RUNNING:
            return
        failed = application is not None and application.status in (
            ApplicationStatus.DEPLOY_FAILED,
            ApplicationStatus.UNHEALTHY,
        )
        if failed or time.monotonic() > deadline:
            detail = _explain(application)
            if failed:
                raise ConfigError(f"the ranking service could not start.\n{detail}")
            raise ServiceUnavailableError(f"the ranking service was not up after {timeout_s:g} s.\n{detail}")
        time.sleep(0.1)


def _explain(application: ApplicationStatusOverview | None) -> str:
    """What Serve says about an application that is not running, deployment by deployment."""
    if application is None:
        return "nothing was reported"
    messages = [f"{name}: {state.message}" for name, state in application.deployments.items() if state.message]
    return "\n".join(messages) or application.message or "nothing was reported"
