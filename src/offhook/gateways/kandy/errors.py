"""How failures look to Kandy's clients (Kandy protocol notes, 0, 1.6, 3.3, 3.4 and 6.2).

Clients read a failure's number in the wrapper of the resource's answers, or beside it, and most versions do not ask
whether it is there. So every failure has a body of that form, unknown paths and our own defects included.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from offhook.errors import AccessDenied, InternalError, InvalidInput, OffhookError, RateLimited, Unavailable
from offhook.protocols.kandy import answers, wrappers
from offhook.protocols.kandy.paths import UC_VERSION, Resource
from offhook.protocols.kandy.requests import RequestError
from offhook.protocols.kandy.status import StatusCode

FAILURES: Mapping[str, tuple[int, StatusCode]] = {
    "invalid_input": (400, StatusCode.INVALID_VALUE),
    "too_large": (413, StatusCode.INVALID_VALUE),
    "access_denied": (403, StatusCode.NOT_AUTHORIZED),
    "session_limit": (403, StatusCode.LOGIN_LIMIT),
    "not_subscribed": (403, StatusCode.SERVICE_NOT_ENABLED),
    "user_disabled": (403, StatusCode.USER_DISABLED),
    "not_found": (404, StatusCode.NOT_FOUND),
    "conflict": (409, StatusCode.BAD_REQUEST),
    "rate_limited": (429, StatusCode.BAD_REQUEST),
    "unavailable": (503, StatusCode.INTERNAL),
    "internal": (500, StatusCode.INTERNAL),
    # What only this gateway knows of.
    "credentials_refused": (401, StatusCode.BAD_CREDENTIALS),
    "credentials_locked": (429, StatusCode.USER_LOCKED),
    "invalid_body": (400, StatusCode.INVALID_BODY),
    "subscription_gone": (404, StatusCode.SUBSCRIPTION_NOT_FOUND),
    "subscription_gone_uc": (404, StatusCode.BAD_CREDENTIALS),
    "realm_unknown": (403, StatusCode.CALL_ME_REALM),
    "not_offered": (403, StatusCode.SERVICE_NOT_ENABLED),
    "no_such_path": (404, StatusCode.NOT_FOUND),
    "no_such_method": (405, StatusCode.BAD_REQUEST),
}
"""An error's code → HTTP status and the number in the body. Never 410, which older clients take for the subscription's
end."""

_PROVING = {"access_denied": "credentials_refused", "rate_limited": "credentials_locked"}
"""What these are called while it is being found out who the client is."""

_WAITING = frozenset({Resource.SUBSCRIPTION, Resource.ANONYMOUS_SUBSCRIPTION})
"""Where clients understand 503. Elsewhere they replace its body by one without the resource's wrapper."""

_QUIET = frozenset({Resource.UC_SEND, Resource.UC_THREADS, Resource.UC_THREAD, Resource.UC_DELETE, Resource.UC_UPLOAD})
"""Where clients read ``error`` only if the HTTP status is that of success. With any other, the one that sends messages
breaks down, and the rest show the wrong number."""


class Refusal(OffhookError):
    """A failure that only this gateway knows of.

    Args:
        name: its key in FAILURES.
        message: one sentence that may be shown to the client.
        retry_after: seconds after which to try again, or None.
    """

    code = "refusal"

    def __init__(self, name: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request's answer, but for what depends on the resource.

    Attributes:
        name: its key in FAILURES, also the metrics' label.
        reason: one sentence for the client.
        retry_after: seconds after which to try again, or None.
        field: the member of the request that was wrong, or None.
    """

    name: str
    reason: str
    retry_after: float | None = None
    field: str | None = None


@contextlib.contextmanager
def proving() -> Iterator[None]:
    """In the context it is found out who the client is: what is refused there are its credentials.

    Raises:
        Refusal: instead of AccessDenied and RateLimited themselves; their subclasses speak of other things.
    """
    try:
        yield
    except (AccessDenied, RateLimited) as error:
        name = _PROVING.get(error.code)
        if name is None:
            raise
        raise Refusal(name, error.message, error.retry_after if isinstance(error, RateLimited) else None) from error


def failure_of(error: Exception) -> Failure:
    """What a client is told of an error. What is neither ours nor the codec's tells nothing of itself."""
    if isinstance(error, Refusal):
        return Failure(error.name, error.message, error.retry_after)
    if isinstance(error, RequestError):
        name = "invalid_body" if error.status is StatusCode.INVALID_BODY else "invalid_input"
        return Failure(name, _naming(error.field, error.message), field=error.field or None)
    if isinstance(error, InvalidInput):
        return Failure(error.code, _naming(error.field, error.message), field=error.field)
    if isinstance(error, RateLimited | Unavailable):
        return Failure(error.code, error.message, error.retry_after)
    if isinstance(error, OffhookError) and error.code in FAILURES:
        return Failure(error.code, error.message)
    return Failure(InternalError.code, InternalError().message)


def _naming(field: str | None, message: str) -> str:
    """The message, which must name the field, as most clients show nothing else."""
    return f"{field}: {message}" if field and field not in message else message


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, but for the headers that all have.

    Attributes:
        status: of HTTP.
        body: JSON.
        headers: further ones.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def render(failure: Failure, resource: Resource, method: str) -> Answer:
    """The answer to a request for a resource that failed."""
    status, code = FAILURES[failure.name]
    if resource in _QUIET:
        status = 200
    elif status == 503 and resource not in _WAITING:
        status = 500
    wrapper = wrappers.failure_wrapper(resource, method)
    return Answer(status, _body(wrapper, code, failure), _retry(failure.retry_after))


def unknown_path(path: str) -> Answer:
    """The answer to a request for what is no resource."""
    failure = Failure("no_such_path", "There is nothing at this path")
    status, code = FAILURES[failure.name]
    wrapper = wrappers.UC if path.startswith(f"/{UC_VERSION}/") else "errorResponse"
    return Answer(status, _body(wrapper, code, failure))


def unknown_method(resource: Resource, method: str, known: tuple[str, ...]) -> Answer:
    """The answer to a request whose method the resource does not know."""
    failure = Failure("no_such_method", f"The methods here are {', '.join(known)}")
    status, code = FAILURES[failure.name]
    body = _body(wrappers.failure_wrapper(resource, method), code, failure)
    return Answer(status, body, ((b"allow", ", ".join((*known, "OPTIONS")).encode()),))


def _body(wrapper: str, code: StatusCode, failure: Failure) -> bytes:
    seconds = failure.retry_after
    retry_after_ms = None if seconds is None else max(1, math.ceil(seconds * 1000))
    return answers.failed(wrapper, code, failure.reason, retry_after_ms=retry_after_ms, field=failure.field)


def _retry(seconds: float | None) -> tuple[tuple[bytes, bytes], ...]:
    return () if seconds is None else ((b"retry-after", b"%d" % max(1, math.ceil(seconds))),)
