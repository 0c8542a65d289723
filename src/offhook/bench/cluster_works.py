"""The work that systems of one process or more are measured at, and its clients."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from offhook.bench.client import LoadFailed, Session, Target, close_sessions, open_sessions
from offhook.bench.kandy import Requests, Socket, open_sockets
from offhook.bench.measure import percentile, settled_memory
from offhook.bench.processes import RunningServer
from offhook.bench.seed import Seeded, Subscriber
from offhook.bench.shared import Shared, Spending, Spent, at_rest

START, RESUME, MESSAGE, PRESENCE = "session start", "resume", "message", "presence"
ARRIVAL = 30.0
"""Seconds in which a notification must arrive."""
WARM = 50
"""Sessions that are opened and closed before memory is measured."""

_texts = itertools.count(1)


@dataclass(frozen=True, slots=True)
class ClusterSizes:
    """How much is measured.

    Of every kind as much is under way at each process, however many there are: so it is when all are as busy as they
    can be, which is what their capacity is about.

    Attributes:
        rounds: whose median counts; one more goes before them.
        sessions: started and resumed in each round, and weighed.
        at_once: of these, under way at each process.
        pairs: for each process: users of whom one sends the other messages; all pairs at once.
        messages: of each pair in each round.
        watched: for each process: users who change their presence, all of them at once.
        watchers: of each of these.
        changes: of each in each round.
        samples: messages of one pair in peace, whose times are taken.
    """

    rounds: int = 5
    sessions: int = 2000
    at_once: int = 50
    pairs: int = 48
    messages: int = 40
    watched: int = 8
    watchers: int = 20
    changes: int = 20
    samples: int = 500


QUICK = ClusterSizes(rounds=3, sessions=200, pairs=24, messages=10, changes=8, samples=100)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the request that sends a message to its notification, while nothing else happens.

    Attributes:
        typical: the median.
        worst: what 99 of 100 do not exceed.
    """

    typical: float
    worst: float


class System:
    """Servers that are one system.

    Args:
        servers: running.
        seeded: their users.
        shared: what they share; None for one on SQLite.
        at_once: sessions that are being started at each.
    """

    def __init__(
        self, servers: Sequence[RunningServer], seeded: Seeded, shared: Shared | None = None, at_once: int = 50
    ) -> None:
        self._at_once = at_once
        self.servers = servers
        self.seeded = seeded
        self._shared = shared
        self.pids = [server.pid for server in servers]

    def target(self, number: int) -> Target:
        """Where the client of this number connects."""
        return self.servers[number % len(self.servers)].target(self.seeded.api_key)

    def spending(self) -> Spending:
        """Measures what it uses within a block."""
        return Spending(self.pids, self._shared)

    async def sessions(self, users: Sequence[str], resumes: Sequence[str] | None = None) -> list[Session]:
        """Starts sessions of ChatKitty's clients on all servers; or resumes them, each on the next server."""
        size, moved = len(self.servers), 0 if resumes is None else 1
        parts = await asyncio.gather(
            *(
                open_sessions(
                    self.target(number + moved),
                    users[number::size],
                    concurrency=self._at_once,
                    resumes=None if resumes is None else resumes[number::size],
                )
                for number in range(size)
            )
        )
        return [session for part in parts for session in part]

    async def close(self, sessions: Sequence[Session]) -> None:
        """Lets the clients go away, and waits until the servers have dealt with it."""
        await close_sessions(sessions)
        await at_rest(self.pids)

    async def memory(self, count: int) -> float:
        """Resident bytes for each idle session. The servers must be fresh."""
        await self.close(await self.sessions(self.seeded.guests[:WARM]))
        before = sum(await asyncio.gather(*map(settled_memory, self.pids)))
        sessions = await self.sessions(self.seeded.guests[:count])
        each = (sum(await asyncio.gather(*map(settled_memory, self.pids))) - before) / count
        await self.close(sessions)
        return each


class Starts:
    """ChatKitty's sessions start, lose their connections, and are resumed, each on another server if there is one.

    Args:
        system: where.
        sizes: how many.
    """

    def __init__(self, system: System, sizes: ClusterSizes) -> None:
        self._system = system
        self._users = system.seeded.guests[: sizes.sessions]

    async def open(self) -> None:
        """Nothing is kept between rounds."""

    async def round(self) -> Mapping[str, Spent]:
        """What one start costs, and one resume."""
        system, count = self._system, len(self._users)
        async with system.spending() as starting:
            sessions = await system.sessions(self._users)
        await system.close(sessions)
        # They came server by server, and each goes to the one after it.
        tokens = {session.user: session.token or "" for session in sessions}
        async with system.spending() as resuming:
            back = await system.sessions(self._users, [tokens[user] for user in self._users])
        lost = sum(session.recovered is not True for session in back)
        if lost:
            raise LoadFailed(f"{lost} of {count} sessions were not resumed with all that they missed")
        await system.close(back)
        return {START: starting.spent.each(count), RESUME: resuming.spent.each(count)}

    def close(self) -> None:
        """Nothing is kept between rounds."""


class Pair:
    """A user who sends another one messages.

    Args:
        sender: who.
        receiver: to whom.
        requests: the sender's connection.
        socket: the receiver's.
    """

    def __init__(self, sender: Subscriber, receiver: Subscriber, requests: Requests, socket: Socket) -> None:
        self._sender = sender
        self._receiver = receiver
        self._requests = requests
        self._socket = socket
        self._expected = b""
        self._arrived: asyncio.Future[float] | None = None
        socket.listener = self._heard

    async def send(self) -> float:
        """Sends a message. Returns the seconds until it arrived.

        Raises:
            LoadFailed: it was refused, or does not arrive.
        """
        text = f"text-{next(_texts)}."
        self._expected, self._arrived = text.encode(), asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        _, arrived = await asyncio.gather(
            self._requests.send(self._sender, self._receiver.name, text), asyncio.wait_for(self._arrived, ARRIVAL)
        )
        return arrived - began

    def _heard(self, notification: bytes) -> None:
        if self._arrived is not None and not self._arrived.done() and self._expected in notification:
            self._arrived.set_result(time.perf_counter())

    def close(self) -> None:
        """Both go away."""
        self._requests.close()
        self._socket.abort()


class Messages:
    """Pairs of users of Kandy's UC clients, each on any server: with two, half of the pairs have both ends on one.

    Args:
        system: where.
        sizes: how many.
    """

    def __init__(self, system: System, sizes: ClusterSizes) -> None:
        self._system = system
        self._sizes = sizes
        self._pairs: list[Pair] = []

    async def open(self) -> None:
        """Opens all connections."""
        system = self._system
        users = iter(system.seeded.subscribers)
        for number in range(self._sizes.pairs * len(system.servers)):
            sender, receiver = next(users), next(users)
            # Senders alternate between the servers; pairs 0 and 1 have their receivers where they are, 2 and 3 not.
            place = number + number // 2 % 2
            (socket,) = await open_sockets(system.target(place), [receiver])
            self._pairs.append(Pair(sender, receiver, await Requests.connect(system.target(number)), socket))
        await at_rest(system.pids)

    async def round(self) -> Mapping[str, Spent]:
        """What one message costs: the request, its commit and the notification."""

        async def converse(pair: Pair) -> None:
            for _ in range(self._sizes.messages):
                await pair.send()

        async with self._system.spending() as sending:
            await asyncio.gather(*map(converse, self._pairs))
        return {MESSAGE: sending.spent.each(len(self._pairs) * self._sizes.messages)}

    async def latency(self, number: int) -> Latency:
        """How long messages of one pair take in peace."""
        pair = self._pairs[number]
        taken = [await pair.send() for _ in range(self._sizes.samples)]
        return Latency(median(taken), percentile(taken, 0.99))

    def close(self) -> None:
        """Closes all connections."""
        for pair in self._pairs:
            pair.close()


class Watching:
    """Users change their presence, each with watchers of its own on all servers.

    Args:
        system: where.
        sizes: how many.
    """

    def __init__(self, system: System, sizes: ClusterSizes) -> None:
        self._system = system
        self._sizes = sizes
        self._watched: list[tuple[Subscriber, Requests, list[Socket]]] = []
        self._own: list[Socket] = []

    async def open(self) -> None:
        """Opens all connections."""
        system, sizes = self._system, self._sizes
        users = iter(system.seeded.subscribers)
        for number in range(sizes.watched * len(system.servers)):
            one = next(users)
            # Who shows presence must have subscribed to it.
            self._own += await open_sockets(system.target(number), [one])
            sockets: list[Socket] = []
            for place in range(len(system.servers)):
                count = len(range(place, sizes.watchers, len(system.servers)))
                watchers = list(itertools.islice(users, count))
                sockets += await open_sockets(system.target(place), watchers, watch=one.name)
            self._watched.append((one, await Requests.connect(system.target(number)), sockets))
        await at_rest(system.pids)

    async def round(self) -> Mapping[str, Spent]:
        """What one change costs with all its notifications."""
        async with self._system.spending() as showing:
            await asyncio.gather(*(self._changes(*watched) for watched in self._watched))
        return {PRESENCE: showing.spent.each(len(self._watched) * self._sizes.changes)}

    async def _changes(self, one: Subscriber, requests: Requests, sockets: Sequence[Socket]) -> None:
        for _ in range(self._sizes.changes):
            note = f"note-{next(_texts)}."
            heard = _all_hear(sockets, note.encode())
            await requests.show(one, note)
            await asyncio.wait_for(heard, ARRIVAL)

    def close(self) -> None:
        """Closes all connections."""
        for _, requests, sockets in self._watched:
            requests.close()
            for socket in sockets:
                socket.abort()
        for socket in self._own:
            socket.abort()


def _all_hear(sockets: Sequence[Socket], words: bytes) -> asyncio.Future[None]:
    """Is done once each of the sockets got a notification with these words."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(sockets)

    def heard(notification: bytes) -> None:
        nonlocal left
        if words in notification:
            left -= 1
            if left == 0 and not done.done():
                done.set_result(None)

    for socket in sockets:
        socket.listener = heard
    return done


Work = Starts | Messages | Watching
