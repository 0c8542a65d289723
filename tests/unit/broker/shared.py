"""A journal in memory that several brokers share, as nodes share a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.contract.systems import a_user

from offhook.domain.events import Event, Origin, Position, Topic, UserUpdated
from offhook.errors import Unavailable
from offhook.ports import Publication

USER = a_user(1, "alice", id=1)


def an_event(number: int = 0) -> UserUpdated:
    return UserUpdated(a_user(1, f"user-{number}", id=1))


@dataclass(frozen=True, slots=True)
class Page:
    head: int
    oldest: int
    events: tuple[tuple[int, Event], ...]


class SharedJournal:
    """Implements ``broker.journal.Journal``. What is committed is readable at once, before any broker is told of it."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.events: dict[Topic, list[Event]] = {}
        self.gone: dict[Topic, int] = {}
        self.away = False
        self.reads = 0
        self.looks = 0
        self._leases: dict[str, tuple[str, float]] = {}

    def commit(self, topic: Topic, event: Event, origin: Origin | None = None) -> Publication:
        events = self.events.setdefault(topic, [])
        events.append(event)
        return Publication(topic, Position(self.epoch, len(events)), event, origin)

    def forget(self, topic: Topic, until: int) -> None:
        """Prunes what is not beyond an offset."""
        self.gone[topic] = until

    def page(self, topic: Topic, after: int, limit: int) -> Page:
        events, gone = self.events.get(topic, []), self.gone.get(topic, 0)
        start = max(after, gone)
        found = tuple(enumerate(events[start : start + limit], start + 1))
        return Page(len(events), gone + 1, found)

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the database is away")

    def newest(self, topic: Topic) -> int | None:
        return None

    async def head(self, topic: Topic) -> int:
        await self._reach()
        return len(self.events.get(topic, []))

    async def heads(self, topics: Sequence[Topic]) -> Mapping[Topic, int]:
        self.looks += 1
        await self._reach()
        return {topic: len(self.events[topic]) for topic in topics if topic in self.events}

    async def read(self, topic: Topic, after: int, limit: int) -> Page:
        self.reads += 1
        await self._reach()
        return self.page(topic, after, limit)

    async def acquire_lease(self, name: str, holder: str, ttl: float) -> bool:
        now = asyncio.get_running_loop().time()
        held = self._leases.get(name)
        if held is not None and held[0] != holder and held[1] > now:
            return False
        self._leases[name] = (holder, now + ttl)
        return True

    async def release_lease(self, name: str, holder: str) -> None:
        if self._leases.get(name, ("", 0.0))[0] == holder:
            del self._leases[name]

    async def lease_holder(self, name: str) -> str | None:
        held = self._leases.get(name)
        return held[0] if held is not None and held[1] > asyncio.get_running_loop().time() else None


async def until(condition: Callable[[], bool], within: float = 10.0) -> float:
    """Waits for a condition. Returns the seconds that took; fails after the bound."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        assert loop.time() - began < within, "it did not come about in time"
        await asyncio.sleep(0.002)
    return loop.time() - began
