"""What goes wrong between a client and a server, whichever protocol they speak.

::

    OffhookError
    └── ClientError              base of all that the SDK raises
        ├── ConnectionFailed     no connection, or no answer: the network, TLS, or the server is away
        ├── ConnectionLost       a connection that was open has ended
        ├── TimedOut             no answer in time
        ├── BadAnswer            the server answered something that is not of the protocol
        ├── ClientClosed         the client was closed while the call waited, or before
        ├── EventsLost           a reader of events was too slow, and some were dropped
        ├── ChatKittyError       see :mod:`offhook.client.chatkitty.errors`
        └── KandyError           see :mod:`offhook.client.kandy.errors`
"""

from __future__ import annotations

from offhook.errors import OffhookError


class ClientError(OffhookError):
    """Base of every error that the SDK raises."""

    code = "client_error"


class ConnectionFailed(ClientError):
    """No connection could be made, or it broke before there was an answer.

    Args:
        message: what happened, without secrets: never a URL with its query.
        status: the HTTP status that refused a WebSocket, if one did.
        retry_after: seconds for which the server asked to be left alone.
    """

    code = "connection_failed"
    retryable = True

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ConnectionLost(ClientError):
    """A connection that was open has ended.

    Args:
        close_code: of the WebSocket (RFC 6455, section 7.4); 1006 if it broke.
        reason: the words that came with it.
    """

    code = "connection_lost"
    retryable = True

    def __init__(self, close_code: int = 1006, reason: str = "") -> None:
        super().__init__(f"The connection was closed with code {close_code}" + (f": {reason}" if reason else ""))
        self.close_code = close_code
        self.reason = reason


class TimedOut(ClientError):
    """No answer came in time. Whether the server did what was asked is not known."""

    code = "timed_out"
    retryable = True


class BadAnswer(ClientError):
    """The server answered something that is not of the protocol."""

    code = "bad_answer"


class ClientClosed(ClientError):
    """The client was closed, or its session ended, while the call waited for its answer or before it began."""

    code = "client_closed"


class EventsLost(ClientError):
    """A reader of events was too slow, and the newest of what it had not taken were dropped. Reading can go on.

    Args:
        count: how many were dropped.
    """

    code = "events_lost"

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} events were dropped because they were not taken fast enough")
        self.count = count
