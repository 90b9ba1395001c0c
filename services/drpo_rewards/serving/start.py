"""Start a ranking service on a running Ray, upgrade one of its rewards, and stop it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatus

from drpo_rewards.cluster import memory
from drpo_rewards.errors import ConfigError, ServiceUnavailableError
from drpo_rewards.serving.config import RewardConfig, ServiceConfig
from drpo_rewards.serving.gateway.deployment import GatewayDeployment
from drpo_rewards.serving.listeners import Ports, choose_ports, start_serve
from drpo_rewards.serving.replica.replica import RewardReplica

DEFAULT_APP = "ranking"

# The name, because whoever calls a reward imports the class: gateways, training workers, and Serve's controller.
ROUTER = "drpo_rewards.cluster.fewest_calls.FewestCalls"

# Where gateways run unless the config says it: their addresses must be known.
ON_HEAD = {"node:__internal_head__": 0.001}


@dataclass
class RunningService:
    """A deployed service, which a `with` block stops at its end.

    Attributes:
        app_name: the name of its Serve application.
        http_url, grpc_address: where clients reach it; None if it has no such listener.
        started_serve: whether Ray Serve was started for this service.
        reward_apps: the names of the Serve applications of rewards with `own_app`.
        ports: keeps other services from its ports until it stops; None if it has none.
    """

    app_name: str
    http_url: str | None
    grpc_address: str | None
    started_serve: bool
    reward_apps: list[str] = field(default_factory=list)
    ports: Ports | None = None

    @property
    def handle_address(self) -> str:
        """The address for clients inside the same Ray cluster, which have the fastest transport."""
        return f"serve://{self.app_name}"

    def stop(self, *, keep_serve: bool = False) -> None:
        """Stop the service, and Ray Serve too if `start` started it and nothing else runs on it.

        Args:
            keep_serve: leave Ray Serve running, because Ray itself ends next.
        """
        if self.ports is not None:
            self.ports.release()
        if not ray.is_initialized():
            return
        for name in (self.app_name, *self.reward_apps):
            serve.delete(name)
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
    on_up: Callable[[str], None] = lambda deployment: None,
) -> RunningService:
    """Deploy the service and wait until every replica is up. Ray must be initialised in this process.

    Args:
        config: a ServiceConfig, a YAML file, or the name of a shipped config.
        app_name: the name of the Serve application.
        http_port, grpc_port: None for no such listener, 0 for any free port.
        on_up: called with the name of each deployment when it is up; large models take minutes.

    Raises:
        ConfigError: the configuration cannot work.
        ServiceUnavailableError: Ray is not initialised, or the service is not up within `deploy_timeout_s`.
    """
    settings = ServiceConfig.load(config)
    digests = settings.api_key_digests()
    if not ray.is_initialized():
        raise ServiceUnavailableError("Ray is not running in this process; call ray.init() first")
    _check_resources(settings)
    ports = choose_ports(settings.host, http_port, grpc_port)
    try:
        started_serve = start_serve()
    except BaseException:
        ports.release()
        raise
    targets = _reward_targets(settings, app_name)
    reward_apps = [target.name for target in targets]
    application = build(settings, digests, app_name, ports.http, ports.grpc)
    targets.append(serve.RunTarget(application, name=app_name, route_prefix=None))
    service = RunningService(app_name, None, None, started_serve, reward_apps, ports)
    try:
        serve.run_many(targets, wait_for_applications_running=False)
        for target in targets:
            _wait_until_running(target.name, settings.deploy_timeout_s, on_up)
    except BaseException:
        service.stop()
        raise
    # A client takes the application's name from the address if it is not the default.
    path = "" if app_name == DEFAULT_APP else f"/{app_name}"
    if ports.http is not None:
        service.http_url = f"http://{ports.host}:{ports.http}{path}"
    if ports.grpc is not None:
        service.grpc_address = f"grpc://{ports.host}:{ports.grpc}{path}"
    return service


def upgrade(
    config: ServiceConfig | Path | str,
    reward: str,
    *,
    app_name: str = DEFAULT_APP,
    on_up: Callable[[str], None] = lambda deployment: None,
) -> None:
    """Deploy one reward with `own_app` again, as `config` now describes it, and wait until it is up.

    The gateway and all other rewards keep running. With several replicas or with `max_surge_percent`, no call waits. A
    single replica stops before the new one starts, and calls wait for it as long as the reward's deadline allows.

    Raises:
        ConfigError: the configuration cannot work, or the service does not run with it.
        ServiceUnavailableError: the reward is not up within `deploy_timeout_s`.
    """
    settings = ServiceConfig.load(config)
    name = reward_app_name(app_name, reward)
    targets = [target for target in _reward_targets(settings, app_name) if target.name == name]
    if not targets:
        raise ConfigError(
            f"{reward!r} is not a reward with `own_app: true` in this config, so it cannot be upgraded separately"
        )
    if name not in serve.status().applications:
        raise ConfigError(f"this Ray Serve has no application {name!r}; start the service with this config first")
    serve.run_many(targets, wait_for_applications_running=False)
    _wait_until_running(name, settings.deploy_timeout_s, on_up)


def _reward_targets(settings: ServiceConfig, app_name: str) -> list[serve.RunTarget]:
    return [
        serve.RunTarget(build_reward(name, reward), name=reward_app_name(app_name, name), route_prefix=None)
        for name, reward in settings.rewards.items()
        if reward.own_app
    ]


def reward_app_name(app_name: str, reward: str) -> str:
    """Return the name of the Serve application of a reward with `own_app`."""
    return f"{app_name}-{reward}"


def build(
    settings: ServiceConfig, digests: list[bytes], app_name: str, http_port: int | None, grpc_port: int | None
) -> serve.Application:
    """Build the Serve application: the gateway, and a deployment for each reward.

    Rewards with `own_app` are not part of it: `build_reward` builds their applications, and the gateway finds them by
    name. The gateway listens on the machine that it runs on, by default that of Ray's head.
    """
    rewards = {
        name: reward_app_name(app_name, name) if reward.own_app else build_reward(name, reward)
        for name, reward in settings.rewards.items()
    }
    limits = settings.limits
    gateway: serve.Deployment = serve.deployment(  # type: ignore[assignment]  # its overloads miss this form
        GatewayDeployment,
        name="gateway",
        num_replicas=settings.num_gateways,
        # The gateway itself decides who waits and who is refused (admission.py); 32 more leave room for health checks.
        max_ongoing_requests=limits.max_ongoing + limits.max_queued + 32,
        max_queued_requests=limits.max_queued,
        ray_actor_options={
            "num_cpus": 0,
            "resources": settings.gateway_resources or ON_HEAD,
            "runtime_env": _gateway_environment(),
        },
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
    )
    return gateway.bind(settings.model_dump(mode="json"), digests, rewards, http_port, grpc_port)


def _gateway_environment() -> dict[str, Any]:
    """The job's runtime_env, which Serve gives to deployments that have none, and what the gateway's process needs."""
    of_job = dict(ray.get_runtime_context().runtime_env) if ray.is_initialized() else {}
    return of_job | {"env_vars": memory.gateway_environment(of_job.get("env_vars", {}))}


def build_reward(name: str, reward: RewardConfig) -> serve.Application:
    """Build the deployment of one reward. For a reward with `own_app` it is the whole application."""
    deployment: serve.Deployment = serve.deployment(  # type: ignore[assignment]
        RewardReplica,
        name=f"reward-{name}",
        num_replicas=reward.num_replicas if reward.autoscaling is None else None,
        autoscaling_config=reward.autoscaling,
        max_surge_percent=reward.max_surge_percent,
        max_ongoing_requests=reward.max_ongoing,
        max_queued_requests=reward.max_queued,
        ray_actor_options={
            "num_cpus": reward.num_cpus,
            "num_gpus": reward.num_gpus,
            "resources": reward.resources,
            **({"runtime_env": reward.runtime_env} if reward.runtime_env else {}),
        },
        health_check_period_s=5,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=2,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),  # type: ignore[arg-type]
    )
    return deployment.bind(name, reward.model_dump(mode="json"))


def _check_resources(settings: ServiceConfig) -> None:
    """Check that the cluster has the CPUs, GPUs and custom resources. Otherwise Serve would wait forever, silently."""
    available = ray.cluster_resources()
    needed: Counter[str] = Counter()
    for reward in settings.rewards.values():
        per_replica = {"CPU": reward.num_cpus, "GPU": reward.num_gpus, **reward.resources}
        needed.update({name: amount * reward.first_replicas for name, amount in per_replica.items()})
    for name, amount in needed.items():
        if amount > available.get(name, 0.0):
            key, unit = {"CPU": ("num_cpus", "CPUs"), "GPU": ("num_gpus", "GPUs")}.get(name, ("resources", name))
            raise ConfigError(
                f"the rewards ask for {amount:g} {unit} in total, but this Ray cluster has "
                f"{available.get(name, 0.0):g}; lower `{key}` or the replicas, or give Ray more"
            )


def _wait_until_running(app_name: str, timeout_s: float, on_up: Callable[[str], None]) -> None:
    """Wait until every replica is up. Raise an error with the messages of the deployments that cannot start."""
    deadline = time.monotonic() + timeout_s
    up: set[str] = set()
    while True:
        application = serve.status().applications.get(app_name)
        states = application.deployments.items() if application is not None else ()
        for name in [name for name, state in states if state.status == DeploymentStatus.HEALTHY and name not in up]:
            up.add(name)
            on_up(name)
        if application is not None and application.status == ApplicationStatus.RUNNING:
            return
        failed = application is not None and application.status in (
            ApplicationStatus.DEPLOY_FAILED,
            ApplicationStatus.UNHEALTHY,
        )
        if failed or time.monotonic() > deadline:
            details = _explain(application)
            if failed:
                raise ConfigError("\n".join(["the ranking service could not start.", *details]))
            slow = (
                f"the ranking service was not up after {timeout_s:g} s; raise deploy_timeout_s if it only needs longer."
            )
            raise ServiceUnavailableError("\n".join([slow, *details]))
        time.sleep(0.1)


def _explain(application: ApplicationStatusOverview | None) -> list[str]:
    """Collect Serve's messages about an application that is not running, by deployment."""
    if application is None:
        return []
    messages = [
        f"{name}: {_extract_cause(state.message)}" for name, state in application.deployments.items() if state.message
    ]
    return messages or list(filter(None, [_extract_cause(application.message)]))


def _extract_cause(message: str) -> str:
    """Extract the error that ended a replica from Serve's message, which is a whole traceback."""
    if "ActorDiedError" in message:  # there is no traceback
        return (
            "its process ended while it started, by an exit, in native code or without memory; see worker-* in the logs"
        )
    errors = list(re.finditer(r"^((?:\w+\.)*)\w*(?:Error|Exception): ", message, re.M))
    if not errors:
        return message
    ours = errors[-1][1].startswith("drpo_rewards.")  # clear without the class
    return message[errors[-1].end() if ours else errors[-1].start() :].strip()
