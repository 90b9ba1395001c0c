"""The configuration of a ranking service: named rewards, mixtures of them, addresses and limits. YAML or Python."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, PositiveFloat, ValidationError, field_validator, model_validator

from drpo_rewards.api.contract import DEFAULT_MIXTURE, Normalize, check_weights
from drpo_rewards.api.keys import check_key, digest
from drpo_rewards.api.origins import check_host, check_origin
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.config_mistakes import NAMED, find_wrong_names, find_wrong_names_in, leave_out, list_mistakes
from drpo_rewards.serving.limits import LimitsConfig
from drpo_rewards.settings.files import Settings, parse_settings, read_text
from drpo_rewards.settings.section import Section

RUNTIME_ENV = ("pip", "uv", "conda", "container", "image_uri", "env_vars", "config")  # of one reward
CONFIGS = Path(__file__).parent / "configs"
NUMBERS_OF_REPLICAS = ("min_replicas", "initial_replicas", "max_replicas")
MOST_REPLICAS = 4096  # of one reward; Serve's controller holds something for each, also before it is placed


class MemoryConfig(Section):
    """The memory that one replica needs, in 10^9 bytes. Only the checks before a start read it; it limits nothing.

    Example:
        memory: {gpu_gb: 5.5, host_gb: 4.0, source: estimated}
    """

    gpu_gb: float = Field(default=0.0, ge=0, description="On its GPU: weights, one batch, and CUDA itself.")
    host_gb: float = Field(default=0.0, ge=0, description="At its peak, usually while it loads.")
    source: Literal["estimated", "measured"] = "estimated"


class RewardConfig(Section):
    """One reward: what it is, how many replicas it has, where they run, and how they batch.

    Example:
        pickscore: {type: pickscore, num_gpus: 0.25, batch_size: 16, batch_wait_s: 0.02, deadline_s: 30}
    """

    type: str = Field(description="A name of the catalogue, or package.module:Class of your own reward.")
    options: dict[str, Any] = Field(default_factory=dict, description="Arguments of the reward's class.")
    num_replicas: int = Field(default=1, ge=1, le=MOST_REPLICAS)
    num_cpus: float = Field(default=1.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0, description="The share by which Ray places replicas; it limits nothing.")
    resources: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="Custom Ray resources that its machines must have, e.g. {big_gpus: 0.01}."
    )
    autoscaling: dict[str, Any] | None = Field(
        default=None, description="Ray Serve's autoscaling_config, instead of num_replicas."
    )
    own_app: bool = Field(
        default=False, description="Run in a separate Serve application, which can be upgraded separately."
    )
    max_surge_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Percentage of replicas that an upgrade starts before it stops old ones; at 0 it stops one first.",
    )
    runtime_env: dict[str, Any] | None = Field(
        default=None,
        description="Ray's runtime_env: packages and variables of its replicas only, e.g. {pip: [timm==1.0.20]}.",
    )
    memory: MemoryConfig | None = None
    batch_size: int = Field(
        default=64, ge=1, le=65_536, description="The most images that one call of the reward scores."
    )
    batch_wait_s: float = Field(default=0.0, ge=0, le=10, description="How long a batch waits for more images.")
    max_ongoing: int = Field(
        default=32, ge=1, le=1_000_000, description="Groups that one replica holds at the same time."
    )
    max_queued: int = Field(
        default=64, ge=1, le=1_000_000, description="Groups that may wait in a gateway; others are answered 429."
    )
    deadline_s: float = Field(
        default=30.0,
        gt=0,
        le=1e6,
        description="Seconds after which a group that is not scored fails with reward_timeout.",
    )

    @field_validator("autoscaling")
    @classmethod
    def _known_to_ray(cls, autoscaling: dict[str, Any] | None) -> dict[str, Any] | None:
        from ray.serve.config import AutoscalingConfig

        for key in autoscaling or ():  # Ray itself ignores unknown keys
            if key not in AutoscalingConfig.model_fields:
                raise ValueError(f"Ray Serve has no key {key}{did_you_mean(key, AutoscalingConfig.model_fields)}")
        if autoscaling is not None:
            try:
                checked = AutoscalingConfig.model_validate(autoscaling)
            except ImportError as error:  # it names a policy of the user's
                raise ValueError(f"a policy cannot be imported: {error}") from None
            numbers = {key: getattr(checked, key) for key in NUMBERS_OF_REPLICAS if key in autoscaling}
            for key, number in numbers.items():
                if (number or 0) > MOST_REPLICAS:
                    raise ValueError(f"{key} must be less than or equal to {MOST_REPLICAS}")
            return autoscaling | numbers  # a file may have them as text
        return autoscaling

    @field_validator("runtime_env")
    @classmethod
    def _an_environment_of_ray(cls, runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
        for key in runtime_env or ():  # Ray itself only warns of unknown keys
            if key not in RUNTIME_ENV:
                known = did_you_mean(key, RUNTIME_ENV) or f"; known are {', '.join(RUNTIME_ENV)}"
                raise ValueError(f"there is no key {key}{known}")
        if runtime_env is not None:
            from ray.runtime_env import RuntimeEnv

            try:
                RuntimeEnv(**runtime_env)
            except (TypeError, ValueError) as error:
                raise ValueError(f"Ray does not take it: {error}") from None
        return runtime_env

    @property
    def class_may_be_elsewhere(self) -> bool:
        """Whether its class may be importable in its replicas' environment only."""
        return bool(self.runtime_env) and ":" in self.type

    @model_validator(mode="after")
    def _one_number_of_replicas(self) -> RewardConfig:
        if self.autoscaling is not None and "num_replicas" in self.model_fields_set and self.num_replicas != 1:
            raise ValueError("num_replicas and autoscaling exclude each other; keep one")
        return self

    @property
    def first_replicas(self) -> int:
        """Number of replicas before any load."""
        if self.autoscaling is None:
            return self.num_replicas
        return self.autoscaling.get("initial_replicas") or self.autoscaling.get("min_replicas", 1)

    @property
    def most_replicas(self) -> int:
        """Largest number of replicas under load."""
        return self.num_replicas if self.autoscaling is None else self.autoscaling.get("max_replicas", 1)


class MixtureConfig(Section):
    """Weighted rewards under a name.

    Example:
        both: {rewards: {pickscore: 1.0, aesthetic: 0.5}, normalize: zscore}
    """

    rewards: dict[str, float]
    normalize: Normalize = "zscore"

    @field_validator("rewards")
    @classmethod
    def _weights_are_usable(cls, rewards: dict[str, float]) -> dict[str, float]:
        check_weights(rewards)
        return rewards


class ServiceConfig(Section):
    """A whole ranking service.

    Example:
        rewards: {geneval: {type: geneval}}
        mixtures: {default: {rewards: {geneval: 1.0}}}
        http_port: 8000
    """

    rewards: dict[str, RewardConfig] = Field(min_length=1)
    mixtures: dict[str, MixtureConfig] = Field(default_factory=dict)
    host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free port.")
    grpc_port: int = Field(default=9000, ge=0, le=65535, description="0 takes a free port.")
    num_gateways: int = Field(default=1, ge=1, le=1024)
    gateway_resources: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="Custom Ray resources of the machines on which gateways run and listen; by default Ray's head.",
    )
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    api_keys_file: Path | None = Field(
        default=None, description="One key per line; # starts a comment. Relative to the current folder."
    )
    api_keys_env: str = Field(default="DRPO_REWARDS_API_KEYS", description="Variable with keys, comma-separated.")
    allow_no_auth: bool = Field(default=False, description="Serve other machines without API keys.")
    allowed_origins: list[Annotated[str, AfterValidator(check_origin)]] = Field(
        default_factory=list,
        description="Origins whose web pages may call the service, such as https://my.site; * for all.",
    )
    allowed_hosts: list[Annotated[str, AfterValidator(check_host)]] = Field(
        default_factory=list,
        description="Further host names of a service without API keys; * for all. It has its addresses, the machine's "
        "name, and names that only a private network knows, such as localhost.",
    )
    deploy_timeout_s: float = Field(default=300.0, gt=0, le=1e6)

    @model_validator(mode="after")
    def _check_names(self) -> ServiceConfig:
        wrong = find_wrong_names(self.rewards, {name: mixture.rewards for name, mixture in self.mixtures.items()})
        if wrong:
            raise ValueError("; ".join(message for _, message in wrong))
        if DEFAULT_MIXTURE not in self.mixtures:  # all rewards with the same weight
            self.mixtures[DEFAULT_MIXTURE] = MixtureConfig(rewards=dict.fromkeys(self.rewards, 1.0))
        return self

    @classmethod
    def load(cls, source: ServiceConfig | Path | str) -> ServiceConfig:
        """Load a config from a ServiceConfig, a YAML file, or the name of a shipped config (`shapes`).

        Raises:
            ConfigError: there is no such config, or it is not valid. Each line of the message is one mistake.
        """
        if isinstance(source, ServiceConfig):
            return source
        found = cls.read(source)
        if found.settings is None or found.mistakes:
            raise ConfigError("\n".join(found.mistakes))
        return found.settings

    @classmethod
    def read(cls, source: Path | str) -> FoundConfig:
        """Read a config as far as it can be read."""
        try:
            file = cls._parse(Path(source))
        except ConfigError as error:
            return FoundConfig(None, str(error).splitlines(), are_addresses_known=False)
        mistakes = find_wrong_names_in(file.sections)
        try:
            settings: ServiceConfig | None = cls.model_validate(file.sections)
        except ValidationError as error:
            mistakes += [mistake for mistake in list_mistakes(error, SECTIONS) if mistake[0]]  # the others are names
            settings = cls._salvage(leave_out(file.sections, [key for key, _ in mistakes]))
        in_rewards = all(key[0] in NAMED for key, _ in mistakes)
        return FoundConfig(settings, [f"{file.locate(key)}: {message}" for key, message in mistakes], in_rewards)

    @classmethod
    def _salvage(cls, left: dict[str, Any]) -> ServiceConfig | None:
        """Validate what is left of a config. If no reward is, another one stands in while the rest is validated."""
        stands_in = {} if left.get("rewards") else {"rewards": {"none": {"type": "none"}}, "mixtures": {}}
        try:
            settings = cls.model_validate(left | stands_in)
        except ValidationError:
            return None
        return settings.model_copy(update={name: {} for name in stands_in})

    @classmethod
    def _parse(cls, source: Path) -> Settings:
        path = source if source.exists() or source.suffix else CONFIGS / f"{source}.yaml"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
            raise ConfigError(f"no service config {str(source)!r}; give a YAML file or one of: {known}")
        file = parse_settings(read_text(path), str(path), cls)
        if not file.sections:
            raise ConfigError(f"{path} is empty; write at least `rewards:` with one reward")
        return file

    def api_key_digests(self) -> list[bytes]:
        """Return the SHA-256 of every accepted API key; empty if no key is needed.

        Raises:
            ConfigError: the key file cannot be used, or other machines could reach the service without a key and
                `allow_no_auth` is false.
        """
        given = os.environ.get(self.api_keys_env, "").split(",")
        keys = [check_key(key.strip(), f"key {number} in ${self.api_keys_env}") for number, key in enumerate(given, 1)]
        if self.api_keys_file is not None:
            for number, line in enumerate(read_text(self.api_keys_file).splitlines(), 1):
                keys.append(check_key(line.partition("#")[0].strip(), f"{self.api_keys_file}:{number}"))
        keys = [key for key in keys if key]
        if self.api_keys_file is not None and not keys:
            raise ConfigError(f"api_keys_file {self.api_keys_file} holds no key")
        if not keys and not self.allow_no_auth and not _is_loopback(self.host):
            raise ConfigError(
                f"host {self.host} can be reached from other machines, and there are no API keys: set "
                f"api_keys_file or ${self.api_keys_env}, or allow_no_auth: true to serve without keys"
            )
        return [digest(key) for key in keys]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class FoundConfig:
    """What was found in a config file.

    Attributes:
        settings: without rewards and mixtures that have a mistake, and with the default for any other key that has
            one. None if the file cannot be read.
        mistakes: every one with its place.
        are_addresses_known: False if there are defaults among the settings because of a mistake, so that what they say
            of addresses, ports and keys may not be what is meant.
    """

    settings: ServiceConfig | None
    mistakes: list[str]
    are_addresses_known: bool


SECTIONS: tuple[type[BaseModel], ...] = (ServiceConfig, RewardConfig, MemoryConfig, MixtureConfig, LimitsConfig)


def explain(error: ValidationError) -> str:
    """Describe all mistakes in one line."""
    return "; ".join(message for _, message in list_mistakes(error, SECTIONS))
