"""The single measurements. Each takes a running server, and a running floor where there is one to compare with."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from offhook.bench import wire
from offhook.bench.client import LoadFailed, Session, Target, close_sessions, open_sessions, until
from offhook.bench.measure import CPU, percentile, settled_memory
from offhook.bench.processes import RunningFloor, RunningServer
from offhook.bench.seed import PASSWORD, Seeded

TOGETHER = 4
"""Events that are published within one tick."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        sessions: started in each round.
        rounds: whose median counts.
        receivers: sessions that get each event.
        events: events in each round.
        idle: sessions that stay to be weighed.
        idle_tls: the same over TLS.
        logins: concurrent logins with a password.
        clients: of the Python SDK, half of them ChatKitty's and half Kandy's.
    """

    sessions: int = 3000
    rounds: int = 5
    receivers: int = 1000
    events: int = 100
    idle: int = 10_000
    idle_tls: int = 3000
    logins: int = 50
    clients: int = 1000


QUICK = Sizes(sessions=600, rounds=3, events=30, receivers=1000, idle=2000, idle_tls=500, clients=300)


async def session_start(server: RunningServer, seeded: Seeded, sizes: Sizes, tls: bool = False) -> float:
    """CPU seconds of the server for one session of a known guest, from TCP to the last receipt."""
    target = server.target(seeded.api_key, tls)
    users = seeded.guests[: sizes.sessions]
    await _opened_and_closed(target, users[: max(100, sizes.sessions // 6)])
    rounds = []
    for _ in range(sizes.rounds):
        with CPU(server.pid) as cpu:
            sessions = await open_sessions(target, users)
        rounds.append(cpu.seconds / len(users))
        await _closed(server, sessions)
    return median(rounds)


async def handshake_floor(floor: RunningFloor, sizes: Sizes) -> float:
    """CPU seconds of the floor for one TCP connection with its WebSocket handshake."""
    rounds = []
    for _ in range(sizes.rounds):
        with CPU(floor.pid) as cpu:
            sessions = await open_sessions(floor.target, [None] * sizes.sessions)
        rounds.append(cpu.seconds / sizes.sessions)
        await close_sessions(sessions)
    return median(rounds)


@dataclass(frozen=True, slots=True)
class FanOut:
    """CPU seconds for one delivery of an event to one of many sessions.

    Attributes:
        single: events that come one at a time.
        acked: the same, and clients acknowledge each.
        together: TOGETHER events that are committed together.
        batch: how many transactions were committed together then, without the one that held them up.
        floor: the bare server, one at a time.
        floor_together: the bare server, TOGETHER within one tick.
    """

    single: float
    acked: float
    together: float
    batch: float
    floor: float
    floor_together: float


async def fan_out(server: RunningServer, floor: RunningFloor, seeded: Seeded, sizes: Sizes) -> FanOut:
    """Events of one user to many sessions, beside the bare server writing the same bytes."""
    target = server.target(seeded.api_key)
    receivers = await open_sessions(target, seeded.guests[: sizes.receivers])
    actors = await open_sessions(target, seeded.members[: TOGETHER + 1], password=PASSWORD)
    bare = await open_sessions(floor.target, [None] * sizes.receivers)
    cause = _Cause(actors)
    sample = await _sample(receivers[0], cause)
    single, acked, together, bare_single, bare_together = [], [], [], [], []
    before = 0.0
    commits = 0.0
    for _ in range(sizes.rounds):
        single.append(await _deliveries(server, receivers, sizes.events, cause.one, 1))
        bare_single.append(await _floor_deliveries(floor, bare, sizes.events, sample, 1))
        before -= await _commits(server)
        together.append(await _deliveries(server, receivers, sizes.events // TOGETHER, cause.together, TOGETHER))
        before += await _commits(server)
        commits += sizes.events // TOGETHER
        bare_together.append(await _floor_deliveries(floor, bare, sizes.events // TOGETHER, sample, TOGETHER))
        _acknowledge(receivers, True)
        acked.append(await _deliveries(server, receivers, sizes.events, cause.one, 1))
        _acknowledge(receivers, False)
    await close_sessions([*receivers, *actors, *bare])
    batch = TOGETHER / max(1.0, before / commits - 1)
    return FanOut(median(single), median(acked), median(together), batch, median(bare_single), median(bare_together))


async def memory(server: RunningServer, seeded: Seeded, count: int, tls: bool = False) -> float:
    """Resident bytes of the server for each idle session. The server must be fresh."""
    target = server.target(seeded.api_key, tls)
    await _opened_and_closed(target, seeded.guests[:100])
    before = await settled_memory(server.pid)
    sessions = await open_sessions(target, seeded.guests[:count])
    each = (await settled_memory(server.pid) - before) / count
    lost = [session for session in sessions if session.error is not None]
    if lost:
        raise LoadFailed(f"{len(lost)} of {count} idle sessions were lost: {lost[0].error}")
    await close_sessions(sessions)
    return each


async def relay_latency(server: RunningServer, seeded: Seeded, sizes: Sizes) -> tuple[float, float, int]:
    """Seconds that 99 of 100 relays of one session take at most: in peace, and while others log in; and the number."""
    target = server.target(seeded.api_key)
    (session,) = await open_sessions(target, seeded.guests[:1])
    relays = _Relays(session)
    peace = [await relays.ask() for _ in range(300)]
    busy: list[float] = []
    for _ in range(sizes.rounds):
        logins = asyncio.create_task(
            open_sessions(target, seeded.members[: sizes.logins], concurrency=sizes.logins, password=PASSWORD)
        )
        while not logins.done():
            busy.append(await relays.ask())
            await asyncio.sleep(0.002)
        await _closed(server, await logins)
    await close_sessions([session])
    return percentile(peace, 0.99), percentile(busy, 0.99), len(busy)


class _Cause:
    """Causes events by real actions of real sessions.

    Args:
        actors: sessions of different users; the first one's other action holds the commits up.
    """

    def __init__(self, actors: Sequence[Session]) -> None:
        self._actors = actors
        self._numbers = itertools.count(100_000)
        self._blocks = itertools.cycle(("block", "unblock"))

    def one(self) -> None:
        """One event."""
        self._update(self._actors[1])

    def together(self) -> None:
        """TOGETHER events in one commit: while an action that nobody hears of is being committed, they gather."""
        plug, other = self._actors[0], self._actors[1].user_id
        path = f"users/{other}.block" if next(self._blocks) == "block" else f"user/blocked_records/{other}.delete"
        plug.write(wire.send(wire.relay(path), f"plug-{next(self._numbers)}", b"{}"))
        for actor in self._actors[1:]:
            self._update(actor)

    def _update(self, actor: Session) -> None:
        number = next(self._numbers)
        body = b'{"properties":{"mood":"working","count":%d}}' % number
        actor.write(wire.send(wire.relay("user.update"), f"receipt-{number}", body))


class _Relays:
    """Asks relays and takes the time.

    Args:
        session: who asks.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._answered: asyncio.Future[None] | None = None
        self._numbers = itertools.count()
        self._kinds = itertools.cycle(
            ("user.relay", f"users/{session.user_id}.relay", "user/contacts.relay.page.0.size..sort.")
        )
        session.listener = self._heard

    async def ask(self) -> float:
        """Asks the next relay. Returns the seconds until its answer."""
        self._answered = asyncio.get_running_loop().create_future()
        began = time.perf_counter()  # the loop's own clock counts milliseconds
        self._session.write(wire.subscribe(f"relay-{next(self._numbers)}", wire.relay(next(self._kinds))))
        await asyncio.wait_for(self._answered, 10)
        return time.perf_counter() - began

    def _heard(self, frame: bytes) -> None:
        if b"\nsubscription:relay-" in frame and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)


async def _deliveries(
    server: RunningServer, receivers: Sequence[Session], times: int, cause: Callable[[], None], together: int
) -> float:
    with CPU(server.pid) as cpu:
        for _ in range(times):
            goal = sum(session.events for session in receivers) + together * len(receivers)
            cause()
            await until(lambda goal=goal: sum(s.events for s in receivers) >= goal, "an event")  # type: ignore[misc]
    return cpu.seconds / (times * together * len(receivers))


async def _floor_deliveries(
    floor: RunningFloor, bare: Sequence[Session], times: int, sample: bytes, together: int
) -> float:
    with CPU(floor.pid) as cpu:
        for _ in range(times):
            goal = sum(session.events for session in bare) + together * len(bare)
            floor.write(sample, together)
            await until(lambda goal=goal: sum(s.events for s in bare) >= goal, "the floor's bytes")  # type: ignore[misc]
    return cpu.seconds / (times * together * len(bare))


async def _sample(session: Session, cause: _Cause) -> bytes:
    """The bytes of one event, as one session gets them."""
    events: list[bytes] = []
    session.listener = events.append
    cause.one()
    await until(lambda: any(b'"type":"contact.' in event for event in events), "the first event", 15)
    session.listener = None
    # The first thing that sessions get may be what they missed while they started.
    return wire.server_frame(next(event for event in events if b'"type":"contact.' in event))


async def _commits(server: RunningServer) -> float:
    return await server.metric("offhook_commit_size_count")


def _acknowledge(sessions: Sequence[Session], acks: bool) -> None:
    for session in sessions:
        session.acks = acks


async def _opened_and_closed(target: Target, users: Sequence[str]) -> None:
    await open_sessions(target, users, keep=False)


async def _closed(server: RunningServer, sessions: Sequence[Session]) -> None:
    """Lets clients go away and waits until the server has dealt with it."""
    await close_sessions(sessions)
    last = -1.0
    while (now := await server.metric("offhook_connections_open")) != last:
        last = now
        await asyncio.sleep(0.3)
