"""The same with a cluster of three masters: channels over all slots, slots that move, masters that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.crc import key_slot
from tests.redis_servers import RedisServer, move_slot, owns, redis_cluster
from tests.unit.broker.nodes import Nodes, nodes_on
from tests.unit.broker.shared import until

from offhook.broker.lookout import LOOK_AWAY
from offhook.broker.mesh import REFRESH_EVERY
from offhook.codes import EndReason
from offhook.domain.events import Topic, user_topic
from offhook.ports import EVERY_NODE, ApplicationChanged, EndSession

TOPICS = [Topic("application.1"), *(user_topic(number) for number in range(100))]
SOON = 1.5


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[list[RedisServer]]:
    async with redis_cluster(tmp_path) as servers:
        yield servers


@pytest.fixture
async def nodes(servers: list[RedisServer]) -> AsyncIterator[Nodes]:
    # One seed is enough, and need not be up if another is.
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{servers[0].port}"
    async with nodes_on(url, topics=TOPICS) as nodes:
        await nodes.ready()
        yield nodes


async def heard_at(server: RedisServer) -> int:
    async with server.client() as client:
        return len(await client.execute_command("PUBSUB", "SHARDCHANNELS"))  # type: ignore[no-untyped-call]


async def test_channels_are_spread_and_all_is_heard(nodes: Nodes, servers: list[RedisServer]) -> None:
    assert all([await heard_at(server) > 10 for server in servers])
    await nodes.load(TOPICS, 1.0)
    delay = await nodes.complete(TOPICS)
    print(f"cluster in peace: longest way {delay:.3f} s")
    assert delay < SOON
    one, other = nodes.nodes
    assert await one.broker.send(other.name, EndSession(1, EndReason.OPERATOR)) is True
    assert await one.broker.send(EVERY_NODE, ApplicationChanged(1, closed=True)) is True
    await until(lambda: len(other.commands) == 2)
    assert await one.broker.send("nobody", EndSession(1, EndReason.OPERATOR)) is False


async def test_slots_that_move_take_their_channels_along(nodes: Nodes, servers: list[RedisServer]) -> None:
    one, other = nodes.nodes
    resyncs = other.resyncs
    loading = asyncio.create_task(nodes.load(TOPICS, 4.0))
    channels = set()
    for server in servers:
        async with server.client() as client:
            channels |= set(await client.execute_command("PUBSUB", "SHARDCHANNELS"))  # type: ignore[no-untyped-call]
    commands = [channel for channel in sorted(channels) if channel.endswith(f"n:{other.name}")]
    moved = {key_slot(channel.encode()) for channel in [*commands, *sorted(channels)[:20]]}
    for slot in moved:
        here = [server for server in servers if await owns(server, slot)]
        target = next(server for server in servers if server not in here)
        await move_slot(servers, slot, target)
    await until(lambda: other.resyncs > resyncs)
    await loading
    await until(lambda: all(node.broker.connected for node in nodes.nodes))
    delay = await nodes.complete(TOPICS)
    print(f"{len(moved)} slots moved: longest way {delay:.3f} s, {[node.broker.counts for node in nodes.nodes]}")
    assert delay < LOOK_AWAY + SOON
    nodes.committed_at.clear()
    await nodes.load(TOPICS, 0.5)
    assert await nodes.complete(TOPICS) < SOON
    assert await one.broker.send(other.name, EndSession(1, EndReason.OPERATOR)) is True


async def test_a_slot_that_moves_to_and_fro_is_missed_each_time(nodes: Nodes, servers: list[RedisServer]) -> None:
    node = nodes.nodes[0]
    commands = node.broker._channel(Topic("")).replace(b":t:", b":n:") + node.name.encode()
    slot = key_slot(commands)
    for number in range(4):
        (here,) = [server for server in servers if await owns(server, slot)]
        target = servers[(servers.index(here) + (1 if number % 2 == 0 else -1)) % len(servers)]
        await until(lambda: all(node.broker.connected for node in nodes.nodes))
        resyncs = node.resyncs
        await move_slot(servers, slot, target)
        # Nothing is published there, so only what the former master says tells that it moved.
        took = await until(lambda: node.resyncs > resyncs, within=REFRESH_EVERY + 5.0)  # noqa: B023
        assert took < REFRESH_EVERY / 2, f"it was noticed at the next look at the layout, at move {number}"


async def test_a_command_follows_its_channel(nodes: Nodes, servers: list[RedisServer]) -> None:
    one, other = nodes.nodes
    slot = key_slot(other.broker._channel(Topic("")).replace(b":t:", b":n:") + other.name.encode())
    (here,) = [server for server in servers if await owns(server, slot)]
    resyncs = other.resyncs
    await move_slot(servers, slot, servers[(servers.index(here) + 1) % len(servers)])
    # Who hears the channel notices; who only sends there has had no reason to look.
    await until(lambda: other.resyncs > resyncs)
    assert await one.broker.send(other.name, EndSession(1, EndReason.OPERATOR)) is True
    await until(lambda: len(other.commands) == 1)


async def test_a_master_killed_and_started_again(nodes: Nodes, servers: list[RedisServer]) -> None:
    resyncs = [node.resyncs for node in nodes.nodes]
    loading = asyncio.create_task(nodes.load(TOPICS, 4.0))
    await until(lambda: len(nodes.committed_at) > 200)
    servers[1].kill()
    await until(lambda: not any(node.broker.connected for node in nodes.nodes))
    away = len(nodes.committed_at)
    await until(lambda: len(nodes.committed_at) > away + 300)
    await servers[1].start()
    await until(lambda: all(node.broker.connected for node in nodes.nodes), within=20.0)
    await loading
    delay = await nodes.complete(TOPICS)
    print(f"master killed: longest way {delay:.3f} s, resyncs {resyncs} {[node.resyncs for node in nodes.nodes]}")
    assert delay < LOOK_AWAY + SOON
    nodes.committed_at.clear()
    await nodes.load(TOPICS, 0.5)
    assert await nodes.complete(TOPICS) < SOON
