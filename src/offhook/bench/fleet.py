"""A server of two is killed, and its clients come back to the other: how long that takes, what it costs, what is lost.

Half of the clients are ChatKitty's and half Kandy's, spread over both servers. Before, meanwhile and after, all of
them are told numbered events, so that each knows what it missed and what it was told again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from offhook.bench import fleet_client as clients
from offhook.bench import wire
from offhook.bench.client import LoadFailed, Target, open_sessions
from offhook.bench.kandy import Requests, open_sockets
from offhook.bench.measure import percentile
from offhook.bench.processes import RunningProcess, running_module
from offhook.bench.seed import PASSWORD, Seeded, seed
from offhook.bench.shared import Servers, Spending, Spent, at_rest, shared_servers
from offhook.testing.process import LOOSE, ServeProcess, ServerFailed

SPARE_FILES = 500
"""Files that a server has open beside its connections."""
MOST_EACH = 4000
"""Clients in one process."""
DELIVERIES = 4000
"""Deliveries a second that the events cause, while clients come back."""
EARLY = 5
"""Events before the server is killed."""
LATE = 60.0
"""Seconds after which what all were told must have arrived."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done.

    Attributes:
        sessions: on both servers together.
        initial: seconds; what a client waits at most before its first attempt to come back.
        maximum: seconds; what that grows to.
    """

    sessions: int = 2000
    initial: float = 1.0
    maximum: float = 30.0


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of it.

    Attributes:
        sessions: how many there were, on both servers.
        returned: how many lost their server and came back.
        seconds: from the kill until the last was back.
        away: seconds from the loss of the connection until each was back: median, and what 99 of 100 do not exceed.
        attempt: the same, for the attempt that succeeded alone.
        failures: attempts that failed.
        spent: by the server that was left, PostgreSQL and Redis, until the last was back. It told the events, too.
        clients: CPU seconds of the clients meanwhile.
        events: how many each client was told.
        lost: how many of all clients' events never came.
        again: how many came again, and were known by their offset or id.
        afresh: clients that were told to start over.
    """

    sessions: int
    returned: int
    seconds: float
    away: tuple[float, float]
    attempt: tuple[float, float]
    failures: int
    spent: Spent
    clients: float
    events: int
    lost: int
    again: int
    afresh: int


def raise_open_files(sessions: int) -> None:
    """Lets this process, and those that it starts, have as many open files as the machine allows.

    Raises:
        LoadFailed: that is not enough for one server that has all the sessions.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < sessions + SPARE_FILES:
        raise LoadFailed(f"{sessions} sessions need {sessions + SPARE_FILES} open files; the machine allows {hard}")


class Teller:
    """Tells all clients numbered events, by what two users do at the server that is left.

    Args:
        target: that server.
        seeded: the users.
    """

    def __init__(self, target: Target, seeded: Seeded) -> None:
        self._target = target
        self._seeded = seeded
        self._stack = AsyncExitStack()
        self.told = 0

    async def open(self) -> None:
        """Opens the connections."""
        (self._session,) = await open_sessions(self._target, self._seeded.members[:1], password=PASSWORD)
        self._stack.callback(self._session.abort)
        # Who shows presence must have subscribed to it.
        for socket in await open_sockets(self._target, self._seeded.subscribers[:1]):
            self._stack.callback(socket.abort)
        self._requests = await Requests.connect(self._target)
        self._stack.callback(self._requests.close)

    async def tell(self) -> None:
        """Tells the next event."""
        self.told += 1
        body = b'{"properties":{"count":%d}}' % self.told
        self._session.write(wire.send(wire.relay("user.update"), f"receipt-{self.told}", body))
        await self._requests.show(self._seeded.subscribers[0], f"note-{self.told}")

    async def tell_on(self, pause: float, enough: asyncio.Event) -> None:
        """Tells one event after the other until it is enough."""
        while not enough.is_set():
            await self.tell()
            with suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), pause)

    async def close(self) -> None:
        """Closes the connections."""
        await self._stack.aclose()


class Crews:
    """The processes with the clients.

    Args:
        processes: running.
    """

    def __init__(self, processes: Sequence[RunningProcess]) -> None:
        self._processes = processes
        self._decoder = msgspec.json.Decoder(clients.Account)

    async def order(self, orders: Sequence[clients.Order]) -> Sequence[clients.Account]:
        """Has each carry out its order. Raises LoadFailed."""
        lines = await asyncio.gather(
            *(
                process.ask(msgspec.json.encode(order) + b"\n")
                for process, order in zip(self._processes, orders, strict=True)
            )
        )
        if not all(lines):
            raise LoadFailed("a process with clients ended")
        accounts = [self._decoder.decode(line) for line in lines]
        for account in accounts:
            if account.error is not None:
                raise LoadFailed(account.error)
        return accounts

    async def hear(self, number: int) -> Sequence[clients.Account]:
        """Waits until every client has been told of everything up to a number, or should have been."""
        return await self.order([clients.Hear(number, LATE)] * len(self._processes))


async def measure_fleet(plan: Plan, servers: Servers, folder: Path) -> Returned:
    """Starts servers and clients, kills a server, and waits until all are back.

    Args:
        plan: what is done.
        servers: PostgreSQL and Redis.
        folder: an empty one.

    Raises:
        ServersMissing: PostgreSQL or Redis cannot be used.
        LoadFailed: a server or a client did not do what it should.
    """
    raise_open_files(plan.sessions)
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(shared_servers(servers))
        quiet = {name: value for name, value in shared.settings.items() if not name.startswith("broker_")}
        chatkitty = plan.sessions // 2
        seeded = await seed(folder / "0", chatkitty, 1, plan.sessions - chatkitty + 1, quiet)
        settings = {**LOOSE, "log_level": "error", **shared.settings}
        nodes = [ServeProcess(folder / str(number), settings=settings) for number in range(2)]
        for node in nodes:
            await stack.enter_async_context(_serving(node))
        victim, left = nodes
        assert victim.pid is not None and left.pid is not None
        count = max(2, -(-plan.sessions // MOST_EACH))
        crews = Crews([await stack.enter_async_context(running_module(clients.__name__)) for _ in range(count)])
        travellers = [clients.Traveller(name, None, number % 2) for number, name in enumerate(seeded.guests)]
        travellers += [
            clients.Traveller(one.name, one.token, number % 2) for number, one in enumerate(seeded.subscribers[1:])
        ]
        watch, ports = seeded.subscribers[0].name, (victim.port, left.port)
        teller = Teller(Target(left.port, seeded.api_key), seeded)
        stack.push_async_callback(teller.close)
        await teller.open()
        shares = [tuple(travellers[number::count]) for number in range(count)]
        await crews.order(
            [clients.Begin(ports, seeded.api_key, share, watch, plan.initial, plan.maximum) for share in shares]
        )
        for _ in range(EARLY):
            await teller.tell()
        before = await crews.hear(teller.told)
        await at_rest([victim.pid, left.pid])
        enough = asyncio.Event()
        telling = asyncio.create_task(teller.tell_on(plan.sessions / DELIVERIES, enough))
        stack.callback(telling.cancel)
        lost = [clients.Return(sum(one.place == 0 for one in share)) for share in shares]
        async with Spending([left.pid], shared) as spending:
            killed = time.monotonic()
            await asyncio.to_thread(victim.kill)
            back = await crews.order(lost)
        enough.set()
        await telling
        after = await crews.hear(teller.told)
        returned = [one for account in back for one in account.returned]
        return Returned(
            plan.sessions,
            len(returned),
            max((at for _, at, _ in returned), default=killed) - killed,
            _middle_and_most([at - since for since, at, _ in returned]),
            _middle_and_most([took for _, _, took in returned]),
            sum(account.failures for account in after),
            spending.spent,
            sum(one.cpu - other.cpu for one, other in zip(back, before, strict=True)),
            teller.told,
            sum(account.missed for account in after) + sum(account.behind for account in after),
            sum(account.again for account in after),
            sum(account.afresh for account in after),
        )


def report(done: Returned) -> str:
    """What came of it, as text."""
    spent = done.spent
    shared = [
        f"{name} {used:.2f} s"
        for name, used in (("PostgreSQL", spent.postgresql), ("Redis", spent.redis))
        if used is not None
    ]
    each = spent.offhook / max(1, done.returned)
    return "\n".join(
        (
            f"{done.sessions} sessions, half of them ChatKitty's and half Kandy's, on two processes.",
            f"One was killed: {done.returned} sessions were resumed at the other within {done.seconds:.2f} s.",
            f"  away       {done.away[0]:.2f} s median, {done.away[1]:.2f} s p99, with the wait before the attempt",
            f"  attempt    {done.attempt[0] * 1e3:.0f} ms median, {done.attempt[1] * 1e3:.0f} ms p99;"
            f" {done.failures} attempts failed",
            f"  CPU        Offhook {spent.offhook:.2f} s ({each * 1e6:.0f} us a resume, events included),"
            f" {', '.join(shared)}; clients {done.clients:.2f} s",
            f"  events     {done.events} to each session: {done.lost} lost, {done.again} again (known by offset or id);"
            f" {done.afresh} sessions had to start over",
            f"The clients, PostgreSQL and Redis shared this machine's {os.cpu_count()} cores with the server.",
        )
    )


@asynccontextmanager
async def _serving(node: ServeProcess) -> AsyncIterator[None]:
    try:
        try:
            await asyncio.to_thread(node.start)
        except ServerFailed as error:
            raise LoadFailed(error.message) from error
        yield
    finally:
        node.kill()


def _middle_and_most(values: Sequence[float]) -> tuple[float, float]:
    return (percentile(values, 0.5), percentile(values, 0.99)) if values else (0.0, 0.0)
