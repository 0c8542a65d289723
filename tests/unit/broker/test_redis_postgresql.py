"""Two nodes as they really are: a store and a broker each, on one PostgreSQL and one Redis, with Redis failing."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.contract.systems import ManualClock, a_user
from tests.databases import a_database
from tests.redis_servers import RedisServer
from tests.unit.broker.shared import until

from offhook.broker.mesh import parse_broker_url
from offhook.broker.redis import RedisBroker
from offhook.domain.events import Origin, Topic, UserUpdated, application_topic, user_topic
from offhook.ports import Handlers, Publication, Transaction
from offhook.storage.postgres import PostgresStore

EVERYBODY = application_topic(1)
TOPICS = [EVERYBODY, *(user_topic(number) for number in range(4))]
WORKERS = 8


class Node:
    """A store with its broker, and what that said."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: dict[Topic, list[Publication]] = defaultdict(list)
        self.answered: set[str] = set()
        self.late = 0
        self.gaps: list[Topic] = []

    async def open(self, url: str, redis: str) -> Node:
        self.store = await PostgresStore.open(
            url, lambda publications: self.broker.deliver(publications), clock=ManualClock()
        )
        self.broker = RedisBroker(self.store.journal, parse_broker_url(redis))
        self.broker.start(self.name, Handlers(publication=self._hear, gap=self.gaps.append, late=self._hear_late))
        await asyncio.gather(*(self.broker.subscribe(topic) for topic in TOPICS))
        return self

    def _hear(self, publication: Publication) -> None:
        self.heard[publication.topic].append(publication)
        if publication.origin is not None:
            self.answered.add(publication.origin.receipt)

    def _hear_late(self, publication: Publication, newer: Sequence[Publication]) -> None:
        self.late += 1
        offsets = [each.position.offset for each in newer]
        heard = self.heard[publication.topic][-1].position.offset
        assert offsets == list(range(publication.position.offset + 1, heard + 1)), offsets
        assert publication.origin is not None
        self.answered.add(publication.origin.receipt)

    async def close(self) -> None:
        await self.broker.close()
        await self.store.close()


@pytest.fixture
async def nodes(server: RedisServer) -> AsyncIterator[list[Node]]:
    with a_database() as url:
        nodes = [await Node(f"node-{number}").open(url, server.url) for number in range(2)]
        yield nodes
        await asyncio.gather(*(node.close() for node in nodes))


async def test_all_events_on_both_nodes_once_and_in_order_and_every_request_is_answered(
    nodes: list[Node], server: RedisServer
) -> None:
    await until(lambda: all(node.broker.connected for node in nodes))
    numbers, asked, stopping = itertools.count(), {node.name: set[str]() for node in nodes}, asyncio.Event()

    async def work(node: Node) -> None:
        while not stopping.is_set():
            number = next(numbers)
            receipt = f"r-{number}"

            def change(tx: Transaction, number: int = number, receipt: str = receipt) -> None:
                event = UserUpdated(a_user(1, f"user-{number}", id=number % 4))
                tx.publish(user_topic(number % 4), event, Origin(1, receipt))
                tx.publish(EVERYBODY, event, Origin(1, receipt))

            await node.store.transact(change)
            asked[node.name].add(receipt)

    working = [asyncio.create_task(work(node)) for node in nodes for _ in range(WORKERS)]
    try:
        await until(lambda: len(nodes[0].heard[EVERYBODY]) > 300, within=30.0)
        server.kill()
        away = len(nodes[0].heard[EVERYBODY])
        await until(lambda: len(nodes[0].heard[EVERYBODY]) > away + 200, within=30.0)
        await server.start()
        await until(lambda: all(node.broker.connected for node in nodes))
        back = len(nodes[0].heard[EVERYBODY])
        await until(lambda: len(nodes[0].heard[EVERYBODY]) > back + 300, within=30.0)
    finally:
        stopping.set()
        await asyncio.gather(*working)
    heads = await nodes[0].store.journal.heads(TOPICS)
    await until(lambda: all(len(node.heard[topic]) >= heads[topic] for node in nodes for topic in TOPICS))
    for node in nodes:
        for topic in TOPICS:
            offsets = [publication.position.offset for publication in node.heard[topic]]
            assert offsets == list(range(1, heads[topic] + 1)), (node.name, topic)
        assert not node.gaps
        # Who asked is answered, even if the event was read in the journal before its commit was known here.
        assert asked[node.name] <= node.answered
    for topic in TOPICS:
        one, other = ([publication.event for publication in node.heard[topic]] for node in nodes)
        assert one == other
    print(
        f"{sum(heads.values())} events, late {[node.late for node in nodes]}, {[node.broker.counts for node in nodes]}"
    )
