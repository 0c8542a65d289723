"""The error tree. Every failure a caller can see is one of these.

::

    OffhookError                 code, message, retryable
    ├── InvalidInput             a value has the wrong shape; names the field
    ├── TooLarge                 a value or body is over its limit
    ├── AccessDenied             credentials refused, or the caller may not do this
    │   ├── SessionLimitReached  the duplicate-session policy refuses a further session
    │   ├── NotSubscribed        the caller has not subscribed to the service this belongs to
    │   └── UserDisabled         the credentials are right, but the user may not sign in
    ├── NotFound                 unknown, or not visible to the caller
    ├── Conflict                 the state does not allow it (name taken, session ended …)
    ├── RateLimited              too many requests; says when to come back
    ├── Unavailable              overloaded, draining or a dependency is away; retry later
    └── InternalError            a defect of ours; the cause is logged, never sent

Services raise these; each protocol has one table that turns a ``code`` into its own form.
"""

from __future__ import annotations

from typing import ClassVar


class OffhookError(Exception):
    """Base of every error of the package.

    Args:
        message: one sentence that may be shown to the caller; never holds a secret.
    """

    code: ClassVar[str] = "error"
    """Stable name, the key of every protocol's error table and of the metrics."""
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without a change."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(OffhookError):
    """A value has the wrong type or shape.

    Args:
        message: what is wrong.
        field: the name of the offending field as the caller wrote it, if there is one.
    """

    code = "invalid_input"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class TooLarge(OffhookError):
    """A value, frame or body is larger than its limit.

    Args:
        message: what is too large.
        limit: the limit in bytes or items.
    """

    code = "too_large"

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class AccessDenied(OffhookError):
    """The credentials were refused, or the caller may not do this."""

    code = "access_denied"


class SessionLimitReached(AccessDenied):
    """The application's duplicate-session policy refuses a further session of this user."""

    code = "session_limit"


class NotSubscribed(AccessDenied):
    """The caller has not subscribed to the service that the request belongs to."""

    code = "not_subscribed"


class UserDisabled(AccessDenied):
    """The credentials are right, but the user may not sign in."""

    code = "user_disabled"


class NotFound(OffhookError):
    """The thing named does not exist, or is not visible to the caller."""

    code = "not_found"


class Conflict(OffhookError):
    """The present state does not allow the change (a name is taken, a session has ended)."""

    code = "conflict"


class RateLimited(OffhookError):
    """Too many requests.

    Args:
        message: what was limited.
        retry_after: seconds until the same request can succeed.
    """

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(OffhookError):
    """The server is draining or overloaded, or something it depends on is away.

    Args:
        message: what is not available.
        retry_after: seconds after which to try again.
    """

    code = "unavailable"
    retryable = True

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InternalError(OffhookError):
    """A defect of ours. The cause is in the log under the same moment; the caller learns nothing of it."""

    code = "internal"
    retryable = True

    def __init__(self, message: str = "Something went wrong on the server") -> None:
        super().__init__(message)
