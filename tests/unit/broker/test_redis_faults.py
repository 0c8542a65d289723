"""Whatever happens to Redis: each event is handed out once and in order on every node, in bounded time."""

from __future__ import annotations

import asyncio
import resource
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis
from tests.contract.systems import a_user
from tests.redis_servers import RedisServer, redis_server
from tests.unit.broker.nodes import Nodes, nodes_on
from tests.unit.broker.shared import until

from offhook.broker.codec import encode_publication
from offhook.broker.lookout import LOOK_AWAY
from offhook.codes import EndReason
from offhook.domain.events import Topic, UserUpdated, user_topic
from offhook.ports import EVERY_NODE, ApplicationChanged, EndSession

TOPICS = [Topic("application.1"), *(user_topic(number) for number in range(5))]
QUIET = Topic("user.77")
SOON = 1.5
"""Seconds: a look at the heads, with room for a machine that has other things to do."""


@pytest.fixture
async def nodes(server: RedisServer) -> AsyncIterator[Nodes]:
    async with nodes_on(server.url, topics=TOPICS) as nodes:
        await nodes.ready()
        yield nodes


def report(what: str, delay: float, nodes: Nodes) -> None:
    counts = [node.broker.counts for node in nodes.nodes]
    print(
        f"{what}: {len(nodes.committed_at)} events, longest way {delay:.3f} s, gaps {[one.gaps for one in counts]}, "
        f"reads {[one.reads for one in counts]}, drops {[one.drops for one in counts]}, "
        f"broken {[node.broker.reconnects for node in nodes.nodes]}"
    )


async def test_killed_and_started_again_under_load(nodes: Nodes, server: RedisServer) -> None:
    resyncs = [node.resyncs for node in nodes.nodes]
    loading = asyncio.create_task(nodes.load(TOPICS, 4.0))
    await until(lambda: len(nodes.committed_at) > 200)
    server.kill()
    await until(lambda: not any(node.broker.connected for node in nodes.nodes))
    one, other = nodes.nodes
    began = time.monotonic()
    assert await one.broker.send(other.name, EndSession(1, EndReason.OPERATOR)) is False
    assert await one.broker.send(EVERY_NODE, ApplicationChanged(1, closed=False)) is True
    assert time.monotonic() - began < 0.1, "who sends a command waits for a broker that is away"
    away = len(nodes.committed_at)
    await until(lambda: len(nodes.committed_at) > away + 300)
    await server.start()
    await until(lambda: all(node.broker.connected for node in nodes.nodes))
    await until(lambda: all(node.resyncs > before for node, before in zip(nodes.nodes, resyncs, strict=True)))
    await loading
    delay = await nodes.complete(TOPICS)
    report("killed", delay, nodes)
    assert delay < LOOK_AWAY + SOON


async def test_standing_still_for_two_seconds(nodes: Nodes, server: RedisServer) -> None:
    await nodes.nodes[1].broker.subscribe(QUIET)
    loading = asyncio.create_task(nodes.load(TOPICS, 4.0))
    await until(lambda: len(nodes.committed_at) > 200)
    server.pause()
    paused = time.monotonic()
    await until(lambda: not any(node.broker.connected for node in nodes.nodes))
    noticed = time.monotonic() - paused
    one, other = nodes.nodes
    assert await one.broker.send(other.name, EndSession(1, EndReason.OPERATOR)) is False
    nodes.commit(one, QUIET)
    took = await until(lambda: other.heard[QUIET] == [1])
    print(f"a single event took {took:.2f} s while Redis stood still")
    assert took < LOOK_AWAY + SOON
    await until(lambda: time.monotonic() - paused > 2.0)
    server.go_on()
    await until(lambda: all(node.broker.connected for node in nodes.nodes))
    # The other node's connections never broke: the one that could not send sees to it that it looks at the store.
    await until(lambda: other.resyncs > 1)
    await loading
    delay = await nodes.complete(TOPICS)
    report(f"paused (noticed after {noticed:.2f} s)", delay, nodes)
    assert all(node.broker.reconnects == 0 for node in nodes.nodes)
    # A pause is noticed by a ping that is not answered for a second.
    assert delay < 1.5 + LOOK_AWAY + SOON


async def test_connections_killed_again_and_again(nodes: Nodes, server: RedisServer) -> None:
    resyncs = [node.resyncs for node in nodes.nodes]
    loading = asyncio.create_task(nodes.load(TOPICS, 3.0))
    for _ in range(5):
        broken = [node.broker.reconnects for node in nodes.nodes]
        for kind in ("pubsub", "normal"):
            await server.run("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await until(lambda: all(node.broker.reconnects > b for node, b in zip(nodes.nodes, broken, strict=True)))  # noqa: B023
        await until(lambda: all(node.broker.connected for node in nodes.nodes))
    await loading
    await until(lambda: all(node.resyncs > before for node, before in zip(nodes.nodes, resyncs, strict=True)))
    delay = await nodes.complete(TOPICS)
    report("connections killed", delay, nodes)
    assert delay < SOON


async def test_output_buffers_overrun(tmp_path: Path) -> None:
    limit = ("--client-output-buffer-limit", "pubsub 64kb 64kb 0")
    async with redis_server(tmp_path / "redis", *limit) as server, nodes_on(server.url, topics=TOPICS) as nodes:
        await nodes.ready()
        resyncs = [node.resyncs for node in nodes.nodes]
        topic, big = TOPICS[0], UserUpdated(a_user(1, "alice", id=1, properties={"text": "x" * 20_000}))
        async with server.client() as client:
            names = await client.execute_command("PUBSUB", "SHARDCHANNELS")  # type: ignore[no-untyped-call]
        channel = next(name for name in names if name.endswith(f"t:{topic}"))
        # A third node commits a lot, while these two are too busy to read any of it.
        with Redis(host="127.0.0.1", port=server.port) as client:
            for _ in range(1_500):
                publication = nodes.journal.commit(topic, big)
                nodes.committed_at[topic, publication.position.offset] = asyncio.get_running_loop().time()
                client.spublish(channel, encode_publication(publication, "node-9"))
        delay = await nodes.complete(TOPICS)
        report("overrun", delay, nodes)
        await until(lambda: all(node.resyncs > before for node, before in zip(nodes.nodes, resyncs, strict=True)))
        assert all(node.broker.reconnects for node in nodes.nodes), "nothing was overrun"
        assert delay < LOOK_AWAY + SOON + 5.0


async def test_refused_publications_do_not_make_the_publisher_look(tmp_path: Path) -> None:
    async with redis_server(tmp_path / "redis") as server:
        await server.run("ACL", "SETUSER", "node", "on", ">secret", "&*", "+@all", "-spublish")
        async with nodes_on(f"redis://node:secret@127.0.0.1:{server.port}", topics=TOPICS) as nodes:
            await nodes.ready()
            looks = nodes.journal.looks
            # What is lost of these is lost to the others, who look by themselves.
            count = await nodes.load(TOPICS, 1.0)
            assert nodes.journal.looks - looks < count / 10
            await nodes.complete(TOPICS)


async def test_away_from_the_start(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    async with nodes_on(server.url, topics=TOPICS) as nodes:
        await nodes.load(TOPICS, 1.5)
        delay = await nodes.complete(TOPICS)
        report("away from the start", delay, nodes)
        assert delay < LOOK_AWAY + SOON
        assert not any(node.broker.connected or node.resyncs for node in nodes.nodes)
        try:
            await server.start()
            await nodes.ready()
            nodes.committed_at.clear()
            await nodes.load(TOPICS, 0.5)
            assert await nodes.complete(TOPICS) < SOON
        finally:
            server.kill()


async def test_a_node_with_five_thousand_topics(server: RedisServer) -> None:
    topics = [user_topic(number) for number in range(5000)]
    async with nodes_on(server.url) as nodes:
        one, other = nodes.nodes
        await nodes.ready()
        began = time.monotonic()
        await asyncio.gather(*(one.broker.subscribe(topic) for topic in topics))
        subscribed = time.monotonic() - began
        await until(lambda: one.broker.connected)
        for topic in topics:
            nodes.commit(other, topic)
        await until(lambda: all(one.heard[topic] == [1] for topic in topics))
        server.kill()
        await until(lambda: not one.broker.connected)
        for topic in topics:
            nodes.commit(other, topic)
        await until(lambda: all(one.heard[topic] == [1, 2] for topic in topics), within=20.0)
        await server.start()
        began = time.monotonic()
        await until(lambda: one.broker.connected)
        again = time.monotonic() - began
        nodes.commit(other, topics[-1])
        await until(lambda: one.heard[topics[-1]] == [1, 2, 3])
        late = max(one.heard_at[key] - at for key, at in nodes.committed_at.items())
        print(f"5,000 topics: subscribed in {subscribed:.2f} s, again in {again:.2f} s, longest way {late:.2f} s")
        assert late < 10.0
        await asyncio.gather(*(one.broker.unsubscribe(topic) for topic in topics))
        await until(lambda: one.broker.connected)


async def test_what_a_heard_topic_takes(nodes: Nodes) -> None:
    one = nodes.nodes[0]
    topics = [user_topic(number) for number in range(10_000, 15_000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await asyncio.gather(*(one.broker.subscribe(topic) for topic in topics))
        await until(lambda: one.broker.connected)
        each = (tracemalloc.get_traced_memory()[0] - before) / len(topics)
    finally:
        tracemalloc.stop()
    print(f"{each:.0f} bytes a heard topic; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB in all")
    assert each < 3_000
