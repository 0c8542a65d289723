"""What brokers need from durable storage, and what they do with it alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from offhook.domain.events import Event, Position, Topic
from offhook.ports import HistoryLost, Publication


class Recorded(Protocol):
    """Part of a topic's history, all of one moment."""

    @property
    def head(self) -> int:
        """Offset of the topic's last event; 0 if it has none."""

    @property
    def oldest(self) -> int:
        """Offset of the oldest event that is kept; ``head + 1`` if none is."""

    @property
    def events(self) -> Sequence[tuple[int, Event]]:
        """Offsets and events, oldest first, without gaps."""


class Journal(Protocol):
    """The durable history of all topics, and the leases. Every method raises Unavailable if storage is away."""

    @property
    def epoch(self) -> str:
        """Names the history."""

    def newest(self, topic: Topic) -> int | None:
        """Offset of the last event that is or is about to be stored, if that is known without looking."""

    async def head(self, topic: Topic) -> int:
        """Offset of the topic's last event, 0 if it has none."""

    async def read(self, topic: Topic, after: int, limit: int) -> Recorded:
        """At most ``limit`` events after an offset, and the bounds of what there is."""

    async def heads(self, topics: Sequence[Topic]) -> Mapping[Topic, int]:
        """Offsets of the last events of many topics; 0 for those that have none."""

    async def acquire_lease(self, name: str, holder: str, ttl: float) -> bool:
        """Takes or renews a lease for ``ttl`` seconds by the storage's own clock.

        Returns False, changing nothing, while another holds it.
        """

    async def release_lease(self, name: str, holder: str) -> None:
        """Gives a lease back, if ``holder`` has it."""

    async def lease_holder(self, name: str) -> str | None:
        """Who holds the lease now."""


class JournalLeases:
    """The part of ``ports.Broker`` that is about leases: the journal has them.

    Args:
        journal: where they are kept.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def acquire_lease(self, name: str, holder: str, ttl: float) -> bool:
        """As ``ports.Broker`` says."""
        return await self._journal.acquire_lease(name, holder, ttl)

    async def release_lease(self, name: str, holder: str) -> None:
        """As ``ports.Broker`` says."""
        await self._journal.release_lease(name, holder)

    async def lease_holder(self, name: str) -> str | None:
        """As ``ports.Broker`` says."""
        return await self._journal.lease_holder(name)


async def read_on(journal: Journal, topic: Topic, after: Position, limit: int) -> Sequence[Publication]:
    """The events of a topic after a position of the journal's history.

    Args:
        journal: has them.
        topic: of them.
        after: not beyond the topic's head.
        limit: events at most.

    Raises:
        HistoryLost: some of them are gone.
        Unavailable: storage is away.
    """
    recorded = await journal.read(topic, after.offset, limit)
    if not recorded.oldest - 1 <= after.offset <= recorded.head:
        raise HistoryLost(f"{topic} keeps {recorded.oldest} to {recorded.head}, which does not continue {after.offset}")
    return [Publication(topic, Position(after.epoch, offset), event) for offset, event in recorded.events]
