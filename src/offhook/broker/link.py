"""A Redis server as the broker uses it: one connection to hear channels on, and one to publish on.

They are two, so that a node which hears more than it can take in loses only what it was to hear, and says so by a
broken connection; and so that what it publishes does not wait behind that.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

import structlog

from offhook.broker.wire import Dial, Wire

MAX_UNANSWERED = 100_000
"""Commands to a server that may wait for their answers."""

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who uses a link. None of these may raise or wait."""

    def message(self, channel: bytes, data: bytes) -> None:
        """A message came on a channel."""

    def joined(self, channel: bytes) -> None:
        """From here on, what is published on the channel is heard."""

    def left(self, channels: Iterable[bytes]) -> None:
        """What was published on these channels may not have been heard since some moment before."""

    def misdirected(self) -> None:
        """The server said that a channel is another's."""

    def turned(self) -> None:
        """The link has become steady or unsteady."""


class _Hearing:
    """The connection on which messages come."""

    def __init__(self, dial: Dial, listener: Listener, name: str) -> None:
        self._listener = listener
        self.wire = Wire(dial, self, f"{name} hearing")
        self.wanted: set[bytes] = set()
        self.joined: set[bytes] = set()
        self._leaving: dict[bytes, tuple[int, float]] = {}
        """How often it was asked to leave a channel that it has not confirmed, and when last."""
        self._moved: set[bytes] = set()
        """Wanted channels of which the server has said that they are another's now."""
        self._refusal = ""
        self._asked_at = 0.0

    def want(self, channel: bytes) -> None:
        if channel not in self.wanted:
            self.wanted.add(channel)
            self.wire.send(b"SSUBSCRIBE", channel)

    def unwant(self, channel: bytes) -> None:
        if channel in self.wanted:
            self.wanted.discard(channel)
            self.joined.discard(channel)
            if channel in self._moved:
                # It would answer with an error that names no channel.
                self._moved.discard(channel)
            elif self.wire.send(b"SUNSUBSCRIBE", channel):
                self._leaving[channel] = self._leaving.get(channel, (0, 0.0))[0] + 1, time.monotonic()

    def again(self) -> None:
        """Asks again for the channels that were asked for in vain, once all that was asked before is answered."""
        if len(self.joined) < len(self.wanted) and self.wire.settled_until > self._asked_at:
            self._ask(self.wanted - self.joined)

    def _ask(self, channels: Iterable[bytes]) -> None:
        self._asked_at = time.monotonic()
        # One command a channel: in a cluster, one command must not name channels of several slots.
        for channel in channels:
            if not self.wire.send(b"SSUBSCRIBE", channel):
                # ``again`` asks for the rest.
                break

    # --- the wire's side

    def raised(self) -> None:
        self._leaving.clear()
        self._moved.clear()
        self._ask(self.wanted)

    def broke(self) -> None:
        gone = list(self.joined)
        self.joined.clear()
        self._listener.left(gone)

    def steadied(self) -> None:
        self._listener.turned()

    def heard(self, reply: object) -> None:
        match reply:
            case [b"smessage", bytes(channel), bytes(data)]:
                self._listener.message(channel, data)
            case [b"ssubscribe", bytes(channel), _]:
                if channel in self.wanted:
                    self._moved.discard(channel)
                    self.joined.add(channel)
                    self._listener.joined(channel)
            case [b"sunsubscribe", bytes(channel), _]:
                self._ousted(channel)
            case b"PONG" | [b"pong", *_]:
                self.wire.answered()
                # Of what was asked before the ping, the rest was answered with errors.
                settled = self.wire.settled_until
                self._leaving = {name: (count, at) for name, (count, at) in self._leaving.items() if at >= settled}
            case Exception():
                self._refusal = _log_refusal(self.wire.name, reply, self._refusal)
                self._listener.misdirected()
            case _:
                log.warning("redis_reply_unknown", server=self.wire.name)

    def _ousted(self, channel: bytes) -> None:
        expected, at = self._leaving.pop(channel, (0, 0.0))
        if expected > 1:
            self._leaving[channel] = expected - 1, at
        if not expected and channel in self.joined:
            # The channel's slot has moved to another server.
            self.joined.discard(channel)
            self._moved.add(channel)
            self._listener.left((channel,))
            self._listener.misdirected()


class _Talking:
    """The connection on which commands go out."""

    def __init__(self, dial: Dial, listener: Listener, name: str) -> None:
        self._listener = listener
        self.wire = Wire(dial, self, f"{name} talking")
        self._asked: deque[asyncio.Future[object] | None] = deque()
        self._refusal = ""

    def say(self, *arguments: bytes) -> bool:
        if len(self._asked) > MAX_UNANSWERED or not self.wire.send(*arguments):
            return False
        self._asked.append(None)
        return True

    async def ask(self, within: float, *arguments: bytes) -> object:
        if not self.wire.send(*arguments):
            return None
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        await asyncio.wait((answer,), timeout=within)
        return answer.result() if answer.done() else None

    # --- the wire's side

    def raised(self) -> None:
        """See ``wire.Ears``."""

    def broke(self) -> None:
        asked, self._asked = self._asked, deque()
        for answer in asked:
            if answer is not None and not answer.done():
                answer.set_result(None)

    def steadied(self) -> None:
        self._listener.turned()

    def heard(self, reply: object) -> None:
        if reply == b"PONG":
            self.wire.answered()
            return
        answer = self._asked.popleft() if self._asked else None
        if isinstance(reply, Exception):
            self._refusal = _log_refusal(self.wire.name, reply, self._refusal)
            self._listener.misdirected()
        if answer is not None and not answer.done():
            answer.set_result(reply)


class Link:
    """A Redis server.

    Args:
        dial: makes an unconnected connection of the client library.
        listener: who uses the link.
        name: host and port, for the log.
    """

    def __init__(self, dial: Dial, listener: Listener, name: str) -> None:
        self.name = name
        self._hearing = _Hearing(dial, listener, name)
        self._talking = _Talking(dial, listener, name)

    def start(self) -> None:
        """Begins to connect."""
        self._hearing.wire.start()
        self._talking.wire.start()

    async def close(self) -> None:
        """Closes both connections. Nothing is told to the listener any more."""
        await asyncio.gather(self._hearing.wire.close(), self._talking.wire.close())

    @property
    def steady(self) -> bool:
        """Whether both connections stand and the server answers in time."""
        return self._hearing.wire.steady and self._talking.wire.steady

    @property
    def talks(self) -> bool:
        """Whether commands can be sent."""
        return self._talking.wire.up

    @property
    def breaks(self) -> int:
        """How many connections have broken."""
        return self._hearing.wire.breaks + self._talking.wire.breaks

    def want(self, channel: bytes) -> None:
        """Hears a channel from some moment on, which ``joined`` tells, again after each break."""
        self._hearing.want(channel)

    def unwant(self, channel: bytes) -> None:
        """Hears a channel no longer."""
        self._hearing.unwant(channel)

    def again(self) -> None:
        """Asks again for the channels that were asked for in vain."""
        self._hearing.again()

    def heard(self, channel: bytes) -> bool:
        """Whether a channel is heard now."""
        return channel in self._hearing.joined

    @property
    def complete(self) -> bool:
        """Whether all channels that are wanted are heard."""
        return len(self._hearing.joined) == len(self._hearing.wanted)

    def publish(self, channel: bytes, data: bytes) -> bool:
        """Publishes without waiting. Returns False if the server is away or too far behind."""
        return self._talking.say(b"SPUBLISH", channel, data)

    async def ask(self, within: float, *arguments: bytes) -> object:
        """Sends a command and waits for its reply.

        Args:
            within: seconds.
            arguments: the command.

        Returns:
            The reply, which may be an exception; None if there was none in time.
        """
        return await self._talking.ask(within, *arguments)


def _log_refusal(server: str, error: Exception, before: str) -> str:
    """Logs an error reply, unless it is of the same kind as the one before. Returns its kind."""
    kind = str(error).partition(" ")[0]
    if kind != before:
        log.warning("redis_refused", server=server, error=str(error))
    return kind
