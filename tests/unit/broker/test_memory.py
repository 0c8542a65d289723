"""What the in-process broker does beyond the port's contract: it keeps recent events and survives its handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests.contract.systems import NODE, a_user

from offhook.broker.journal import Journal, Recorded
from offhook.broker.memory import MemoryBroker
from offhook.domain.events import Position, Topic, UserUpdated
from offhook.errors import Unavailable
from offhook.ports import ApplicationChanged, Command, Handlers, HistoryLost, Publication, Transaction
from offhook.storage import SQLiteStore

TOPIC, OTHER = Topic("user.1"), Topic("user.2")
USER = a_user(1, id=1)


class CountedJournal:
    """A journal that counts how often it is read."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.reads = 0
        self.epoch = journal.epoch
        self.acquire_lease = journal.acquire_lease
        self.release_lease = journal.release_lease
        self.lease_holder = journal.lease_holder
        self.newest = journal.newest

    async def head(self, topic: Topic) -> int:
        self.reads += 1
        return await self._journal.head(topic)

    async def heads(self, topics: Sequence[Topic]) -> Mapping[Topic, int]:
        self.reads += 1
        return await self._journal.heads(topics)

    async def read(self, topic: Topic, after: int, limit: int) -> Recorded:
        self.reads += 1
        return await self._journal.read(topic, after, limit)


class Setting:
    """A broker that keeps four events of each topic, on a real store."""

    store: SQLiteStore
    journal: CountedJournal
    broker: MemoryBroker

    def deliver(self, publications: Sequence[Publication]) -> None:
        self.broker.deliver(publications)

    async def publish(self, topic: Topic = TOPIC, count: int = 1) -> None:
        def work(tx: Transaction) -> None:
            for _ in range(count):
                tx.publish(topic, UserUpdated(USER))

        await self.store.transact(work)

    async def after(self, offset: int, limit: int = 100) -> list[int]:
        found = await self.broker.history(TOPIC, Position(self.journal.epoch, offset), limit)
        return [publication.position.offset for publication in found]


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    setting = Setting()
    setting.store = await SQLiteStore.open(tmp_path / "offhook.db", setting.deliver)
    setting.journal = CountedJournal(setting.store.journal)
    setting.broker = MemoryBroker(setting.journal, recent=4)
    yield setting
    await setting.broker.close()
    await setting.store.close()


async def test_recent_history_takes_no_read_and_older_history_does(setting: Setting) -> None:
    await setting.broker.subscribe(TOPIC)
    await setting.publish(count=6)
    assert await setting.after(2) == [3, 4, 5, 6]
    assert await setting.after(3, limit=2) == [4, 5]
    assert await setting.after(6) == []
    assert (await setting.broker.position(TOPIC)).offset == 6
    assert setting.journal.reads == 0
    assert await setting.after(1) == [2, 3, 4, 5, 6]
    assert setting.journal.reads == 1


async def test_recent_publications_are_shared_with_what_gateways_keep_on_them(setting: Setting) -> None:
    heard: list[Publication] = []
    setting.broker.start(NODE, Handlers(publication=heard.append))
    await setting.broker.subscribe(TOPIC)
    await setting.publish()
    (again,) = await setting.broker.history(TOPIC, Position(setting.journal.epoch, 0), 10)
    assert again is heard[0]


async def test_the_position_of_a_silent_topic_is_read_once(setting: Setting) -> None:
    await setting.publish(count=2)
    await setting.broker.subscribe(TOPIC)
    for _ in range(3):
        assert (await setting.broker.position(TOPIC)).offset == 2
        assert await setting.after(2) == []
    assert setting.journal.reads == 1
    assert await setting.after(1) == [2]


async def test_subscribing_again_after_a_gap_does_not_join_across_it(setting: Setting) -> None:
    await setting.broker.subscribe(TOPIC)
    await setting.publish(count=2)
    await setting.broker.unsubscribe(TOPIC)
    await setting.publish(count=2)
    await setting.broker.subscribe(TOPIC)
    await setting.publish(count=2)
    assert await setting.after(0) == [1, 2, 3, 4, 5, 6]
    assert await setting.after(4) == [5, 6]


async def test_what_is_known_of_the_head_before_its_delivery_is_not_forgotten(setting: Setting) -> None:
    await setting.broker.subscribe(TOPIC)
    epoch = setting.journal.epoch
    first, second = (Publication(TOPIC, Position(epoch, offset), UserUpdated(USER)) for offset in (1, 2))
    # The store committed both; the position was read before either was delivered.
    setting.broker.deliver = lambda publications: None  # type: ignore[method-assign]
    await setting.publish(count=2)
    assert (await setting.broker.position(TOPIC)).offset == 2
    MemoryBroker.deliver(setting.broker, [first])
    assert (await setting.broker.position(TOPIC)).offset == 2
    assert await setting.after(0) == [1, 2]
    MemoryBroker.deliver(setting.broker, [second])
    reads = setting.journal.reads
    assert await setting.after(0) == [1, 2]
    assert setting.journal.reads == reads


async def test_handlers_that_raise_cost_no_other_publication_or_command(setting: Setting) -> None:
    heard: list[int] = []
    commands: list[Command] = []

    def hear(publication: Publication) -> None:
        heard.append(publication.position.offset)
        raise ValueError("a handler's defect")

    def obey(command: Command) -> None:
        commands.append(command)
        raise ValueError("a handler's defect")

    setting.broker.start(NODE, Handlers(publication=hear, command=obey))
    await setting.broker.subscribe(TOPIC)
    await setting.publish(count=3)
    assert heard == [1, 2, 3]
    for number in (1, 2):
        assert await setting.broker.send(NODE, ApplicationChanged(number, closed=False))
    while len(commands) < 2:
        await asyncio.sleep(0)
    assert commands == [ApplicationChanged(1, closed=False), ApplicationChanged(2, closed=False)]


async def test_a_broker_is_started_once_and_before_that_nobody_takes_commands(setting: Setting) -> None:
    assert await setting.broker.send(NODE, ApplicationChanged(1, closed=False)) is False
    setting.broker.start(NODE, Handlers())
    with pytest.raises(RuntimeError):
        setting.broker.start(NODE, Handlers())
    await setting.broker.close()
    assert await setting.broker.send(NODE, ApplicationChanged(1, closed=False)) is False


async def test_without_storage_history_is_unavailable_rather_than_lost(setting: Setting) -> None:
    await setting.store.close()
    with pytest.raises(Unavailable):
        await setting.after(1)
    with pytest.raises(Unavailable):
        await setting.broker.acquire_lease("x", "a", 10)
    with pytest.raises(HistoryLost):
        await setting.broker.history(OTHER, Position("another", 0), 10)


async def test_a_topic_whose_end_is_known_takes_no_look_up(setting: Setting) -> None:
    await setting.publish(count=2)
    await setting.broker.subscribe(TOPIC)
    before = setting.journal.reads
    assert await setting.after(2) == []
    assert setting.journal.reads == before
    assert await setting.after(1) == [2]
    await setting.publish()
    assert await setting.after(2) == [3]


async def test_an_event_that_was_never_handed_out_is_a_gap(setting: Setting) -> None:
    """The store may have taken a commit of which nobody could say so."""
    heard: list[int] = []
    gaps: list[Topic] = []
    setting.broker.start(NODE, Handlers(publication=lambda each: heard.append(each.position.offset), gap=gaps.append))
    await setting.broker.subscribe(TOPIC)
    await setting.publish()
    deliver = setting.broker.deliver
    setting.broker.deliver = lambda publications: None  # type: ignore[method-assign]
    await setting.publish()
    setting.broker.deliver = deliver  # type: ignore[method-assign]
    await setting.publish(count=2)
    assert heard == [1, 3, 4] and gaps == [TOPIC]
    assert await setting.after(0) == [1, 2, 3, 4]


async def test_another_history_is_a_gap_of_every_topic(setting: Setting) -> None:
    gaps: list[Topic] = []
    setting.broker.start(NODE, Handlers(gap=gaps.append))
    await setting.broker.subscribe(TOPIC)
    await setting.broker.subscribe(OTHER)
    await setting.publish(count=2)
    before = setting.journal.epoch
    setting.journal.epoch = "another"
    assert (await setting.broker.position(TOPIC)).epoch == "another"
    assert sorted(gaps) == [TOPIC, OTHER]
    # What was committed to the old one, and comes only now, is none of the new one's.
    MemoryBroker.deliver(setting.broker, [Publication(TOPIC, Position(before, 7), UserUpdated(USER))])
    assert (await setting.broker.position(TOPIC)).offset == 2
    with pytest.raises(HistoryLost):
        await setting.broker.history(TOPIC, Position(before, 0), 10)
