"""Nodes with a broker each, on one journal and one Redis, and traffic among them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

from tests.unit.broker.shared import SharedJournal, an_event, until

from offhook.broker.mesh import parse_broker_url
from offhook.broker.redis import RedisBroker
from offhook.domain.events import Topic
from offhook.ports import Command, Handlers, Publication

PREFIX_BYTES = 6


class Node:
    """A broker and all that it said."""

    def __init__(self, journal: SharedJournal, url: str, prefix: str, name: str) -> None:
        self.name = name
        self.journal = journal
        self.heard: dict[Topic, list[int]] = defaultdict(list)
        self.publications: list[Publication] = []
        self.heard_at: dict[tuple[Topic, int], float] = {}
        self.commands: list[Command] = []
        self.gaps: list[Topic] = []
        self.late: list[Publication] = []
        self.resyncs = 0
        self.broker = RedisBroker(journal, parse_broker_url(url), prefix)

    def start(self) -> None:
        handlers = Handlers(self._hear, self.commands.append, self._resync, self.gaps.append, self._hear_late)
        self.broker.start(self.name, handlers)

    def _hear(self, publication: Publication) -> None:
        self.heard[publication.topic].append(publication.position.offset)
        self.publications.append(publication)
        self.heard_at[publication.topic, publication.position.offset] = asyncio.get_running_loop().time()

    def _hear_late(self, publication: Publication, newer: Sequence[Publication]) -> None:
        self.late.append(publication)

    def _resync(self) -> None:
        self.resyncs += 1


class Nodes:
    """Several of them.

    Attributes:
        committed_at: when each event was committed.
    """

    def __init__(self, url: str, size: int = 2) -> None:
        self.journal = SharedJournal()
        prefix = f"test-{secrets.token_hex(PREFIX_BYTES)}"
        self.nodes = [Node(self.journal, url, prefix, f"node-{number}") for number in range(size)]
        self.committed_at: dict[tuple[Topic, int], float] = {}

    async def ready(self) -> None:
        """Waits until every node hears Redis and has looked at the store for the first time."""
        await until(lambda: all(node.broker.connected and node.resyncs for node in self.nodes))

    def commit(self, node: Node, topic: Topic) -> Publication:
        """Commits an event on a node and delivers it there."""
        publication = self.journal.commit(topic, an_event(len(self.committed_at)))
        self.committed_at[topic, publication.position.offset] = asyncio.get_running_loop().time()
        node.broker.deliver([publication])
        return publication

    async def load(self, topics: Sequence[Topic], seconds: float, rate: float = 500.0) -> int:
        """Commits events on all nodes at random for a time. Returns how many."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        count = 0
        while loop.time() < end:
            self.commit(random.choice(self.nodes), random.choice(topics))
            count += 1
            await asyncio.sleep(1 / rate)
        return count

    async def complete(self, topics: Sequence[Topic], within: float = 10.0, began: int = 0) -> float:
        """Waits until every node has handed out all events, and checks that each was once and in order.

        Returns:
            The longest time that one took from its commit to its handler, in seconds.
        """
        heads = {topic: len(self.journal.events.get(topic, [])) for topic in topics}
        await until(
            lambda: all((node.heard[topic] or [began])[-1] >= heads[topic] for node in self.nodes for topic in topics),
            within,
        )
        for node in self.nodes:
            for topic in topics:
                assert node.heard[topic] == list(range(began + 1, heads[topic] + 1)), (node.name, topic)
            assert not node.gaps and not node.late
        return max(
            (
                node.heard_at[key] - at
                for key, at in self.committed_at.items()
                for node in self.nodes
                if key[0] in heads
            ),
            default=0.0,
        )


@contextlib.asynccontextmanager
async def nodes_on(url: str, size: int = 2, topics: Sequence[Topic] = ()) -> AsyncIterator[Nodes]:
    """Nodes that live as long as the context, and hear these topics."""
    nodes = Nodes(url, size)
    try:
        for node in nodes.nodes:
            node.start()
            await asyncio.gather(*(node.broker.subscribe(topic) for topic in topics))
        yield nodes
    finally:
        await asyncio.gather(*(node.broker.close() for node in nodes.nodes))
