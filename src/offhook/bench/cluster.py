"""What one process costs on SQLite, one on PostgreSQL and Redis, and two, for the same work.

All are started together, and each round measures one after the other: what else the machine does then is the same for
all of them. Processes that work at the same time slow each other down, even if they have nothing to do with each other:
they share the cores, and what those remember. So one process is also measured while another one, of a system of its
own, does the same beside it. What two processes of one system cost more than that is what sharing a system costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from offhook.bench.cluster_works import WARM, ClusterSizes, Latency, Messages, Starts, System, Watching, Work
from offhook.bench.processes import running_server
from offhook.bench.seed import seed
from offhook.bench.shared import Servers, Spent, shared_servers

ALONE, SHARING, TWO = "1 process, SQLite", "1 process, PostgreSQL", "2 processes, PostgreSQL"
BESIDE = "1 process, PostgreSQL, beside another"
SYSTEMS = (ALONE, SHARING, BESIDE, TWO)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one system needed.

    Attributes:
        processes: how many servers it has.
        each: what was done → what one of that cost, and took while many were under way.
        memory: resident bytes of the servers for each idle session.
        near: latency to a client of the same server.
        far: latency to a client of the other server; None if there is none.
    """

    processes: int
    each: Mapping[str, Spent]
    memory: float
    near: Latency
    far: Latency | None


@asynccontextmanager
async def _system(folder: Path, servers: Servers | None, size: int, sizes: ClusterSizes) -> AsyncIterator[System]:
    """Runs a system: on PostgreSQL and Redis, or if there are none on SQLite."""
    async with AsyncExitStack() as stack:
        shared = None if servers is None else await stack.enter_async_context(shared_servers(servers))
        settings = {} if shared is None else shared.settings
        # While the users are made nobody else is to hear of it.
        quiet = {name: value for name, value in settings.items() if not name.startswith("broker_")}
        subscribers = size * max(2 * sizes.pairs, sizes.watched * (1 + sizes.watchers))
        guests = max(sizes.sessions, WARM)
        seeded = await seed(folder / "0", guests, 0, subscribers, quiet)
        running = [
            await stack.enter_async_context(running_server(folder / str(number), settings)) for number in range(size)
        ]
        yield System(running, seeded, shared, sizes.at_once)


async def measure_cluster(sizes: ClusterSizes, servers: Servers, folder: Path) -> Mapping[str, Outcome]:
    """Runs all systems, and measures each.

    Args:
        sizes: how much.
        servers: PostgreSQL and Redis.
        folder: an empty one.

    Returns:
        What each needed, by its name.

    Raises:
        ServersMissing: PostgreSQL or Redis cannot be used.
        LoadFailed: a server or a client did not do what it should.
    """
    async with AsyncExitStack() as stack:
        systems: dict[str, System] = {}
        for number, name in enumerate((SHARING, BESIDE, TWO, ALONE)):
            used, size = None if name == ALONE else servers, 2 if name == TWO else 1
            systems[name] = await stack.enter_async_context(_system(folder / f"system-{number}", used, size, sizes))
        memory = {name: await system.memory(sizes.sessions) for name, system in systems.items()}
        each: dict[str, dict[str, Spent]] = {name: {} for name in systems}
        await _rounds({name: Starts(system, sizes) for name, system in systems.items()}, sizes, each)
        near: dict[str, Latency] = {}
        messages = {name: Messages(system, sizes) for name, system in systems.items()}
        try:
            await _rounds(messages, sizes, each)
            near = {name: await work.latency(0) for name, work in messages.items()}
            far = await messages[TWO].latency(2)
        finally:
            _close(messages.values())
        watching = {name: Watching(system, sizes) for name, system in systems.items()}
        try:
            await _rounds(watching, sizes, each)
        finally:
            _close(watching.values())
        return {
            name: Outcome(
                len(systems[name].servers), each[name], memory[name], near[name], far if name == TWO else None
            )
            for name in SYSTEMS
        }


async def _rounds(works: Mapping[str, Work], sizes: ClusterSizes, each: Mapping[str, dict[str, Spent]]) -> None:
    """Does a work at all systems, in turn, and notes the medians."""
    taken: dict[tuple[str, str], list[Spent]] = {}
    for work in works.values():
        await work.open()
    for number in range(sizes.rounds + 1):
        for name, work in works.items():
            done = await (_beside(work, works[SHARING]) if name == BESIDE else work.round())
            if number > 0:
                for kind, spent in done.items():
                    taken.setdefault((name, kind), []).append(spent)
    for (name, kind), rounds in taken.items():
        each[name][kind] = _median(rounds)


async def _beside(one: Work, other: Work) -> Mapping[str, Spent]:
    """What a work costs that two systems do at the same time; the mean of both."""
    first, second = await asyncio.gather(one.round(), other.round())
    return {kind: _mean(spent, second[kind]) for kind, spent in first.items()}


def _mean(one: Spent, other: Spent) -> Spent:
    def mean(first: float | None, second: float | None) -> float | None:
        return None if first is None or second is None else (first + second) / 2

    # Redis is the same process for both: each was charged with all of it.
    redis = mean(one.redis, other.redis)
    return Spent(
        (one.offhook + other.offhook) / 2,
        mean(one.postgresql, other.postgresql),
        None if redis is None else redis / 2,
        (one.seconds + other.seconds) / 2,
    )


def _median(rounds: Sequence[Spent]) -> Spent:
    return Spent(
        median(one.offhook for one in rounds),
        _known_median([one.postgresql for one in rounds]),
        _known_median([one.redis for one in rounds]),
        median(one.seconds for one in rounds),
    )


def _known_median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _close(works: Iterable[Work]) -> None:
    for work in works:
        work.close()
