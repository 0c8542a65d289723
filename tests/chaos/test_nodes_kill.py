"""As ``test_kandy_kill``, with two servers, of which one or the other is killed, or what both depend on."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.chaos.kandy_chaos import Killer, play
from tests.chaos.killing import seed
from tests.chaos.nodes import ServiceKiller, people_at_two, turns
from tests.cluster import Cluster
from tests.machine import can_be_made, machine
from tests.postgres_server import a_postgres_server
from tests.redis_servers import redis_server

KILLS = 8
SKEWED_KILLS = 4
CUTS = 2
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
LONG = bool(os.environ.get("OFFHOOK_CHAOS_LONG"))

pytestmark = pytest.mark.timeout(540 if turns(0) == 0 and not LONG else 3600)


def any_node(cluster: Cluster, choices: random.Random) -> Killer:
    """Kills one server or the other, never both at once."""
    victim = [cluster.nodes[0]]

    async def kill() -> None:
        victim[0] = choices.choice(cluster.nodes)
        await asyncio.to_thread(victim[0].kill)

    async def start() -> None:
        await asyncio.to_thread(victim[0].start)

    return ServiceKiller("nodes", kill, start, choices)


async def test_of_a_node(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    async with people_at_two(tmp_path, seed(), any_node) as chaos:
        await play(chaos, turns(KILLS), record_property)


async def test_of_a_node_whose_clock_is_wrong(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """One server is five seconds late, the other five seconds early."""
    skewed = [
        {"LD_PRELOAD": FAKETIME, "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"} for skew in ("-5s", "+5s")
    ]
    async with people_at_two(tmp_path, seed(), any_node, environments=skewed) as chaos:
        await play(chaos, turns(SKEWED_KILLS), record_property)


async def test_of_redis(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    async with redis_server(tmp_path / "redis") as redis:

        async def kill() -> None:
            redis.kill()

        def killer(_: Cluster, choices: random.Random) -> Killer:
            return ServiceKiller("Redis", kill, redis.start, choices)

        async with people_at_two(tmp_path, seed(), killer, broker_urls=[redis.url] * 2) as chaos:
            await play(chaos, turns(KILLS), record_property)


async def test_of_postgresql(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with a_postgres_server() as server:

        async def kill() -> None:
            await asyncio.to_thread(server.kill)

        async def start() -> None:
            await asyncio.to_thread(server.start)

        def killer(_: Cluster, choices: random.Random) -> Killer:
            return ServiceKiller("PostgreSQL", kill, start, choices)

        async with people_at_two(tmp_path, seed(), killer, database_url=server.url) as chaos:
            chaos.expects_refusals()
            await play(chaos, turns(KILLS), record_property)


@pytest.mark.parametrize(
    "seconds",
    [5.0, pytest.param(60.0, marks=pytest.mark.skipif(not LONG, reason="takes minutes; set OFFHOOK_CHAOS_LONG"))],
)
async def test_of_the_network_between_a_node_and_redis(
    tmp_path: Path, record_property: Callable[[str, object], None], seconds: float
) -> None:
    """Nothing passes any more, and nobody says so; clients and the database are reached as before."""
    if not can_be_made():
        pytest.skip("this user may not make network namespaces")
    with machine() as apart, a_postgres_server() as postgres:
        here = ("127.0.0.1", apart.broker_address)
        async with redis_server(tmp_path / "redis", "--protected-mode", "no", "--bind", *here) as redis:

            async def cut() -> None:
                apart.cut()

            async def mend() -> None:
                apart.mend()

            def killer(_: Cluster, choices: random.Random) -> Killer:
                return ServiceKiller("the network", cut, mend, choices, (seconds, seconds))

            urls = [redis.url, f"redis://{apart.broker_address}:{redis.port}"]
            async with people_at_two(
                tmp_path, seed(), killer, database_url=postgres.socket_url, broker_urls=urls, machine=apart
            ) as chaos:
                await play(chaos, turns(CUTS if seconds < 10 else 1), record_property)
