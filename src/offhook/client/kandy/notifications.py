"""The notification socket of a subscription: opened, kept open, opened again (Kandy protocol notes, 4)."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

from offhook.client.errors import ConnectionFailed, ConnectionLost, TimedOut
from offhook.client.kandy.core import LONGEST_WAIT, Core
from offhook.client.kandy.events import NotificationReceived
from offhook.client.reconnect import Backoff, Reconnect
from offhook.client.tasks import report
from offhook.client.transport import Socket, Transport
from offhook.protocols.kandy import incoming
from offhook.protocols.kandy.incoming import Notification

FINAL = 1000
"""The close code after which a client does not come back."""
FIRST_ATTEMPTS = 5
"""Attempts to open the first socket of a subscription; whoever subscribes waits for them."""
UNKNOWN = 3
"""Times in a row that the server does not know the channel, until it counts as lost."""

Hear = Callable[[Notification], None]
_log = logging.getLogger("offhook.kandy")


class Channel:
    """The sockets of one subscription, one after the other.

    Args:
        transport: opens them.
        url: where, asked anew for each, since tokens change.
        policy: when to try again.
        ping_interval: seconds between signs of life.
        hear: takes each notification.
        changed: is told when the channel is open, and when it is not any more.
    """

    def __init__(
        self,
        transport: Transport,
        url: Callable[[], str],
        policy: Reconnect,
        ping_interval: float,
        hear: Hear,
        changed: Callable[[bool], None],
    ) -> None:
        self._transport = transport
        self._url = url
        self._policy = policy
        self._ping_interval = ping_interval
        self._hear = hear
        self._changed = changed
        self._socket: Socket | None = None
        self._over = False

    async def open(self) -> None:
        """Opens the first socket.

        Raises:
            ConnectionFailed: it could not be opened, however often it was tried.
            TimedOut: as ConnectionFailed.
        """
        attempts = min(self._policy.attempts or FIRST_ATTEMPTS, FIRST_ATTEMPTS)
        backoff = Backoff(self._policy)
        unknown = 0
        while self._socket is None:
            try:
                self._socket = await self._transport.websocket(self._url())
            except (ConnectionFailed, TimedOut) as error:
                unknown = _unknown(error, unknown)
                backoff.failed()
                asked = _asked(error)
                if backoff.failures >= attempts or unknown >= UNKNOWN or (asked or 0.0) > LONGEST_WAIT:
                    raise
                await asyncio.sleep(backoff.delay(asked))

    def end(self) -> None:
        """Nothing more is heard from now on. Called while a notification is heard, it has :meth:`run` return."""
        self._over = True

    async def run(self) -> None:
        """Hears notifications until the channel is lost for good, or was ended. Then the socket is closed."""
        backoff = Backoff(self._policy)
        try:
            while not self._over:
                socket = self._socket
                if socket is None:
                    if (socket := await self._again(backoff)) is None:
                        return
                    self._socket = socket
                if not await self._one(socket, backoff):
                    return
        finally:
            await self.close()

    async def close(self) -> None:
        """Closes the socket, if one is open."""
        self._over = True
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close(FINAL)

    async def _again(self, backoff: Backoff) -> Socket | None:
        """Opens a further socket; None if the policy allows no further attempt, or the channel is unknown."""
        unknown = 0
        asked: float | None = None
        while True:
            await asyncio.sleep(backoff.delay(asked))
            try:
                return await self._transport.websocket(self._url())
            except (ConnectionFailed, TimedOut) as error:
                asked = _asked(error)
                unknown = _unknown(error, unknown)
                backoff.failed()
                if backoff.exhausted or unknown >= UNKNOWN:
                    return None

    async def _one(self, socket: Socket, backoff: Backoff) -> bool:
        """Hears one socket to its end. Whether another one may follow."""
        loop = asyncio.get_running_loop()
        opened = loop.time()
        self._changed(True)
        code = FINAL
        try:
            while not self._over:
                await socket.send(incoming.PING)
                await self._listen(socket, loop.time() + self._ping_interval)
        except ConnectionLost as lost:
            code = lost.close_code
        if self._over:
            return False
        self._socket = None
        self._changed(False)
        if code == FINAL or self._over:
            return False
        was_last = backoff.exhausted
        backoff.ended(loop.time() - opened)
        return not (was_last and backoff.failures)

    async def _listen(self, socket: Socket, until: float) -> None:
        """Takes what comes until it is time for the next sign of life, or all is over. Raises ConnectionLost."""
        try:
            async with asyncio.timeout_at(until):
                while not self._over:
                    await self._take(socket, await socket.receive())
        except TimeoutError:
            pass

    async def _take(self, socket: Socket, data: str | bytes) -> None:
        try:
            heard = incoming.decode(data)
        except incoming.IncomingError as error:
            _log.warning("A message of the server was left out: %s", error)
            return
        if isinstance(heard, incoming.Check):
            await socket.send(incoming.ACK)
        elif isinstance(heard, Notification):
            self._hear(heard)


class Inbox:
    """Hands notifications to whom they concern, each once.

    It belongs to the client, not to a subscription: what an earlier one has told is not told again (4.2).

    Args:
        core: of the client.
        handlers: kind → who takes it. They may raise IncomingError.
    """

    def __init__(self, core: Core, handlers: Mapping[str, Hear]) -> None:
        self._core = core
        self._handlers = handlers
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, notification: Notification) -> None:
        """Takes a notification; nothing that is wrong with it goes any further."""
        # Without an id it cannot be told whether it came before.
        name = (notification.message_id if self._core.uc else "") or notification.event_id
        if name and self._repeated(name):
            return
        self._core.emit(NotificationReceived(notification.message))
        handler = self._handlers.get(notification.kind)
        if handler is None:
            return
        try:
            handler(notification)
        except incoming.IncomingError as error:
            _log.warning("A notification was left out: %s", error)
        except Exception as error:
            # Whatever it is: a client that does not hear any more, and does not tell, would be worse.
            report("A notification could not be handled", error)

    def _repeated(self, name: str) -> bool:
        if name in self._seen:
            return True
        self._seen[name] = None
        while len(self._seen) > self._core.config.id_cache_length:
            self._seen.popitem(last=False)
        return False


def _unknown(error: ConnectionFailed | TimedOut, before: int) -> int:
    return before + 1 if isinstance(error, ConnectionFailed) and error.status == 404 else 0


def _asked(error: ConnectionFailed | TimedOut) -> float | None:
    return error.retry_after if isinstance(error, ConnectionFailed) else None
