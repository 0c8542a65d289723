"""What is missing is looked up, for the topic as it is heard now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.unit.broker.shared import Page, SharedJournal, an_event, until

from offhook.broker import lookout as lookout_module
from offhook.broker.lookout import LOOK_CALM, PATIENCE, Counts, Lookout
from offhook.broker.sequencer import Line
from offhook.domain.events import Topic
from offhook.ports import HistoryLost, Publication

TOPIC, OTHER = Topic("user.1"), Topic("user.2")


class Watch:
    """A lookout, its lines, and what it said in the order in which it did."""

    def __init__(self) -> None:
        self.journal = SharedJournal()
        self.lines: dict[Topic, Line] = {}
        self.said: list[int | str] = []
        self.calm = True
        self.lookout = Lookout(
            self.journal, self.lines, self.hand_out, self.gap, lambda: self.calm, lambda: None, Counts()
        )

    def hand_out(self, publications: object) -> None:
        assert isinstance(publications, list | tuple)
        self.said += [publication.position.offset for publication in publications]

    def gap(self, topic: Topic) -> None:
        self.said.append("gap")

    async def hear(self) -> Line:
        """Hears the topic from now on, whatever line it had."""
        line = self.lines[TOPIC] = Line(TOPIC)
        await self.lookout.looked(TOPIC)
        return line

    def take(self, line: Line, publication: Publication) -> None:
        self.hand_out(line.take(publication))
        if line.behind:
            self.lookout.missing(line)


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    watch.lookout.start()
    yield watch
    await watch.lookout.close()


@pytest.mark.parametrize("reading", [False, True], ids=["given a moment", "being read"])
async def test_who_hears_a_topic_again_does_not_wait_for_the_line_before(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, reading: bool
) -> None:
    before = await watch.hear()
    read, slow, reads = watch.journal.read, asyncio.Event(), 0

    async def read_slowly(topic: Topic, after: int, limit: int) -> Page:
        nonlocal reads
        reads += 1
        if reading and reads == 1:
            await slow.wait()
        return await read(topic, after, limit)

    monkeypatch.setattr(watch.journal, "read", read_slowly)
    watch.journal.commit(TOPIC, an_event())
    watch.take(before, watch.journal.commit(TOPIC, an_event()))
    if reading:
        await until(lambda: reads == 1)
    # Unsubscribed from and subscribed to again, while what was missing is still waited for.
    line = await watch.hear()
    assert line.delivered == 2 and not watch.said
    watch.journal.commit(TOPIC, an_event())
    watch.take(line, watch.journal.commit(TOPIC, an_event()))
    took = await until(lambda: watch.said == [3, 4], within=LOOK_CALM + 1)
    assert took < 10 * PATIENCE, "it was found at the next look only"
    slow.set()


async def test_a_gap_is_told_before_what_comes_after_it(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    line = await watch.hear()
    watch.journal.commit(TOPIC, an_event())

    async def read(topic: Topic, after: int, limit: int) -> Page:
        raise HistoryLost("stored by a newer version")

    async def head(topic: Topic) -> int:
        # While the answer is under way, the next event comes.
        watch.take(line, watch.journal.commit(TOPIC, an_event()))
        await asyncio.sleep(0)
        return 1

    monkeypatch.setattr(watch.journal, "read", read)
    monkeypatch.setattr(watch.journal, "head", head)
    watch.lookout.look(TOPIC)
    await until(lambda: len(watch.said) >= 2)
    assert watch.said == ["gap", 2]


@pytest.mark.parametrize("calm", [True, False], ids=["in peace", "while the broker is away"])
async def test_all_topics_are_looked_at_in_time_however_many_others_are_asked_for(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, calm: bool
) -> None:
    monkeypatch.setattr(lookout_module, "LOOK_CALM" if calm else "LOOK_AWAY", 0.2)
    monkeypatch.setattr(watch, "calm", calm)
    await watch.hear()
    watch.journal.commit(TOPIC, an_event())
    async with asyncio.timeout(3):
        while watch.said != [1]:
            # As sessions do that come all the time.
            watch.lines[OTHER] = Line(OTHER)
            await watch.lookout.looked(OTHER)
