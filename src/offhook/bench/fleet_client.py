"""Clients that come back by themselves when they lose their server, in a process of their own.

Run as ``python -m offhook.bench.fleet_client``: it takes orders on its standard input, one in JSON a line, answers each
with a line, and ends with its input. As the SDKs do, a client waits for a random time that grows with each failure
("full jitter"), and then goes to the other server.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from offhook.bench.client import LoadFailed, Session, Target, crowd, until
from offhook.bench.kandy import Requests, Socket
from offhook.bench.seed import Subscriber
from offhook.client.reconnect import Backoff, Reconnect

ATTEMPT = 30.0
"""Seconds after which an attempt to come back has failed, as in the SDK."""
AT_ONCE = 40
"""Clients that are being started at once."""
OPENING = 600.0
RETURN = 300.0
NUMBER = re.compile(rb'"(?:count":|note":"note-)([0-9]+)')
"""What the clients are told is numbered from 1."""

T = TypeVar("T", bound="Session | Socket")


class Traveller(msgspec.Struct, frozen=True):
    """A client.

    Attributes:
        name: its user.
        token: the user's access token if it is a client of Kandy's; else it is ChatKitty's.
        place: which server it begins at: 0 or 1.
    """

    name: str
    token: str | None
    place: int


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Starts clients.

    Attributes:
        ports: of the two servers on 127.0.0.1.
        api_key: of the application.
        clients: all of them.
        watch: whose presence those of Kandy's are to be told of.
        initial: seconds; what is waited at most before the first attempt to come back.
        maximum: seconds; what that grows to.
    """

    ports: tuple[int, int]
    api_key: str
    clients: tuple[Traveller, ...]
    watch: str
    initial: float
    maximum: float


class Hear(msgspec.Struct, frozen=True, tag=True):
    """Answered once every client has been told of everything up to a number, or that takes too long."""

    number: int
    seconds: float


class Return(msgspec.Struct, frozen=True, tag=True):
    """Answered once so many clients have lost their connections, and all are back."""

    lost: int


Order = Begin | Hear | Return


class Account(msgspec.Struct, frozen=True):
    """The answer to an order: what has happened so far.

    Attributes:
        clients: how many there are.
        behind: how many have not been told of everything.
        missed: numbers that were passed over.
        again: numbers that were told again.
        afresh: clients that were told to start over when they came back.
        failures: attempts to come back that failed.
        returned: for each client that came back: when it lost its connection, when it was back (``time.monotonic``),
            and how many seconds the attempt took that succeeded.
        cpu: CPU seconds of this process.
        error: what went wrong, if anything did.
    """

    clients: int = 0
    behind: int = 0
    missed: int = 0
    again: int = 0
    afresh: int = 0
    failures: int = 0
    returned: tuple[tuple[float, float, float], ...] = ()
    cpu: float = 0.0
    error: str | None = None


class Client:
    """One client.

    Args:
        fleet: all of them.
        traveller: what it is.
    """

    __slots__ = ("_fleet", "_traveller", "again", "connection", "last", "missed", "task")

    def __init__(self, fleet: Fleet, traveller: Traveller) -> None:
        self._fleet = fleet
        self._traveller = traveller
        self.connection: Session | Socket | None = None
        self.task: asyncio.Task[None] | None = None
        self.last = 0
        self.missed = 0
        self.again = 0

    async def start(self) -> None:
        """Starts its session. Raises LoadFailed or OSError."""
        target = self._fleet.targets[self._traveller.place]
        if self._traveller.token is None:
            await self._session(target, None)
            return
        who = Subscriber(self._traveller.name, self._traveller.token)
        requests = await Requests.connect(target)
        try:
            await self._socket(target, await requests.subscribe(who), who.token)
            await requests.watch(who, self._fleet.watch)
        finally:
            requests.close()

    async def _session(self, target: Target, resumes: str | None) -> None:
        def make(done: Callable[[Session], None]) -> Session:
            session = Session(target, self._traveller.name, done, resumes=resumes)
            session.acks, session.listener = True, self._hear
            return session

        session = await self._connected(target, make)
        if resumes is not None and session.recovered is not True:
            self._fleet.afresh += 1

    async def _socket(self, target: Target, channel: str, token: str) -> None:
        def make(done: Callable[[Socket], None]) -> Socket:
            socket = Socket(target, channel, token, done)
            socket.listener = self._hear
            return socket

        await self._connected(target, make)

    async def _connected(self, target: Target, make: Callable[[Callable[[T], None]], T]) -> T:
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[T] = loop.create_future()
        made = make(lambda one: None if finished.done() else finished.set_result(one))
        try:
            async with asyncio.timeout(ATTEMPT):
                await loop.create_connection(lambda: made, "127.0.0.1", target.port)
                await finished
            if made.error is not None:
                raise LoadFailed(made.error)
        except BaseException:
            made.abort()
            raise
        made.on_lost = self._lost
        self.connection = made
        return made

    def _lost(self) -> None:
        self._fleet.lost += 1
        self.task = asyncio.get_running_loop().create_task(self._come_back(time.monotonic()))

    async def _come_back(self, lost_at: float) -> None:
        backoff = Backoff(self._fleet.reconnect)
        target = self._fleet.targets[1 - self._traveller.place]
        former = self.connection
        while True:
            await asyncio.sleep(backoff.delay())
            began = time.monotonic()
            try:
                if isinstance(former, Socket):
                    await self._socket(target, former.channel, self._traveller.token or "")
                elif former is not None:
                    await self._session(target, former.token)
                break
            except (LoadFailed, OSError, TimeoutError):
                self._fleet.failures += 1
                backoff.failed()
        now = time.monotonic()
        self._fleet.returned.append((lost_at, now, now - began))

    def _hear(self, words: bytes) -> None:
        found = NUMBER.search(words)
        if found is None:
            return
        number = int(found[1])
        if number <= self.last:
            self.again += 1
        else:
            self.missed += number - self.last - 1
            self.last = number


class Fleet:
    """All clients of this process."""

    def __init__(self) -> None:
        self.targets: tuple[Target, ...] = ()
        self.watch = ""
        self.reconnect = Reconnect()
        self.lost = 0
        self.afresh = 0
        self.failures = 0
        self.returned: list[tuple[float, float, float]] = []
        self._clients: list[Client] = []

    async def obey(self, order: Order) -> Account:
        """Carries an order out. Raises LoadFailed or OSError if it cannot be."""
        behind = 0
        match order:
            case Begin():
                await self._begin(order)
            case Hear(number, seconds):
                behind = await self._hear(number, seconds)
            case Return(lost):
                await until(lambda: len(self.returned) == self.lost >= lost, "all to be back", RETURN, 0.02)
        return Account(
            clients=len(self._clients),
            behind=behind,
            missed=sum(client.missed for client in self._clients),
            again=sum(client.again for client in self._clients),
            afresh=self.afresh,
            failures=self.failures,
            returned=tuple(self.returned) if isinstance(order, Return) else (),
            cpu=time.process_time(),
        )

    async def _begin(self, order: Begin) -> None:
        self.targets = tuple(Target(port, order.api_key) for port in order.ports)
        self.watch = order.watch
        self.reconnect = Reconnect(order.initial, maximum=order.maximum)
        self._clients = [Client(self, traveller) for traveller in order.clients]
        queue = iter(self._clients)

        async def worker() -> None:
            for client in queue:
                await client.start()

        await crowd(worker, AT_ONCE, OPENING, lambda: "some clients could not be started")

    async def _hear(self, number: int, seconds: float) -> int:
        def behind() -> int:
            return sum(client.last < number for client in self._clients)

        try:
            await until(lambda: behind() == 0, "events", seconds, 0.05)
        except LoadFailed:
            return behind()
        return 0


async def main() -> None:
    """Takes orders until there are no more."""
    decoder: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
    fleet = Fleet()
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        try:
            account = await fleet.obey(decoder.decode(line))
        except (LoadFailed, OSError, TimeoutError) as error:
            account = Account(error=str(error) or type(error).__name__)
        sys.stdout.buffer.write(msgspec.json.encode(account) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
