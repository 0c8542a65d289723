"""The broker of a system that is one process.

What the store commits goes straight to the handler, in the same turn of the event loop. The history is the store's
journal; the latest events of each topic that is listened to are also kept in memory, because those are what a client
that was away for a moment asks for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

import structlog

from offhook.broker.handlers import call
from offhook.broker.journal import Journal, JournalLeases, read_on
from offhook.broker.recent import RECENT, following
from offhook.domain.events import Position, Topic
from offhook.ports import EVERY_NODE, Command, Handlers, HistoryLost, Publication

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
        elif self.misses(publication):
            self.recent.clear()
        self.recent.append(publication)
        self.saw(publication.position.offset)

    def misses(self, publication: Publication) -> bool:
        """Whether events before this one were never heard of."""
        return self.head is not None and publication.position.offset > self.head + 1

    def saw(self, offset: int) -> None:
        self.head = offset if self.head is None else max(self.head, offset)


class MemoryBroker(JournalLeases):
    """``ports.Broker`` within one process.

    Give its ``deliver`` to the store as what to call after a commit.

    Args:
        journal: the durable history and the leases.
        recent: events to keep in memory of each topic that is listened to.
    """

    def __init__(self, journal: Journal, *, recent: int = RECENT) -> None:
        super().__init__(journal)
        self._recent = recent
        self._heard: dict[Topic, _Heard] = {}
        self._node: str | None = None
        self._handlers = Handlers()
        self._epoch = journal.epoch

    def start(self, node: str, handlers: Handlers) -> None:
        """As ``ports.Broker`` says. An exception of a handler is logged and keeps nothing from anyone.

        No command is ever lost and nothing is late here, so ``resync`` and ``late`` are not called.
        """
        if self._node is not None:
            raise RuntimeError("the broker has been started")
        self._node = node
        self._handlers = handlers

    @property
    def epoch(self) -> str:
        """As ``ports.Broker`` says."""
        return self._journal.epoch

    @property
    def connected(self) -> bool:
        """Nothing can come between."""
        return True

    @property
    def measures(self) -> Mapping[str, int]:
        """There is nothing to count."""
        return {}

    def deliver(self, publications: Sequence[Publication]) -> None:
        """Hands what was committed to the handler, as far as this node listens.

        Args:
            publications: in the order of the commits; each topic's without gaps, but for commits that became known to
                nobody: a database may take one and be away before it has said so.
        """
        self._check_epoch()
        for publication in publications:
            heard = self._heard.get(publication.topic)
            if heard is None or publication.position.epoch != self._epoch:
                continue
            missed = heard.misses(publication)
            heard.take(publication, self._recent)
            call("publication_failed", publication.topic, self._handlers.publication, publication)
            if missed:
                call("gap_failed", publication.topic, self._handlers.gap, publication.topic)

    def _check_epoch(self) -> None:
        """If the journal has become another history, everything starts over."""
        if self._epoch == self._journal.epoch:
            return
        self._epoch = self._journal.epoch
        for topic in list(self._heard):
            self._heard[topic] = _Heard()
            call("gap_failed", topic, self._handlers.gap, topic)

    async def subscribe(self, topic: Topic) -> None:
        """As ``ports.Broker`` says."""
        self._heard.setdefault(topic, _Heard())

    async def unsubscribe(self, topic: Topic) -> None:
        """As ``ports.Broker`` says."""
        self._heard.pop(topic, None)

    async def position(self, topic: Topic) -> Position:
        """As ``ports.Broker`` says."""
        self._check_epoch()
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
        self._check_epoch()
        epoch = self._epoch
        if after.epoch != epoch:
            raise HistoryLost(f"{topic} is in epoch {epoch}, not {after.epoch}")
        heard = self._heard.get(topic)
        if heard is not None and heard.head is None and self._journal.newest(topic) == after.offset:
            # Offsets only grow: what has not grown beyond ``after`` by now had not when the topic was subscribed to.
            heard.saw(after.offset)
        if heard is not None and (recent := following(heard.recent, heard.head, after.offset, limit)) is not None:
            return recent
        return await read_on(self._journal, topic, after, limit)

    async def send(self, node: str, command: Command) -> bool:
        """As ``ports.Broker`` says. The handler is called in the event loop's next turn."""
        if self._node is None or node not in (self._node, EVERY_NODE):
            return False
        asyncio.get_running_loop().call_soon(self._take, command)
        return True

    def _take(self, command: Command) -> None:
        try:
            self._handlers.command(command)
        except Exception:
            log.exception("command_failed", command=type(command).__name__)

    async def close(self) -> None:
        """As ``ports.Broker`` says. Nothing is delivered any more; the store closes the journal."""
        self._heard.clear()
        self._handlers = Handlers()
        self._node = None
