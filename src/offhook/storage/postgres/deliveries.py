"""Hands out what was committed in the order of the commits.

The answers to two commits may come in the other order than the commits happened. But a unit of work that published to
a topic holds that topic until its commit, so that the order in which units of work got their offsets is the order in
which they are to be told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from offhook.domain.events import Topic
from offhook.ports import Publication

log = structlog.get_logger(__name__)


class Turn:
    """A unit of work's place in the order."""

    __slots__ = ("publications", "told", "topics")

    def __init__(self, topics: frozenset[Topic], told: asyncio.Future[None]) -> None:
        self.topics = topics
        self.told = told
        self.publications: Sequence[Publication] | None = None
        """What was committed, nothing if it was taken back; None as long as that is open."""


class Deliveries:
    """The order of what is under way.

    Args:
        on_commit: is handed what each commit published.
    """

    def __init__(self, on_commit: Callable[[Sequence[Publication]], None]) -> None:
        self._on_commit = on_commit
        self._turns: dict[Topic, deque[Turn]] = {}

    def enter(self, topics: frozenset[Topic]) -> Turn:
        """What was published to these topics has its offsets now; call before the commit is sent."""
        turn = Turn(topics, asyncio.get_running_loop().create_future())
        for topic in topics:
            self._turns.setdefault(topic, deque()).append(turn)
        return turn

    async def settle(self, turn: Turn, publications: Sequence[Publication]) -> None:
        """The commit's outcome is known; returns when all before it and its own were handed out.

        Args:
            turn: from ``enter``.
            publications: what was committed; nothing if it was taken back.
        """
        turn.publications = publications
        self._advance([turn])
        if not turn.told.done():
            await turn.told

    def _advance(self, turns: Iterable[Turn]) -> None:
        waiting = deque(turns)
        while waiting:
            turn = waiting.popleft()
            if turn.publications is None or turn.told.done():
                continue
            if any(self._turns[topic][0] is not turn for topic in turn.topics):
                continue
            turn.told.set_result(None)
            for topic in turn.topics:
                queue = self._turns[topic]
                queue.popleft()
                if queue:
                    waiting.append(queue[0])
                else:
                    del self._turns[topic]
            if turn.publications:
                try:
                    self._on_commit(turn.publications)
                except Exception:
                    log.exception("delivery_failed", publications=len(turn.publications))
