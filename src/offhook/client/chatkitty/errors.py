"""What goes wrong between an application and a ChatKitty server (ChatKitty protocol notes, 2.6, 3.2 and 9).

::

    ClientError
    └── ChatKittyError                  error, message, timestamp, field, cool_off
        ├── AccessDeniedError           from the server: credentials refused, or not allowed
        ├── ResourceNotFoundError       from the server: unknown, or not visible to the caller
        ├── InvalidRequestError         from the server ("ClientError"): malformed; ``field`` may say where
        ├── RateLimitedError            from the server: too many requests; ``cool_off`` says how long to wait
        ├── ServiceUnavailableError     from the server: it restarts or is overloaded
        ├── InternalServerError         from the server: a defect there
        ├── ChatKittyConnectionError    (also ConnectionFailed) no connection could be made
        ├── ChatKittyConnectionLost     (also ConnectionLost) the connection ended before the answer came
        ├── ChatKittyTimedOut           (also TimedOut) no answer in time
        ├── ChatKittyBadAnswer          (also BadAnswer) the answer is not of the protocol
        ├── SessionEndedError           (also ClientClosed) the session ended while the call waited
        ├── NotOfferedError             the server offers no such operation to this user
        ├── SessionActiveError          raised: a session is active, or is just being started
        ├── NoActiveSessionError        raised: there is no session
        └── PageOutOfBoundsError        raised: there is no such page

All but the last three come inside a :class:`~offhook.client.chatkitty.results.Failed`; those three mean that the call
itself was wrong, and are raised where it is made. A server's error of a name that is not listed is a plain
ChatKittyError: ``error`` is the name.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import ClassVar

import msgspec

from offhook.client.errors import (
    BadAnswer,
    ClientClosed,
    ClientError,
    ConnectionFailed,
    ConnectionLost,
    TimedOut,
)

UNKNOWN = "UnknownChatKittyError"
"""The name of an error that the server did not put into the protocol's form."""
_DURATION = re.compile(r"PT(\d{1,9}(?:\.\d{1,9})?)S")


class ChatKittyError(ClientError):
    """Base of every error of a ChatKitty client.

    Args:
        error: the protocol's name of it.
        message: one sentence.
        timestamp: when the server noticed it, if it is the server's.
        field: which member of the request is wrong, if the server says so.
        cool_off: seconds after which to try again, if the server says so.
    """

    code = "chatkitty_error"
    name: ClassVar[str] = UNKNOWN
    """What ``error`` is unless the server says otherwise."""

    def __init__(
        self,
        message: str,
        error: str | None = None,
        *,
        timestamp: datetime | None = None,
        field: str | None = None,
        cool_off: float | None = None,
    ) -> None:
        # Those below have a second base, whose own arguments they set themselves.
        ClientError.__init__(self, message)
        self.error = error or self.name
        self.timestamp = timestamp
        self.field = field
        self.cool_off = cool_off


class AccessDeniedError(ChatKittyError):
    """Credentials were refused, or the user may not do this. In an ERROR frame it ends the session for good."""

    code = "access_denied"
    name = "AccessDeniedError"


class ResourceNotFoundError(ChatKittyError):
    """What was asked for does not exist, or the user may not see it."""

    code = "not_found"
    name = "ResourceNotFoundError"


class InvalidRequestError(ChatKittyError):
    """The request was malformed; the protocol calls it ``ClientError``. ``field`` may name the wrong member."""

    code = "invalid_request"
    name = "ClientError"


class RateLimitedError(ChatKittyError):
    """Too many requests. ``cool_off`` says how many seconds to wait."""

    code = "rate_limited"
    name = "RateLimitedError"
    retryable = True


class ServiceUnavailableError(ChatKittyError):
    """The server restarts, or takes no more now."""

    code = "unavailable"
    name = "ServiceUnavailableError"
    retryable = True


class InternalServerError(ChatKittyError):
    """A defect of the server's."""

    code = "internal_server_error"
    name = "InternalServerError"
    retryable = True


class ChatKittyConnectionError(ChatKittyError, ConnectionFailed):
    """No connection to the server could be made."""

    code = "connection_failed"
    name = "ChatKittyConnectionError"
    retryable = True

    def __init__(self, cause: ConnectionFailed) -> None:
        ChatKittyError.__init__(self, cause.message, cool_off=cause.retry_after)
        self.status = cause.status
        self.retry_after = cause.retry_after


class ChatKittyConnectionLost(ChatKittyError, ConnectionLost):
    """The connection ended before the answer came. Whether the server did what was asked is not known."""

    code = "connection_lost"
    name = "ChatKittyConnectionLost"
    retryable = True

    def __init__(self, cause: ConnectionLost) -> None:
        ChatKittyError.__init__(self, cause.message)
        self.close_code = cause.close_code
        self.reason = cause.reason


class ChatKittyTimedOut(ChatKittyError, TimedOut):
    """No answer came in time. Whether the server did what was asked is not known."""

    code = "timed_out"
    name = "ChatKittyTimedOut"
    retryable = True


class ChatKittyBadAnswer(ChatKittyError, BadAnswer):
    """The server's answer is not of the protocol."""

    code = "bad_answer"
    name = "ChatKittyBadAnswer"


class SessionEndedError(ChatKittyError, ClientClosed):
    """The session ended, or the client was closed, while the call waited."""

    code = "session_ended"
    name = "SessionEndedError"


class NotOfferedError(ChatKittyError):
    """The resource that was passed names no such operation: the server does not offer it to this user."""

    code = "not_offered"
    name = "NotOfferedError"


class SessionActiveError(ChatKittyError):
    """A session is active, or just being started; end it first."""

    code = "session_active"
    name = "SessionActiveError"


class NoActiveSessionError(ChatKittyError):
    """There is no session; start one first."""

    code = "no_active_session"
    name = "NoActiveSessionError"


class PageOutOfBoundsError(ChatKittyError):
    """There is no page in that direction."""

    code = "page_out_of_bounds"
    name = "PageOutOfBoundsError"


_BY_NAME: dict[str, type[ChatKittyError]] = {
    kind.name: kind
    for kind in (
        AccessDeniedError,
        ResourceNotFoundError,
        InvalidRequestError,
        RateLimitedError,
        ServiceUnavailableError,
        InternalServerError,
    )
}


def error_of(body: bytes) -> ChatKittyError:
    """The error that a server put into an error object (ChatKitty protocol notes, 3.2).

    Args:
        body: JSON, it is hoped; anything else gives an error of the name UNKNOWN.
    """
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = None
    if not isinstance(told, dict) or not isinstance(name := told.get("error"), str):
        return ChatKittyError("The server reported an error that cannot be read")
    message = told.get("message")
    return _BY_NAME.get(name, ChatKittyError)(
        message if isinstance(message, str) else name,
        name,
        timestamp=_moment(told.get("timestamp")),
        field=field if isinstance(field := told.get("field"), str) else None,
        cool_off=seconds_of(told.get("coolOffDuration")),
    )


def seconds_of(duration: object) -> float | None:
    """The seconds of a ``coolOffDuration``, which is written ``PT<seconds>S``; None for anything else."""
    match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    return None if match is None else float(match[1])


def as_chatkitty(error: ClientError) -> ChatKittyError:
    """An error of the SDK's core as one of this protocol's tree."""
    if isinstance(error, ChatKittyError):
        return error
    if isinstance(error, ConnectionFailed):
        return ChatKittyConnectionError(error)
    if isinstance(error, ConnectionLost):
        return ChatKittyConnectionLost(error)
    if isinstance(error, TimedOut):
        return ChatKittyTimedOut(error.message)
    return ChatKittyBadAnswer(error.message)


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
