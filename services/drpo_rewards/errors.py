"""The errors of this package.

They share one base. Each is also the built-in that fits it, and all can be pickled, because they travel through Ray.

An error carries a stable `code`, the HTTP status and the gRPC status that it travels as, and whether the same call
may succeed later (`retryable`). The client raises the same class over every transport.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RewardsError(Exception):
    """Base of all errors.

    Attributes:
        message: what was wrong, where, and what to do.
        reward: the name of the reward at fault; None if there is none.
        field: the field of the request at fault, e.g. `images[3]`; None if there is none.
        retry_after_s: seconds after which the call may be repeated; None if unknown.
        request_id: the request's id; None if unknown.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"  # a name of grpc.StatusCode; grpc itself is imported where it is used
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reward: str | None = None,
        field: str | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reward = reward
        self.field = field
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle keeps an exception's positional arguments only; the keyword arguments travel as state.
        return (type(self), (self.message,), self.__dict__)


class ConfigError(RewardsError, ValueError):
    """A setting of a service or a client that cannot work. The message names it, and says what to write instead."""

    code = "bad_config"
    title = "Configuration error"


class WeightsError(ConfigError):
    """A model's files are missing or do not fit it. The message names the file and the keys."""

    code = "bad_weights"
    title = "A model cannot be loaded"


class InvalidRequestError(RewardsError, ValueError):
    """The request itself is wrong; sending it again cannot help."""

    code = "invalid_request"
    title = "The request is not valid"
    http_status = 422
    grpc_status = "INVALID_ARGUMENT"


class InvalidImageError(InvalidRequestError):
    """One of the images cannot be used; `field` says which one, e.g. `images[3]`."""

    code = "invalid_image"
    title = "An image cannot be used"


class UnknownRewardError(InvalidRequestError, LookupError):
    """A reward or mixture that this service does not have."""

    code = "unknown_reward"
    title = "Unknown reward or mixture"
    http_status = 404
    grpc_status = "NOT_FOUND"


class RequestTooLargeError(InvalidRequestError):
    """The request's body, or its images together, are over the service's limits."""

    code = "too_large"
    title = "The request is too large"
    http_status = 413


class IncompleteRequestError(InvalidRequestError, TimeoutError):
    """The request's body stopped arriving before it was complete."""

    code = "incomplete"
    title = "The request is incomplete"
    http_status = 408


class UnsupportedContentError(InvalidRequestError, TypeError):
    """A content type that the endpoint does not take."""

    code = "unsupported_content_type"
    title = "Unsupported content type"
    http_status = 415


class AuthenticationError(RewardsError, PermissionError):
    """No API key, or one that the service does not know."""

    code = "unauthenticated"
    title = "An API key is needed"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class ForeignOriginError(RewardsError, PermissionError):
    """A web page of another origin, or under another host name, called a service without API keys."""

    code = "foreign_origin"
    title = "A web page of another origin may not call this service"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class RewardError(RewardsError, RuntimeError):
    """A reward failed, or returned something that is not a score. The request fails; no score is made up."""

    code = "reward_failed"
    title = "A reward failed"
    http_status = 502
    grpc_status = "INTERNAL"


class RewardUnavailableError(RewardError):
    """The reward's replicas died while it scored, and the gateway's own retries were used up."""

    code = "reward_unavailable"
    title = "A reward is not available"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    retryable = True


class RewardTimeoutError(RewardError, TimeoutError):
    """The reward did not answer within its own deadline."""

    code = "reward_timeout"
    title = "A reward missed its deadline"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class OverloadedError(RewardsError, RuntimeError):
    """A bounded queue is full. `retry_after_s` says when to try again."""

    code = "overloaded"
    title = "Too many requests"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    retryable = True


class ServiceUnavailableError(RewardsError, ConnectionError):
    """The service could not be reached, or went away during the call."""

    code = "unavailable"
    title = "The service is not available"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    retryable = True


class RankingTimeoutError(RewardsError, TimeoutError):
    """The client's own deadline passed before an answer came."""

    code = "timeout"
    title = "The deadline passed"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class InternalError(RewardsError, RuntimeError):
    """An unexpected error. The service's logs have it under the request's id."""


# Ends messages that hide internal details from callers. The folder is the same however the service was started.
LOGS = "the service's logs have more, in ray/session_latest/logs/serve below $RAY_TMPDIR or /tmp on its machine"
UNEXPECTED = f"an unexpected error occurred; {LOGS}, under the request's id"


def _with_subclasses(cls: type[RewardsError]) -> list[type[RewardsError]]:
    return [cls, *(descendant for child in cls.__subclasses__() for descendant in _with_subclasses(child))]


BY_CODE: dict[str, type[RewardsError]] = {cls.code: cls for cls in reversed(_with_subclasses(RewardsError))} | {
    "internal": InternalError
}


def from_code(
    code: str,
    message: str,
    *,
    reward: str | None = None,
    field: str | None = None,
    retry_after_s: float | None = None,
    request_id: str | None = None,
) -> RewardsError:
    """Make the error that travelled as `code`. An unknown code, of a newer service, becomes `InternalError`."""
    cls = BY_CODE.get(code, InternalError)
    return cls(message, reward=reward, field=field, retry_after_s=retry_after_s, request_id=request_id)
