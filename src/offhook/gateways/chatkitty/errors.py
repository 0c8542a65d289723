"""How the package's errors look to a ChatKitty client (ChatKitty protocol notes, 2.6 and 9.2)."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from offhook.errors import InternalError, InvalidInput, OffhookError, RateLimited
from offhook.server.asgi import STATUSES

NAMES: dict[str, str] = {code: name for code, (_, name) in STATUSES.items()}
"""Error code → the ``error`` that clients see. Only AccessDeniedError makes a client stay away for good."""
ACCESS_DENIED = NAMES["access_denied"]


def timestamp(at: datetime | None = None) -> str:
    """A time as the protocol writes it: ISO 8601 in UTC, with ``Z``."""
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error_object(error: OffhookError) -> dict[str, object]:
    """The error object that goes on the error queue, into an ERROR frame or an HTTP body."""
    body: dict[str, object] = {
        "error": NAMES.get(error.code, NAMES["internal"]),
        "message": error.message,
        "timestamp": timestamp(),
    }
    if isinstance(error, InvalidInput) and error.field is not None:
        body["field"] = error.field
    if isinstance(error, RateLimited):
        body["coolOffDuration"] = cool_off(error.retry_after)
    return body


def error_body(error: OffhookError) -> bytes:
    """``error_object`` as JSON."""
    return msgspec.json.encode(error_object(error))


def refusal_body(error: OffhookError) -> bytes:
    """The body of an ERROR that answers CONNECT.

    Whatever trying again cannot cure must be an AccessDeniedError, else the client tries for ever.
    """
    body = error_object(error)
    if not error.retryable:
        body["error"] = ACCESS_DENIED
    return msgspec.json.encode(body)


def cool_off(seconds: float) -> str:
    """A duration as clients parse it: ``PT<seconds>S``. They come back after it, so it is rounded up."""
    return f"PT{max(0.1, seconds + 0.05):.1f}S"


def as_offhook_error(error: Exception) -> OffhookError:
    """The error itself if it may be shown, else one that tells nothing."""
    return error if isinstance(error, OffhookError) else InternalError()
