"""HTTP requests and WebSockets: all that the SDK does on a network. The one transport of both protocols.

httpx and websockets carry it; both are imported when the first connection is made, so that importing the SDK is quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from offhook.client.errors import ConnectionFailed, ConnectionLost, TimedOut
from offhook.client.reconnect import retry_after

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    import httpx
    from websockets.asyncio.client import ClientConnection, connect

Verify = bool | str | Path | ssl.SSLContext
"""How to trust servers that speak TLS, see :class:`Transport`."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one WebSocket message, or of the body of an answer, that are taken."""
AT_ONCE = 4096
"""Characters of a message that fits into the buffer of a connection that holds nothing, however they are encoded."""
GRACE = 0.5
"""Seconds by which an answer as a whole may come later than each of its parts."""
CLOSE_TIMEOUT = 2.0
"""Seconds in which a server should answer that it has seen the end of a WebSocket."""

_log = logging.getLogger("offhook.websocket")
# What websockets says for debugging holds whole addresses and messages, with all that is secret in them.
_log.setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
        body: as it came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> float | None:
        """Seconds for which the server asked to be left alone, if it did."""
        return retry_after(self.headers.get("retry-after"))


class Transport:
    """Connections to a server. Several clients can share one; then whoever made it closes it.

    Args:
        verify: how to trust servers that speak TLS: True for the usual authorities, the path of a PEM file with
            authorities (such as the one that ``make run`` names), an :class:`ssl.SSLContext`, or False to trust
            anybody, which is for experiments alone.
        timeout: seconds for a connection to be made, and for an answer to come.
        ping_interval: seconds between WebSocket pings, by which a dead connection is found after at most twice as
            long; None sends none.
        trust_env: whether proxies named by the environment are used.

    Raises:
        OSError: the file with authorities cannot be read, or is none (:class:`ssl.SSLError`).
    """

    def __init__(
        self,
        *,
        verify: Verify = True,
        timeout: float = 15.0,
        ping_interval: float | None = 20.0,
        trust_env: bool = True,
    ) -> None:
        self._verify = verify
        self._timeout = timeout
        self._ping_interval = ping_interval
        self._trust_env = trust_env
        self._context: ssl.SSLContext | None = None
        if isinstance(verify, str | Path):
            # Now, so that a wrong path is told where it was written and not as a server that cannot be reached.
            self._context = ssl.create_default_context(cafile=str(verify))
        elif isinstance(verify, ssl.SSLContext):
            self._context = verify
        self._http: httpx.AsyncClient | None = None

    @property
    def timeout(self) -> float:
        """Seconds for an answer to come."""
        return self._timeout

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Answer:
        """Asks a server.

        Args:
            method: of HTTP.
            url: whole, with its query.
            headers: further ones.
            content: the body.
            files: parts of a multipart form instead: field → (file name, bytes, content type).

        Raises:
            ConnectionFailed: there was no answer, or more than MAX_MESSAGE bytes of it.
            TimedOut: there was no answer in time.
        """
        import httpx

        body = bytearray()
        try:
            if self._http is None:
                self._http = httpx.AsyncClient(
                    verify=self._tls(),
                    timeout=self._timeout,
                    trust_env=self._trust_env,
                    follow_redirects=False,
                    cookies=_no_cookies(),
                )
            # httpx bounds each step alone: an answer that comes drop by drop would never be late. It comes first
            # where it can, since it is then that it closes connections that are still being made.
            _check(url)
            request = self._http.build_request(method, url, headers=headers, content=content, files=files)
            request.url = _quiet()(request.url)
            async with asyncio.timeout(self._timeout + GRACE):
                response = await self._http.send(request, stream=True)
                async with contextlib.aclosing(response):
                    async for part in response.aiter_bytes():
                        body += part
                        if len(body) > MAX_MESSAGE:
                            raise ConnectionFailed(f"The answer of {_place(url)} to {method} is too long")
        except (TimeoutError, httpx.TimeoutException):
            raise TimedOut(f"No answer to {method} from {_place(url)} within {self._timeout:g} s") from None
        except httpx.LocalProtocolError:
            # As text it quotes the header, such as a token from a file that ends with an empty line.
            raise ConnectionFailed(f"No {method} to {_place(url)}: a header of it cannot be sent") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
            # An ImportError: the environment names a proxy of a kind for which a package is missing.
            raise ConnectionFailed(f"No answer to {method} from {_place(url)}: {_words(error)}") from None
        return Answer(response.status_code, dict(response.headers), bytes(body))

    async def websocket(
        self, url: str, *, subprotocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> Socket:
        """Opens a WebSocket.

        Args:
            url: ``ws`` or ``wss``.
            subprotocols: those offered; with any, the server must take one.
            headers: further ones of the handshake.

        Raises:
            ConnectionFailed: it could not be opened; ``status`` and ``retry_after`` say how it was refused, if it was.
            TimedOut: it was not opened in time.
        """
        from websockets.exceptions import InvalidProxy, InvalidStatus, InvalidURI, WebSocketException
        from websockets.typing import Subprotocol

        try:
            _check(url)
            connection = await _connect()(
                url,
                subprotocols=[Subprotocol(name) for name in subprotocols] or None,
                additional_headers=headers,
                ssl=self._tls() if url.startswith("wss:") else None,
                proxy=True if self._trust_env else None,
                # One attempt: clients decide themselves when to try again.
                open_timeout=self._timeout,
                ping_interval=self._ping_interval,
                ping_timeout=self._ping_interval,
                close_timeout=CLOSE_TIMEOUT,
                max_size=MAX_MESSAGE,
                compression=None,
                user_agent_header=None,
                logger=_log,
            )
        except TimeoutError:
            raise TimedOut(f"No WebSocket from {_place(url)} within {self._timeout:g} s") from None
        except InvalidStatus as refused:
            response = refused.response
            raise ConnectionFailed(
                f"{_place(url)} refused a WebSocket with status {response.status_code}",
                response.status_code,
                retry_after(response.headers.get("Retry-After")),
            ) from None
        except (InvalidURI, InvalidProxy) as error:
            # As text they quote the whole address, and what is secret in it.
            raise ConnectionFailed(f"No WebSocket from {_place(url)}: {error.msg}") from None
        except (OSError, WebSocketException, EOFError, ValueError, ImportError) as error:
            raise ConnectionFailed(f"No WebSocket from {_place(url)}: {_words(error)}") from None
        if subprotocols and connection.subprotocol is None:
            await Socket(connection, CLOSE_TIMEOUT).close(1002)
            raise ConnectionFailed(f"{_place(url)} speaks none of {', '.join(subprotocols)}")
        return Socket(connection, None if self._ping_interval is None else 2 * self._ping_interval)

    async def close(self) -> None:
        """Closes what is kept open for further requests. WebSockets are their owners' to close."""
        # A request that comes meanwhile makes another one.
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            if not self._verify:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        return self._context


class Socket:
    """An open WebSocket. Messages are sent whole and in order.

    Args:
        connection: what it stands for.
        patience: seconds that sending may wait for a peer that takes nothing; None is for ever.
    """

    __slots__ = ("_connection", "_patience")

    def __init__(self, connection: ClientConnection, patience: float | None) -> None:
        self._connection = connection
        self._patience = patience

    async def send(self, message: str | bytes, *, text: bool | None = None) -> None:
        """Sends a message; waits while the connection takes no more.

        Args:
            message: what to send.
            text: whether it is a message of text; if None, strings are, and bytes are not. Bytes must be UTF-8 then.

        Raises:
            ConnectionLost: the connection has ended, or took nothing for too long.
        """
        connection = self._connection
        try:
            if len(message) <= AT_ONCE and not connection.transport.get_write_buffer_size():
                # It is taken at once, so there is nothing to bound; for short messages that costs as much as they do.
                await connection.send(message, text=text)
                return
            # The pings of a connection that takes nothing wait as well, and so find nothing out.
            async with asyncio.timeout(self._patience):
                await connection.send(message, text=text)
        except TimeoutError:
            self.abort()
            raise ConnectionLost from None
        except Exception as error:
            raise _lost(error) from None

    async def receive(self) -> str | bytes:
        """Waits for the next message. Cancelling it loses none.

        Raises:
            ConnectionLost: the connection has ended.
        """
        try:
            return await self._connection.recv()
        except Exception as error:
            raise _lost(error) from None

    async def receive_bytes(self) -> bytes:
        """As ``receive``, but text comes as it was sent: nobody has checked that it is UTF-8.

        Raises:
            ConnectionLost: the connection has ended.
        """
        try:
            return await self._connection.recv(decode=False)
        except Exception as error:
            raise _lost(error) from None

    async def close(self, code: int = 1000) -> None:
        """Closes it, in at most a few seconds. Cancelling it drops the connection."""
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT):
                await self._connection.close(code)
        except TimeoutError:
            # What was sent before still fills the connection, so that the end could not even be said.
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Drops it without a word, for a peer that does not answer any more."""
        self._connection.transport.abort()


@functools.cache
def _connect() -> type[connect]:
    """What opens WebSockets, without following redirects: they would be shown what is meant for another server."""
    from websockets.asyncio.client import connect

    class Connect(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    return Connect


@functools.cache
def _quiet() -> type[httpx.URL]:
    """A URL that hides its path and query where it is shown: httpx logs that of every request."""
    import httpx

    class Quiet(httpx.URL):
        def __str__(self) -> str:
            return _place(super().__str__())

    return Quiet


def _no_cookies() -> CookieJar:
    """Takes none: several clients, of several users, may share a transport."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def _lost(error: Exception) -> Exception:
    """What an error of a connection means: its end, unless it is of another kind."""
    from websockets.exceptions import ConnectionClosed

    if not isinstance(error, ConnectionClosed):
        return error
    frame = error.rcvd
    return ConnectionLost() if frame is None else ConnectionLost(frame.code, frame.reason)


def _check(url: str) -> None:
    """Raises ValueError for a port that is none, which asyncio would find out about too late to clean up."""
    _ = urlsplit(url).port


def _place(url: str) -> str:
    """The scheme and host of a URL: what comes before the host, paths and queries hold secrets."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]}"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
