"""What the Python SDK's clients cost the program that runs them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

import msgspec

from offhook.bench import sdk, wire
from offhook.bench.client import LoadFailed, close_sessions, open_sessions
from offhook.bench.figures import Sizes
from offhook.bench.kandy import Requests, open_sockets
from offhook.bench.measure import CPU, settled_memory
from offhook.bench.processes import RunningFloor, RunningProcess, RunningServer, running_module
from offhook.bench.seed import PASSWORD, Seeded, Subscriber

PATIENCE = 180.0
"""Seconds after which an order that is not carried out has failed."""
WARM = 20
"""Clients of each kind that are started before the measurement and ended again."""

_numbers = itertools.count(100_000)
Cause = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ClientCost:
    """What clients of one kind cost.

    Attributes:
        start: CPU seconds for the start of one, and for what it subscribes to.
        memory: resident bytes of each that is idle.
        event: CPU seconds for one event that one of them is told.
        bare_start: the same for a bare WebSocket of the library that the SDK uses.
        bare_memory: the same.
        bare_event: the same, for the same bytes both ways: ChatKitty's clients acknowledge each event.
    """

    start: float
    memory: float
    event: float
    bare_start: float
    bare_memory: float
    bare_event: float


class Worker:
    """The process with the clients. Make it with :func:`worker`.

    Attributes:
        pid: its process.
    """

    def __init__(self, process: RunningProcess) -> None:
        self._process = process
        self._decoder = msgspec.json.Decoder(sdk.Done)
        self.pid = process.pid

    async def order(self, order: sdk.Order) -> int:
        """Has an order carried out. Returns how many clients there are then.

        Raises:
            LoadFailed: it could not be.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                line = await self._process.ask(msgspec.json.encode(order) + b"\n")
        except TimeoutError:
            raise LoadFailed(f"the SDK's clients took over {PATIENCE:.0f} s for {type(order).__name__}") from None
        if not line:
            raise LoadFailed("the process with the SDK's clients ended")
        done = self._decoder.decode(line)
        if done.error is not None:
            raise LoadFailed(f"the SDK's clients: {done.error}")
        return done.clients

    async def started(self, order: sdk.Order, count: int) -> tuple[float, float]:
        """Starts clients. Returns the CPU seconds and, after a rest, the resident bytes for each."""
        before = await settled_memory(self.pid)
        with CPU(self.pid) as cpu:
            await self.order(order)
        return cpu.seconds / count, (await settled_memory(self.pid) - before) / count

    async def told(self, cause: Cause, clients: int, sizes: Sizes) -> float:
        """CPU seconds for one event at each of so many clients; one event at a time."""
        # What is told on the way is not part of it.
        await self.order(sdk.Expect(0))
        await self._one(cause, clients)
        rounds = []
        for _ in range(sizes.rounds):
            with CPU(self.pid) as cpu:
                for _ in range(sizes.events):
                    await self._one(cause, clients)
            rounds.append(cpu.seconds / (sizes.events * clients))
        return median(rounds)

    async def _one(self, cause: Cause, clients: int) -> None:
        await cause()
        await self.order(sdk.Expect(clients))


@asynccontextmanager
async def worker() -> AsyncIterator[Worker]:
    """Runs a process for clients."""
    async with running_module(sdk.__name__) as process:
        yield Worker(process)


@dataclass(frozen=True, slots=True)
class _Events:
    """How all clients of one kind are told something.

    Attributes:
        cause: has each of them told one event.
        sample: the latest event.
        answers: whether each client answers it, as ``wire.acknowledge`` does.
    """

    cause: Cause
    sample: Callable[[], bytes]
    answers: bool


async def clients(server: RunningServer, floor: RunningFloor, seeded: Seeded, sizes: Sizes) -> dict[str, ClientCost]:
    """What ChatKitty's and Kandy Link's clients cost, half of them each, all in one process with one transport.

    ChatKitty's are told whenever one user's profile changes, and acknowledge each event; Kandy's whenever one user's
    presence changes.

    Returns:
        The name of each kind, and what it costs.
    """
    target = server.target(seeded.api_key)
    count = sizes.clients // 2

    def chatkitty(users: Sequence[str]) -> sdk.Order:
        return sdk.StartChatKitty(target.host, seeded.api_key, tuple(users))

    def kandy(users: Sequence[Subscriber]) -> sdk.Order:
        return sdk.StartKandy(target.port, tuple((who.name, who.token) for who in users), seeded.subscribers[0].name)

    guests, others = seeded.guests, seeded.subscribers[2:]
    async with worker() as many:
        await many.order(chatkitty(guests[:WARM]))
        await many.order(kandy(others[:WARM]))
        await many.order(sdk.End())
        one = await many.started(chatkitty(guests[WARM : WARM + count]), count)
        other = await many.started(kandy(others[WARM : WARM + count]), count)
        async with _chatkitty_events(server, seeded) as told:
            one_event, one_floor = await many.told(told.cause, count, sizes), _Floor.of(told)
        # Presence is told to ChatKitty's clients too: they would be counted among what Kandy's cost.
        await many.order(sdk.End())
        await many.started(kandy(others[WARM : WARM + count]), count)
        async with _kandy_events(server, seeded) as told:
            other_event, other_floor = await many.told(told.cause, count, sizes), _Floor.of(told)
    return {
        "ChatKitty": ClientCost(*one, one_event, *await _bare(floor, one_floor, count, sizes)),
        "Kandy Link": ClientCost(*other, other_event, *await _bare(floor, other_floor, count, sizes)),
    }


@dataclass(frozen=True, slots=True)
class _Floor:
    """What bare WebSockets exchange with the floor.

    Attributes:
        frame: what each gets.
        answer: what each sends for it; empty is nothing.
    """

    frame: bytes
    answer: str

    @classmethod
    def of(cls, told: _Events) -> _Floor:
        """The same bytes, both ways."""
        event = told.sample()
        names = wire.header(event, b"ack"), wire.header(event, b"subscription")
        answer = "ACK\nid:{}\nsubscription:{}\n\n\0".format(*((name or b"").decode() for name in names))
        return cls(wire.server_frame(event), answer if told.answers else "")


@asynccontextmanager
async def _chatkitty_events(server: RunningServer, seeded: Seeded) -> AsyncIterator[_Events]:
    target = server.target(seeded.api_key)
    actor, witness = await open_sessions(target, seeded.members[:2], password=PASSWORD)
    heard: list[bytes] = []
    witness.listener = heard.append

    async def cause() -> None:
        number = next(_numbers)
        body = b'{"properties":{"mood":"working","count":%d}}' % number
        actor.write(wire.send(wire.relay("user.update"), f"receipt-{number}", body))

    def sample() -> bytes:
        return [frame for frame in heard if b'"type":"contact.' in frame][-1]

    try:
        yield _Events(cause, sample, answers=True)
    finally:
        await close_sessions([actor, witness])


@asynccontextmanager
async def _kandy_events(server: RunningServer, seeded: Seeded) -> AsyncIterator[_Events]:
    target = server.target(seeded.api_key)
    actor, witness = seeded.subscribers[:2]
    # Who shows presence must have subscribed to it.
    own, watching = await open_sockets(target, [actor, witness], watch=actor.name)
    requests = await Requests.connect(target)

    async def cause() -> None:
        await requests.show(actor, f"note-{next(_numbers)}")

    def sample() -> bytes:
        return watching.last

    try:
        yield _Events(cause, sample, answers=False)
    finally:
        requests.close()
        for socket in (own, watching):
            socket.abort()


async def _bare(floor: RunningFloor, same: _Floor, count: int, sizes: Sizes) -> tuple[float, float, float]:
    """What as many bare WebSockets cost that exchange the same bytes: start, memory, event."""
    url = f"ws://127.0.0.1:{floor.port}/"

    async def cause() -> None:
        floor.write(same.frame)

    async with worker() as bare:
        await bare.order(sdk.StartBare(url, WARM, same.answer))
        await bare.order(sdk.End())
        start, memory = await bare.started(sdk.StartBare(url, count, same.answer), count)
        return start, memory, await bare.told(cause, count, sizes)
