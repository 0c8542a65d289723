"""The broker of a system that is one process.

What the store commits goes straight to the handler, in the same turn of the event loop. The history is the store's
journal; the latest events of each topic that is listened to are also kept in memory, because those are what a client
that was away for a moment asks for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import islice

import structlog

from offhook.broker.journal import Journal
from offhook.domain.events import Position, Topic
from offhook.ports import EVERY_NODE, Clock, Command, HistoryLost, Publication

RECENT = 128
"""Events of a topic that are kept in memory."""

log = structlog.get_logger(__name__)


class _Heard:
    """A topic that is listened to."""

    __slots__ = ("head", "recent")

    def __init__(self) -> None:
        self.head: int | None = None
        """Offset of the last event, once known."""
        self.recent: deque[Publication] | None = None
        """The last events, without gaps; made with the first, since most users' topics are silent."""

    def take(self, publication: Publication, most: int) -> None:
        if self.recent is None:
            self.recent = deque(maxlen=most)
        self.recent.append(publication)
        self.saw(publication.position.offset)

    def saw(self, offset: int) -> None:
        self.head = offset if self.head is None else max(self.head, offset)

    def after(self, offset: int, limit: int) -> Sequence[Publication] | None:
        """The events after an offset, or None if it takes the journal to tell."""
        if self.head is None or offset > self.head:
            return None
        if offset == self.head:
            return ()
        if not self.recent or self.recent[-1].position.offset != self.head:
            return None
        skip = offset + 1 - self.recent[0].position.offset
        return None if skip < 0 else list(islice(self.recent, skip, skip + limit))


class MemoryBroker:
    """``ports.Broker`` within one process.

    Give its ``deliver`` to the store as what to call after a commit.

    Args:
        journal: the durable history and the leases.
        clock: tells when a lease runs out.
        recent: events to keep in memory of each topic that is listened to.
    """

    def __init__(self, journal: Journal, clock: Clock, *, recent: int = RECENT) -> None:
        self._journal = journal
        self._clock = clock
        self._recent = recent
        self._heard: dict[Topic, _Heard] = {}
        self._node: str | None = None
        self._on_publication: Callable[[Publication], None] = _nobody
        self._on_command: Callable[[Command], None] = _nobody

    def start(
        self, node: str, on_publication: Callable[[Publication], None], on_command: Callable[[Command], None]
    ) -> None:
        """As ``ports.Broker`` says. An exception of a handler is logged and keeps nothing from anyone."""
        if self._node is not None:
            raise RuntimeError("the broker has been started")
        self._node = node
        self._on_publication = on_publication
        self._on_command = on_command

    @property
    def epoch(self) -> str:
        """As ``ports.Broker`` says."""
        return self._journal.epoch

    def deliver(self, publications: Sequence[Publication]) -> None:
        """Hands what was committed to the handler, as far as this node listens.

        Args:
            publications: in the order of the commits; each topic's without gaps.
        """
        for publication in publications:
            heard = self._heard.get(publication.topic)
            if heard is None:
                continue
            heard.take(publication, self._recent)
            try:
                self._on_publication(publication)
            except Exception:
                log.exception("publication_failed", topic=publication.topic)

    async def subscribe(self, topic: Topic) -> None:
        """As ``ports.Broker`` says."""
        self._heard.setdefault(topic, _Heard())

    async def unsubscribe(self, topic: Topic) -> None:
        """As ``ports.Broker`` says."""
        self._heard.pop(topic, None)

    async def position(self, topic: Topic) -> Position:
        """As ``ports.Broker`` says."""
        heard = self._heard.get(topic)
        if heard is not None and heard.head is not None:
            return Position(self._journal.epoch, heard.head)
        offset = await self._journal.head(topic)
        if heard is not None:
            heard.saw(offset)
            assert heard.head is not None
            offset = heard.head
        return Position(self._journal.epoch, offset)

    async def history(self, topic: Topic, after: Position, limit: int) -> Sequence[Publication]:
        """As ``ports.Broker`` says."""
        epoch = self._journal.epoch
        if after.epoch != epoch:
            raise HistoryLost(f"{topic} is in epoch {epoch}, not {after.epoch}")
        heard = self._heard.get(topic)
        if heard is not None and heard.head is None and self._journal.newest(topic) == after.offset:
            # Offsets only grow: what has not grown beyond ``after`` by now had not when the topic was subscribed to.
            heard.saw(after.offset)
        if heard is not None and (recent := heard.after(after.offset, limit)) is not None:
            return recent
        recorded = await self._journal.read(topic, after.offset, limit)
        if not recorded.oldest - 1 <= after.offset <= recorded.head:
            raise HistoryLost(
                f"{topic} keeps {recorded.oldest} to {recorded.head}, which does not continue {after.offset}"
            )
        return [Publication(topic, Position(epoch, offset), event) for offset, event in recorded.events]

    async def acquire_lease(self, name: str, holder: str, ttl: float) -> bool:
        """As ``ports.Broker`` says."""
        now = self._clock.now()
        return await self._journal.acquire_lease(name, holder, now, now + timedelta(seconds=ttl))

    async def release_lease(self, name: str, holder: str) -> None:
        """As ``ports.Broker`` says."""
        await self._journal.release_lease(name, holder)

    async def lease_holder(self, name: str) -> str | None:
        """As ``ports.Broker`` says."""
        return await self._journal.lease_holder(name, self._clock.now())

    async def send(self, node: str, command: Command) -> bool:
        """As ``ports.Broker`` says. The handler is called in the event loop's next turn."""
        if self._node is None or node not in (self._node, EVERY_NODE):
            return False
        asyncio.get_running_loop().call_soon(self._take, command)
        return True

    def _take(self, command: Command) -> None:
        try:
            self._on_command(command)
        except Exception:
            log.exception("command_failed", command=type(command).__name__)

    async def close(self) -> None:
        """As ``ports.Broker`` says. Nothing is delivered any more; the store closes the journal."""
        self._heard.clear()
        self._on_publication = self._on_command = _nobody
        self._node = None


def _nobody(_: object) -> None:
    """Hears what nobody else does."""
