"""The subscription of a client: made, renewed, changed, ended (Kandy protocol notes, 3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

from offhook.client.errors import ConnectionFailed, TimedOut
from offhook.client.kandy import requests
from offhook.client.kandy.core import GRACE, Core, settle
from offhook.client.kandy.errors import SOCKET_FAILED, SOCKET_FAILED_UC, KandyError
from offhook.client.kandy.events import Reason, WsChange
from offhook.client.kandy.notifications import Channel, Hear
from offhook.client.kandy.requests import Gone, Options
from offhook.client.kandy.rest import words
from offhook.protocols.kandy import replies
from offhook.protocols.kandy.incoming import Notification
from offhook.protocols.kandy.status import StatusCode

SHORTEST = 30.0
"""Seconds; the least time between renewals (3.7)."""
NUMBER_GONE = {"link": StatusCode.SUBSCRIPTION_NOT_FOUND, "uc": StatusCode.BAD_CREDENTIALS}
"""The code of a renewal's error when the subscription is no longer there."""


def renewal_delay(attempt: int, expires: float) -> float:
    """Seconds until a subscription is renewed (3.7): about half of its life, and less after every failure.

    Args:
        attempt: 1 after a success, and one more after each failure in a row.
        expires: seconds that the subscription lives.
    """
    base = max(SHORTEST, expires / 2.0 ** min(attempt, 64))
    return base * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret


class Voice(Protocol):
    """By which events an interface tells of the subscription."""

    def changed(self) -> None:
        """It has begun or ended, or is about to."""
        ...

    def failed(self, error: KandyError) -> None:
        """It could not be made or changed."""
        ...

    def renewed(self, attempt: int, error: KandyError | None) -> None:
        """It was renewed, or could not be."""
        ...

    def lost(self, reason: Reason, retry_after: float | None) -> None:
        """It ended, and not by the app."""
        ...


class _Live:
    """A subscription that the server has."""

    __slots__ = ("answer", "channel", "ending", "follower", "renewer", "username", "voice")

    def __init__(self, answer: replies.Subscription, username: str, voice: Voice) -> None:
        self.answer = answer
        self.username = username
        self.voice = voice
        self.ending = False
        self.channel: Channel | None = None
        self.follower: asyncio.Task[None] | None = None
        self.renewer: asyncio.Task[None] | None = None


class Lifecycle:
    """At most one subscription at a time.

    Args:
        core: of the client.
        hear: takes the notifications.
        began: is called when the server has made a new subscription.

    Attributes:
        pending: whether it is being made, changed or ended by the app.
        connected: whether its socket is open.
        requested: the services asked for last.
    """

    def __init__(self, core: Core, hear: Hear, began: Callable[[], None]) -> None:
        self._core = core
        self._hear = hear
        self._began = began
        self._lock = asyncio.Lock()
        self._live: _Live | None = None
        self._making: str | None = None
        self.pending = False
        self.connected = False
        self.requested: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether there is a subscription."""
        return self._live is not None

    @property
    def username(self) -> str | None:
        """Whose it is, or will be once it is made; None if there is none."""
        return self._making if self._live is None else self._live.username

    @property
    def services(self) -> tuple[str, ...]:
        """What it was granted."""
        return () if self._live is None else self._live.answer.services

    async def subscribe(self, services: Sequence[str], options: Options, voice: Voice) -> bool:
        """Makes a subscription, or adds services to the one there is.

        Args:
            services: at least one.
            options: for a new one.
            voice: tells of a new one from now on.

        Returns:
            Whether it is a new one.

        Raises:
            KandyError: ``authentication:4``, ``authentication:6``, ``authentication:13``, ``subscription:1``,
                ``authentication:2``, or the number of a subscription that is gone. It has been told.
        """
        async with self._lock:
            live = self._live
            before = self.requested
            self.requested = tuple(dict.fromkeys((*(() if live is None else live.answer.services), *services)))
            if live is None:
                await self._pend(voice, self._create(self.requested, options, voice))
                return True
            try:
                await self._pend(voice, self._put(live, self.requested), live)
            except BaseException:
                self.requested = before if self._live is live else ()
                raise
            return False

    async def unsubscribe(self, services: Sequence[str] | None = None) -> None:
        """Gives up services; with the last of them, or with None, ends the subscription.

        Raises:
            KandyError: ``authentication:6``, or the number of a subscription that is gone. It has been told.
        """
        async with self._lock:
            if (live := self._live) is None:
                return
            rest = () if services is None else tuple(s for s in live.answer.services if s not in services)
            await self._pend(live.voice, self._put(live, rest) if rest else self._end(live), live)
            self.requested = rest

    async def shut_down(self) -> None:
        """Ends the subscription when its client is destroyed; nothing is raised."""
        if (live := self._live) is None:
            return
        if live.renewer is not None:
            live.renewer.cancel()
        async with self._lock:
            if self._live is live:
                await self._end(live, GRACE)
                live.voice.changed()

    async def _pend(self, voice: Voice, work: Coroutine[object, object, None], live: _Live | None = None) -> None:
        """Does something while the state says that it is being done."""
        self.pending = True
        voice.changed()
        try:
            await work
        except KandyError as error:
            self.pending = False
            voice.failed(error)
            if isinstance(error, Gone) and live is not None:
                self._over(live, "GONE")
            raise
        except BaseException:
            self.pending = False
            voice.changed()
            raise
        self.pending = False
        voice.changed()

    # --- made -------------------------------------------------------------------------------------------------------

    async def _create(self, services: Sequence[str], options: Options, voice: Voice) -> None:
        core = self._core
        self._making = username = core.rest.username
        try:
            live = _Live(await requests.post(core, services, options), username, voice)
            await self._open(live)
        finally:
            self._making = None
        self._live = live
        self._began()
        self._connection(live, True)
        live.follower = core.tasks.start(self._follow(live), "notifications of a Kandy subscription")
        live.renewer = core.tasks.start(self._renew(live), "renewals of a Kandy subscription")

    async def _open(self, live: _Live) -> None:
        """Opens the first socket."""
        core = self._core
        try:
            live.channel = Channel(
                core.transport,
                lambda: self._socket_url(live),
                core.reconnect,
                core.config.ping_interval,
                lambda notification: self._heard(live, notification),
                lambda connected: self._connection(live, connected),
            )
            try:
                await live.channel.open()
            except (ConnectionFailed, TimedOut) as error:
                code = SOCKET_FAILED_UC if core.uc else SOCKET_FAILED
                raise KandyError(code, f"The notification socket could not be opened. {words(error)}") from error
        except BaseException:
            # What the server has made must not outlive what the app knows of it.
            await settle(requests.delete(core, live.answer.path))
            raise

    # --- renewed and changed ----------------------------------------------------------------------------------------

    async def _put(self, live: _Live, services: Sequence[str]) -> None:
        """Asks for this list of services (3.5)."""
        task, cancelled = await settle(requests.put(self._core, live.username, live.answer, services))
        if not task.cancelled():
            answer = task.result()
            if self._live is not live:
                number = NUMBER_GONE[self._core.config.product]
                raise KandyError(str(int(number)), f"Subscription no longer exists. Code {int(number)}.")
            live.answer = answer
        if cancelled:
            raise asyncio.CancelledError

    async def _renew(self, live: _Live) -> None:
        attempt, asked = 1, 0.0
        while True:
            expires = live.answer.expires
            delay = renewal_delay(attempt, self._core.config.expires if expires is None else expires)
            await asyncio.sleep(max(delay, asked))
            async with self._lock:
                if self._live is not live:
                    return
                try:
                    await self._put(live, live.answer.services)
                except KandyError as error:
                    if self._live is not live:
                        return
                    live.voice.renewed(attempt, error)
                    if isinstance(error, Gone):
                        self._over(live, "GONE")
                        return
                    attempt, asked = attempt + 1, error.retry_after or 0.0
                else:
                    live.voice.renewed(attempt, None)
                    attempt, asked = 1, 0.0

    # --- heard ------------------------------------------------------------------------------------------------------

    def _socket_url(self, live: _Live) -> str:
        core = self._core
        query = core.rest.shown.socket_query(core.config.token_on_socket)
        return core.config.websocket.base + live.answer.channel + query

    def _heard(self, live: _Live, notification: Notification) -> None:
        if self._live is live:
            self._hear(notification)

    def _connection(self, live: _Live, connected: bool) -> None:
        if (self._live is live or not connected) and connected is not self.connected:
            self.connected = connected
            self._core.emit(WsChange(connected, self._core.config.product))

    async def _follow(self, live: _Live) -> None:
        """Hears the channel to its end."""
        if live.channel is not None:
            await live.channel.run()
        self._over(live, "LOST_CONNECTION")

    def lose(self, reason: Reason, retry_after: float | None = None) -> None:
        """The server has told that the subscription is over (3.8).

        Args:
            reason: why.
            retry_after: seconds after which to subscribe again, if the server said so.
        """
        if self._live is not None:
            self._over(self._live, reason, retry_after)

    # --- ended ------------------------------------------------------------------------------------------------------

    async def _end(self, live: _Live, patience: float | None = None) -> None:
        """Ends it by the app's wish. It is over in any case, whether the server could be told or not (3.6)."""
        live.ending = True
        _, cancelled = await settle(self._leave(live, patience or self._core.transport.timeout))
        self._drop(live)
        self._connection(live, False)
        if cancelled:
            raise asyncio.CancelledError

    async def _leave(self, live: _Live, patience: float) -> None:
        try:
            if self._core.uc:
                await self._close(live)
            await requests.delete(self._core, live.answer.path, patience)
        finally:
            await self._close(live)

    async def _close(self, live: _Live) -> None:
        """Ends what goes on for a subscription, and closes its socket."""
        tasks = [task for task in (live.renewer, live.follower) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if live.channel is not None:
            await live.channel.close()
        self._connection(live, False)

    def _over(self, live: _Live, reason: Reason, retry_after: float | None = None) -> None:
        """It has ended without the app's wish."""
        if self._live is not live or live.ending:
            return
        self._drop(live)
        if live.channel is not None:
            live.channel.end()
            self._core.tasks.start(live.channel.close(), "end of a Kandy subscription")
        current = asyncio.current_task()
        for task in (live.renewer, live.follower):
            if task is not None and task is not current:
                task.cancel()
        self._connection(live, False)
        live.voice.lost(reason, retry_after)

    def _drop(self, live: _Live) -> None:
        if self._live is live:
            self._live = None
            self.requested = ()
