"""Requests of one client, and what their answers say (Kandy protocol notes, 1.5 and 1.6)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from offhook import __version__
from offhook.client.errors import ClientError, ConnectionFailed, TimedOut
from offhook.client.kandy.config import Config
from offhook.client.kandy.credentials import Credentials
from offhook.client.kandy.errors import INVALID_CREDENTIALS, KandyError
from offhook.client.transport import Transport
from offhook.protocols.kandy import replies
from offhook.protocols.kandy.wrappers import UC

DIALECT = "5.2.0"
"""The version that requests call themselves of. Servers choose by ``X-Cpaas-Agent`` which product's numbers and forms
they answer in, so it has to be one that they know."""

_REFUSED = frozenset({4, 27, 61, 65})
"""Numbers with HTTP status 403 that are about the credentials (1.6)."""

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        status: of HTTP.
        value: its JSON object; empty if there is none.
        ok: whether it succeeded: the status is 2xx, and the body is JSON.
        empty: whether there was no body that could be read.
        retry_after: seconds for which the server asked to be left alone by a header, if it did.
    """

    status: int
    value: Mapping[str, object]
    ok: bool
    empty: bool
    retry_after: float | None

    def code(self, wrapper: str) -> int | None:
        """The number in it; None if there is none."""
        return replies.status_code(self.value, wrapper)

    def reason(self, wrapper: str) -> str:
        """Its words; of an answer without any, its HTTP status."""
        if wrapper == UC:
            error = replies.uc_error(self.value)
            words = "" if error is None else error.human
        else:
            words = replies.reason(self.value, wrapper)
        return words or f"The server answered with HTTP status {self.status}"


class Rest:
    """Sends requests with the client's credentials.

    Args:
        transport: carries them.
        config: where to.
        refused: is called when a request's credentials are refused.

    Attributes:
        credentials: shown with every request; None before there are any.
    """

    def __init__(self, transport: Transport, config: Config, refused: Callable[[KandyError], None]) -> None:
        self._transport = transport
        self._config = config
        self._refused = refused
        # A server may tell by it whose the users watched are, should there be several clients of one user.
        self._user_agent = f"offhook-python/{__version__} ({secrets.token_hex(4)})"
        self.credentials: Credentials | None = None

    @property
    def username(self) -> str:
        """The user.

        Raises:
            KandyError: ``authentication:1``: there are no credentials yet.
        """
        return self.shown.username

    @property
    def shown(self) -> Credentials:
        """The credentials.

        Raises:
            KandyError: ``authentication:1``: there are none yet.
        """
        if self.credentials is None:
            raise KandyError(INVALID_CREDENTIALS, "There are no credentials: set_credentials or connect comes first")
        return self.credentials

    async def ask(self, method: str, path: str, *, content: bytes | None = None, query: Query = ()) -> Reply:
        """Sends a request.

        Args:
            method: of HTTP.
            path: encoded, without query.
            content: JSON.
            query: parameters beside the credentials'.

        Raises:
            KandyError: ``authentication:1``, ``configuration``.
            ConnectionFailed: there was no answer.
            TimedOut: there was no answer in time.
        """
        shown = self.shown
        reply = await self.send(method, path, shown.headers, content=content, query=(*query, *shown.query))
        if self._config.product == "link":
            self._look_for_refusal(reply)
        return reply

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], *, content: bytes | None = None, query: Query = ()
    ) -> Reply:
        """Sends a request with no credentials but those given; else as :meth:`ask`."""
        sent = {"Accept": "application/json", "User-Agent": self._user_agent}
        if content is not None:
            sent["Content-Type"] = "application/json"
        if self._config.agent_header:
            sent["X-Cpaas-Agent"] = f"{self._config.product}-js-sdk/{DIALECT}"
        sent |= headers
        url = self._config.rest.base + path + ("?" + urlencode(query, errors="replace") if query else "")
        answer = await self._transport.request(method, url, headers=sent, content=content)
        value = replies.decode(answer.body)
        return Reply(
            status=answer.status,
            value=value or {},
            ok=answer.ok and value is not None,
            empty=not value,
            retry_after=answer.retry_after,
        )

    def _look_for_refusal(self, reply: Reply) -> None:
        numbers = {replies.status_code(reply.value, wrapper) for wrapper in reply.value}
        if reply.status == 401 or (reply.status == 403 and (reply.empty or numbers & _REFUSED)):
            self._refused(
                KandyError(INVALID_CREDENTIALS, "The server refused the credentials of a request", reply.status)
            )


def words(error: ClientError) -> str:
    """What is said of a request without an answer."""
    return error.message if isinstance(error, ConnectionFailed | TimedOut) else str(error)
