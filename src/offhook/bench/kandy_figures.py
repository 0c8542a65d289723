"""What Kandy's clients cost: as ``figures`` measures those of ChatKitty."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

from offhook.bench import wire
from offhook.bench.client import LoadFailed, Session, open_sessions, until
from offhook.bench.figures import Sizes
from offhook.bench.kandy import Requests, Socket, open_sockets
from offhook.bench.measure import CPU, cpu_seconds, settled_memory
from offhook.bench.processes import RunningFloor, RunningServer
from offhook.bench.seed import DEVICES, Seeded

QUIET = 0.02
"""CPU seconds in each second below which a server counts as idle."""
TURN = 0.25

_texts = itertools.count(100_000)


@dataclass(frozen=True, slots=True)
class Notifying:
    """CPU seconds for notifications.

    Attributes:
        message: one message to a user with one client: the request, its commit and the notification.
        message_floor: the bare server writing its bytes to one client.
        device: what each further client of the recipient adds.
        device_floor: the bare server, for each of as many clients.
        presence: one of many watchers, when a user's presence changes.
        presence_floor: the bare server, for each of as many clients.
    """

    message: float
    message_floor: float
    device: float
    device_floor: float
    presence: float
    presence_floor: float


async def subscription_start(server: RunningServer, seeded: Seeded, sizes: Sizes) -> float:
    """CPU seconds of the server for one subscription and its socket, from TCP to the session being live."""
    target = server.target(seeded.api_key)
    users = seeded.subscribers[: sizes.sessions]
    await _closed(server, await open_sockets(target, users[: max(100, sizes.sessions // 6)]))
    rounds = []
    for _ in range(sizes.rounds):
        with CPU(server.pid) as cpu:
            sockets = await open_sockets(target, users)
            # An open socket gets its session a moment later, and that is no less a part of it.
            await _idle(server)
        rounds.append(cpu.seconds / len(users))
        _check(sockets)
        await _closed(server, sockets)
    return median(rounds)


async def two_handshakes_floor(floor: RunningFloor, sizes: Sizes) -> float:
    """CPU seconds of the floor for two TCP connections with a short answer each, which is what a client opens."""
    rounds = []
    for _ in range(sizes.rounds):
        with CPU(floor.pid) as cpu:
            sessions = await open_sessions(floor.target, [None] * (2 * sizes.sessions))
        rounds.append(cpu.seconds / sizes.sessions)
        _abort(sessions)
    return median(rounds)


async def memory(server: RunningServer, seeded: Seeded, count: int) -> float:
    """Resident bytes of the server for each idle subscription with its socket. The server must be fresh."""
    target = server.target(seeded.api_key)
    await _closed(server, await open_sockets(target, seeded.subscribers[:100]))
    before = await settled_memory(server.pid)
    sockets = await open_sockets(target, seeded.subscribers[:count])
    await _idle(server)
    each = (await settled_memory(server.pid) - before) / count
    _check(sockets)
    _abort(sockets)
    return each


async def notifications(server: RunningServer, floor: RunningFloor, seeded: Seeded, sizes: Sizes) -> Notifying:
    """Messages and presence, beside the bare server writing the same bytes."""
    target = server.target(seeded.api_key)
    actor, one, many, *rest = seeded.subscribers
    receivers = rest[: sizes.receivers]
    single = await open_sockets(target, [one])
    devices = await open_sockets(target, [many] * min(DEVICES, sizes.receivers))
    # Who shows presence must have subscribed to it.
    own = await open_sockets(target, [actor])
    watchers = await open_sockets(target, receivers, watch=actor.name)
    await until(lambda: all(socket.events for socket in watchers), "what the watchers asked for")
    await _idle(server)
    requests = await Requests.connect(target)

    async def to_one() -> None:
        await requests.send(actor, one.name, f"text-{next(_texts)}")

    async def to_many() -> None:
        await requests.send(actor, many.name, f"text-{next(_texts)}")

    async def show() -> None:
        await requests.show(actor, f"note-{next(_texts)}")

    times = sizes.events * 5
    message, device, presence = [], [], []
    for _ in range(sizes.rounds):
        message.append(await _cost(server, single, times, to_one))
        device.append(await _cost(server, devices, sizes.events, to_many) - message[-1])
        presence.append(await _cost(server, watchers, sizes.events, show) / len(watchers))
    requests.close()
    _check([*single, *devices, *own, *watchers])
    message_floor = await _floor(floor, 1, times, single[0].last, sizes.rounds)
    device_floor = await _floor(floor, len(devices), sizes.events, devices[0].last, sizes.rounds)
    presence_floor = await _floor(floor, len(watchers), sizes.events, watchers[0].last, sizes.rounds)
    _abort([*single, *devices, *own, *watchers])
    return Notifying(
        median(message),
        message_floor,
        max(0.0, median(device)) / (len(devices) - 1),
        device_floor,
        median(presence),
        presence_floor,
    )


async def _cost(
    server: RunningServer, sockets: Sequence[Socket], times: int, cause: Callable[[], Awaitable[None]]
) -> float:
    """CPU seconds of the server for something that each of the sockets is told of once."""
    with CPU(server.pid) as cpu:
        for _ in range(times):
            goal = sum(socket.events for socket in sockets) + len(sockets)
            await cause()
            await until(lambda goal=goal: sum(s.events for s in sockets) >= goal, "a notification")  # type: ignore[misc]
    return cpu.seconds / times


async def _floor(floor: RunningFloor, count: int, times: int, sample: bytes, rounds: int) -> float:
    """CPU seconds of the floor for writing a notification to one of so many clients."""
    frame = wire.server_frame(sample)
    bare = await open_sessions(floor.target, [None] * count)
    heard = [0]
    for session in bare:
        session.listener = lambda _: heard.__setitem__(0, heard[0] + 1)
    costs = []
    for _ in range(rounds):
        with CPU(floor.pid) as cpu:
            for _ in range(times):
                goal = heard[0] + count
                floor.write(frame)
                await until(lambda goal=goal: heard[0] >= goal, "the floor's bytes")  # type: ignore[misc]
        costs.append(cpu.seconds / (times * count))
    _abort(bare)
    return median(costs)


async def _idle(server: RunningServer) -> None:
    """Waits until the server has nothing to do."""
    last = cpu_seconds(server.pid)
    for _ in range(100):
        await asyncio.sleep(TURN)
        now = cpu_seconds(server.pid)
        if now - last < QUIET * TURN:
            return
        last = now
    raise LoadFailed("the server does not come to rest")


def _check(sockets: Sequence[Socket]) -> None:
    lost = [socket for socket in sockets if socket.error is not None]
    if lost:
        raise LoadFailed(f"{len(lost)} of {len(sockets)} sockets were lost: {lost[0].error}")


def _abort(clients: Sequence[Socket] | Sequence[Session]) -> None:
    for client in clients:
        client.abort()


async def _closed(server: RunningServer, sockets: Sequence[Socket]) -> None:
    """Lets clients go away and waits until the server has dealt with it."""
    _abort(sockets)
    await _idle(server)
