"""One connection to Redis: when it is given up, and when it is not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.redis_servers import redis_server
from tests.unit.broker.nodes import Node, nodes_on
from tests.unit.broker.shared import an_event, until

from offhook.broker import wire
from offhook.domain.events import Topic
from offhook.ports import Publication

TOPIC = Topic("application.1")
EVENTS = 2_000


async def test_a_connection_on_which_much_comes_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = Node._hear

    def hear_slowly(node: Node, publication: Publication) -> None:
        if node.name == "node-1":
            time.sleep(0.001)
        hear(node, publication)

    monkeypatch.setattr(Node, "_hear", hear_slowly)
    monkeypatch.setattr(wire, "PING_EVERY", 0.05)
    monkeypatch.setattr(wire, "GIVE_UP_AFTER", 1.0)
    async with redis_server(tmp_path / "redis") as server, nodes_on(server.url, topics=[TOPIC]) as nodes:
        await nodes.ready()
        one, other = nodes.nodes
        publications = []
        for number in range(EVENTS):
            publications.append(nodes.journal.commit(TOPIC, an_event(number)))
            if number % 50 == 0:
                await asyncio.sleep(0)
        one.broker.deliver(publications)
        # The answer to a ping waits behind all of it, for longer than the connection may be silent.
        await until(lambda: len(other.heard[TOPIC]) == EVENTS)
        assert other.broker.reconnects == 0
        server.pause()
        await until(lambda: all(node.broker.reconnects >= 2 for node in nodes.nodes), within=3.0)
        server.go_on()
