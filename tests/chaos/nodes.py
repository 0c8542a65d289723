"""Two servers behind a plain load balancer, with people at work, and what is to be killed under them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from tests.balancer import Balancer
from tests.chaos.conftest import UNLIMITED
from tests.chaos.kandy_chaos import Chaos, Front, Killer
from tests.chaos.killing import Admin
from tests.cluster import Cluster
from tests.machine import Machine


def turns(usual: int) -> int:
    """How often something is killed: as often as usual, unless the environment says otherwise."""
    return int(os.environ.get("OFFHOOK_CHAOS_TURNS") or usual)


class ServiceKiller:
    """Kills what the servers depend on, or one of them.

    Args:
        name: of the victim, for the figures.
        kill: kills it.
        start: starts it again and waits until it is ready.
        choices: decides for how long it is away.
        away: seconds for which it is away, at least and at most.
    """

    def __init__(
        self,
        name: str,
        kill: Callable[[], Awaitable[None]],
        start: Callable[[], Awaitable[None]],
        choices: random.Random,
        away: tuple[float, float] = (0.0, 0.5),
    ) -> None:
        self._name = name
        self._kill = kill
        self._start = start
        self._random = choices
        self._away = away
        self.kills = 0
        self.starts: list[float] = []

    async def kill(self) -> None:
        """Kills it."""
        await self._kill()
        self.kills += 1

    async def start(self) -> None:
        """Starts it again, and waits until it is ready."""
        began = time.monotonic()
        await self._start()
        self.starts.append(time.monotonic() - began)

    async def restart(self) -> None:
        """Kills it, and starts it again after a moment."""
        await self.kill()
        await asyncio.sleep(self._random.uniform(*self._away))
        await self.start()

    def figures(self) -> str:
        """What was done, in a few words."""
        return f"kills of {self._name} {self.kills}, restart {sorted(self.starts)[len(self.starts) // 2]:.2f} s"


@contextlib.asynccontextmanager
async def people_at_two(
    folder: Path,
    number: int,
    killer: Callable[[Cluster, random.Random], Killer],
    *,
    database_url: str | None = None,
    broker_urls: Sequence[str] = (),
    environments: Sequence[Mapping[str, str]] = (),
    machine: Machine | None = None,
) -> AsyncIterator[Chaos]:
    """People at work at two servers.

    Args:
        folder: for the servers' files.
        number: of all choices.
        killer: makes what kills.
        database_url: of the servers' database, if it is not to be one on the machine's PostgreSQL.
        broker_urls: each server's broker, if that is not the machine's Redis.
        environments: what each server's environment has beyond this program's.
        machine: where the second server runs, if not with the first.
    """
    made = Cluster(folder, settings=UNLIMITED, database_url=database_url, machine=machine)
    for node, url in zip(made.nodes, broker_urls, strict=False):
        node.environment["OFFHOOK_BROKER_URL"] = url
    for node, environment in zip(made.nodes, environments, strict=False):
        node.environment.update(environment)
    await asyncio.to_thread(made.start)
    balancer = Balancer([node.http_host for node in made.nodes])
    await balancer.start()
    front = Front(f"http://{balancer.host}", await asyncio.to_thread(lambda: made.nodes[0].api_key))
    chaos = await asyncio.to_thread(Chaos, front, Admin(made.nodes[0]), killer(made, random.Random(number)), number)
    try:
        yield chaos
        print(f"connections given to each: {balancer.given}")
        assert min(balancer.given) > 0
    finally:
        await chaos.close()
        await balancer.close()
        print(made.log())
        await asyncio.to_thread(made.stop)
