"""What the in-process broker needs from durable storage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from offhook.domain.events import Event, Topic


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

    async def acquire_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """Takes or renews a lease. Returns False, changing nothing, while another holds it."""

    async def release_lease(self, name: str, holder: str) -> None:
        """Gives a lease back, if ``holder`` has it."""

    async def lease_holder(self, name: str, now: datetime) -> str | None:
        """Who holds the lease now."""
