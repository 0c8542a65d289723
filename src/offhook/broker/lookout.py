"""Looks up in the journal what did not come: the heads of the topics that are heard, and the events that are missing.

Whatever is lost on the way from another node is found here: by the next event's offset after ``PATIENCE``, else by the
next look at the heads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

import structlog

from offhook.broker.journal import Journal
from offhook.broker.sequencer import Line
from offhook.domain.events import Topic
from offhook.errors import OffhookError
from offhook.ports import HistoryLost, Publication

PATIENCE = 0.02
"""Seconds that a missing event is given to come by itself."""
LOOK_CALM, LOOK_AWAY = 5.0, 0.5
"""Seconds between looks at the heads of all topics: in peace, and while events may not come by themselves."""
PAGE = 200
"""Events read at once."""
CHUNK = 1_000
"""Topics whose heads are asked for at once."""
READERS = 4
"""Topics that are read at the same time."""
AGAIN_FIRST, AGAIN_MOST = 0.1, 1.0
"""Seconds until a look that failed is repeated."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What the broker counts.

    Attributes:
        gaps: times at which events were missing for longer than they were given.
        reads: pages of the journal that were read for what was missing.
        lost: times at which what was missing was gone from the journal as well.
        drops: publications that were not sent to other nodes, since Redis was away or slow.
        undecodable: messages that could not be read.
    """

    gaps: int = 0
    reads: int = 0
    lost: int = 0
    drops: int = 0
    undecodable: int = 0


class Lookout:
    """Keeps the lines of a node's topics in line with the journal.

    Args:
        journal: the durable history.
        lines: topic → its line, for all that are heard; the owner adds and removes them.
        hand_out: takes what is next.
        gap: is told of a topic of which events were lost for good.
        calm: says whether events come by themselves now.
        turned: is called after each look, since the journal may have become another history.
        counts: is added to.
    """

    def __init__(
        self,
        journal: Journal,
        lines: dict[Topic, Line],
        hand_out: Callable[[Sequence[Publication]], None],
        gap: Callable[[Topic], None],
        calm: Callable[[], bool],
        turned: Callable[[], None],
        counts: Counts,
    ) -> None:
        self._journal = journal
        self._lines = lines
        self._hand_out = hand_out
        self._gap = gap
        self._calm = calm
        self._turned = turned
        self._counts = counts
        self._due: dict[Topic, None] = {}
        self._looked: dict[Topic, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._filling: set[Line] = set()
        self._readers = asyncio.Semaphore(READERS)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins to look."""
        self._spawn(self._keep_looking())

    async def close(self) -> None:
        """Looks no more. Who waits for a look goes on without."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._answer(list(self._looked))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work, name="lookout")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- heads ------------------------------------------------------------------------------------------------------

    def look(self, topic: Topic) -> None:
        """Looks at a topic's head soon."""
        self._due[topic] = None
        self._wake.set()

    def look_at_all(self) -> None:
        """Looks at the heads of all topics soon."""
        self._due.update(dict.fromkeys(self._lines))
        self._wake.set()

    async def looked(self, topic: Topic) -> None:
        """Looks at a topic's head and waits for that; returns without if the journal is away."""
        future = self._looked.get(topic)
        if future is None:
            future = self._looked[topic] = asyncio.get_running_loop().create_future()
        self.look(topic)
        await asyncio.shield(future)

    async def _keep_looking(self) -> None:
        pause, looked_at = AGAIN_FIRST, time.monotonic()
        while True:
            # Looks at single topics, of which there may be many all the time, put off none at all of them.
            left = looked_at + (LOOK_CALM if self._calm() else LOOK_AWAY) - time.monotonic()
            if not self._due and left > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._wake.wait()
            self._wake.clear()
            at_all = time.monotonic() - looked_at >= (LOOK_CALM if self._calm() else LOOK_AWAY)
            if at_all:
                self._due.update(dict.fromkeys(self._lines))
            topics = [topic for topic in self._due if topic in self._lines]
            waiting = [topic for topic in self._due if topic not in self._lines]
            self._due.clear()
            self._answer(waiting)
            try:
                for start in range(0, len(topics), CHUNK):
                    await self._look_at(topics[start : start + CHUNK])
            except OffhookError as error:
                log.warning("heads_unknown", error=error.message)
                self._answer(topics)
                self._due.update(dict.fromkeys(topics))
                await asyncio.sleep(pause)
                pause = min(2 * pause, AGAIN_MOST)
            except Exception:
                log.exception("heads_unknown")
                self._answer(topics)
                await asyncio.sleep(AGAIN_MOST)
            else:
                pause = AGAIN_FIRST
            if at_all:
                looked_at = time.monotonic()
            self._turned()

    async def _look_at(self, topics: Sequence[Topic]) -> None:
        before = {topic: self._lines[topic] for topic in topics if topic in self._lines}
        # Who waits from here on waits for the next look.
        waiting = {topic: self._looked.pop(topic) for topic in topics if topic in self._looked}
        try:
            heads = await self._journal.heads(list(before))
        except BaseException:
            for topic, future in waiting.items():
                if topic in self._looked:
                    _finish(future)
                else:
                    self._looked[topic] = future
            raise
        for topic, line in before.items():
            if self._lines.get(topic) is line:
                self._hand_out(line.head(heads.get(topic, 0)))
                if line.behind:
                    self.missing(line)
        for future in waiting.values():
            _finish(future)

    def _answer(self, topics: Sequence[Topic]) -> None:
        for topic in topics:
            future = self._looked.pop(topic, None)
            if future is not None:
                _finish(future)

    # --- events -----------------------------------------------------------------------------------------------------

    def missing(self, line: Line) -> None:
        """A line is behind: it is given a moment, then it is brought up from the journal."""
        if line not in self._filling:
            self._filling.add(line)
            asyncio.get_running_loop().call_later(PATIENCE, self._out_of_patience, line, line.delivered)

    def _out_of_patience(self, line: Line, delivered: int | None) -> None:
        self._filling.discard(line)
        if self._lines.get(line.topic) is not line or not line.behind:
            return
        if line.delivered != delivered:
            # It has gone on since; what is missing now has been missing for less.
            self.missing(line)
            return
        self._filling.add(line)
        self._counts.gaps += 1
        self._spawn(self._fill(line))

    async def _fill(self, line: Line) -> None:
        pause = AGAIN_FIRST
        try:
            while self._lines.get(line.topic) is line and line.behind:
                try:
                    async with self._readers:
                        await self.read(line)
                    pause = AGAIN_FIRST
                except OffhookError as error:
                    log.warning("gap_not_read", topic=line.topic, error=error.message)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, AGAIN_MOST)
                except Exception:
                    log.exception("gap_not_read", topic=line.topic)
                    await asyncio.sleep(AGAIN_MOST)
        finally:
            self._filling.discard(line)

    async def read(self, line: Line) -> int:
        """Reads one page of what a line is missing and hands it out.

        Returns:
            The topic's head as the journal said it.

        Raises:
            Unavailable: storage is away.
        """
        delivered, asked, epoch = line.delivered or 0, line.known, self._journal.epoch
        self._counts.reads += 1
        try:
            recorded = await self._journal.read(line.topic, delivered, PAGE)
        except HistoryLost as error:
            # Stored by a newer version.
            log.warning("gap_unreadable", topic=line.topic, error=str(error))
            head = await self._journal.head(line.topic)
            if self._lines.get(line.topic) is line:
                self._lost(line.topic)
                self._hand_out(line.skip(head))
            return head
        if self._lines.get(line.topic) is line:
            told = line.page(recorded, epoch, asked)
            if told.lost:
                self._lost(line.topic)
            self._hand_out(told.out)
        return recorded.head

    def _lost(self, topic: Topic) -> None:
        log.warning("history_lost", topic=topic)
        self._counts.lost += 1
        self._gap(topic)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
