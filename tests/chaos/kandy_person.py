"""A user of Kandy's clients who works through every crash of the server, and remembers what was promised."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence, Set
from itertools import pairwise

from tests.kandy_client import Account, KandyClient, Lost, Refused, Rule, Shown

ACTIVITIES = ("active", "idle", "away", "lunch", "busy", "vacation")
PAUSE = 0.1
RULE = Rule(0.25, 80)
"""As long as the SDKs' own rule, but looked more often, so that more crashes fit into a test."""
_NUMBER = re.compile(r"number (\d+)")


class KandyPerson:
    """A user with one or more clients; the first one works, all hear.

    Args:
        url: of the server.
        accounts: of the clients, all of one user.
        number: of the choices.

    Attributes:
        name: the username.
        sent: recipient → the numbers of the messages that the server answered to have.
        tried: recipient → the number that was sent last.
        shown: the numbers of the presences that the server answered to have.
        tried_shown: the number shown last.
        last: what was shown last, as far as that is known: activity and number.
        refused: how often the server said that it cannot now.
        patient: whether the server may say so to UC's own requests, too.
        wrongs: what must not happen, but did.
        busy: whether to go on working; may be changed at any time.
        idle: set while nothing is under way.
    """

    def __init__(self, url: str, accounts: Sequence[Account], number: int) -> None:
        self._random = random.Random(number)
        self._task: asyncio.Task[None] | None = None
        self._wrongs: list[str] = []
        self.name = accounts[0].username
        self.clients = [KandyClient(url, account, RULE, f"device {i}") for i, account in enumerate(accounts)]
        self.peers: list[str] = []
        self.sent: dict[str, list[int]] = {}
        self.tried: dict[str, int] = {}
        self.shown: list[int] = []
        self.tried_shown = 0
        self.refused = 0
        self.patient = False
        self.busy = True
        self.idle = asyncio.Event()

    @property
    def works(self) -> KandyClient:
        """The client that works."""
        return self.clients[0]

    @property
    def done(self) -> int:
        """How much was acknowledged so far."""
        return sum(len(numbers) for numbers in self.sent.values()) + len(self.shown)

    @property
    def up(self) -> bool:
        """Whether all sockets are open."""
        return all(client.up.is_set() for client in self.clients)

    @property
    def wrongs(self) -> list[str]:
        wrongs = list(self._wrongs)
        for client in self.clients:
            wrongs += client.wrongs
            if client.reason not in (None, "UNSUBSCRIBED", "CLOSED"):
                wrongs.append(f"a subscription is over: {client.reason}, closes {client.closes[-3:]}")
        return [f"{self.name}: {wrong}" for wrong in wrongs]

    async def begin(self, peers: Sequence[str]) -> None:
        """Subscribes and watches all peers. The server must live."""
        self.peers = list(peers)
        for client in self.clients:
            await client.subscribe()
            await client.watch(*peers)

    def start(self) -> None:
        """Works until ``stop``."""
        self._task = asyncio.create_task(self._work(), name=self.name)

    async def stop(self) -> None:
        """Works no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(outcome, asyncio.CancelledError):
                self._wrongs.append(f"the work ended by itself: {outcome!r}")

    async def close(self) -> None:
        """Goes away."""
        await self.stop()
        for client in self.clients:
            await client.close()

    async def leave(self) -> None:
        """Ends the subscriptions of all clients, sooner or later."""
        await self.stop()
        for client in self.clients:
            await self.insist(client, "leave")

    async def come_back(self) -> None:
        """Subscribes anew, and watches again, as applications do."""
        for client in self.clients:
            await self.insist(client, "come back")
        self.start()

    async def watch(self, *names: str) -> None:
        """Watches more users, sooner or later."""
        for client in self.clients:
            await self.insist(client, "watch", *names)

    async def insist(self, client: KandyClient, wish: str, *names: str) -> None:
        """Does something, again and again until it is answered."""
        while True:
            try:
                if wish == "leave":
                    await client.unsubscribe()
                elif wish == "come back":
                    await client.subscribe()
                    await self.insist(client, "watch", *self.peers)
                else:
                    await client.watch(*names)
                return
            except Lost:
                pass
            except Refused as refused:
                self._refused(refused)
            await asyncio.sleep(PAUSE)

    async def _work(self) -> None:
        while True:
            if not self.busy:
                self.idle.set()
                await asyncio.sleep(0.01)
                continue
            self.idle.clear()
            try:
                if self._random.random() < 0.7:
                    await self._send(self._random.choice(self.peers))
                else:
                    await self._show()
                await asyncio.sleep(self._random.uniform(0, 0.06))
            except Lost:
                await asyncio.sleep(PAUSE)
            except Refused as refused:
                self._refused(refused)
                await asyncio.sleep(PAUSE)

    def _refused(self, refused: Refused) -> None:
        self.refused += 1
        # UC's answers to requests of its own are 200, whatever they say.
        away = self.patient and "not available" in str(refused)
        if refused.status < 500 and not away:
            self._wrongs.append(f"refused: {refused}")

    async def _send(self, to: str) -> None:
        number = self.tried[to] = self.tried.get(to, 0) + 1
        await self.works.send(to, f"number {number}")
        self.sent.setdefault(to, []).append(number)

    async def _show(self) -> None:
        self.tried_shown += 1
        await self.works.show("open", self._random.choice(ACTIVITIES), f"number {self.tried_shown}")
        self.shown.append(self.tried_shown)


def texts_of(client: KandyClient, sender: str) -> list[int]:
    """The numbers of the messages that a client got from somebody, in their order."""
    return [number_in(text.text) for text in client.texts if text.sender == sender]


def number_in(text: str) -> int:
    """The number that a text or note tells; 0 if none."""
    match = _NUMBER.fullmatch(text)
    return 0 if match is None else int(match[1])


def unheard(people: Sequence[KandyPerson]) -> list[str]:
    """What somebody has not been told of that was acknowledged to somebody else."""
    missing = []
    for author in people:
        for hearer in people:
            if hearer is author:
                continue
            for index, client in enumerate(hearer.clients):
                heard, seen = set(texts_of(client, author.name)), _numbers(client, author.name)
                who = f"{hearer.name}'s client {index}"
                missing += [
                    f"{who} did not get {author.name}'s message {number}"
                    for number in author.sent.get(hearer.name, ())
                    if number not in heard
                ]
                missing += [
                    f"{who} did not see {author.name}'s presence {number}"
                    for number in author.shown[-1:]
                    if max(seen, default=0) < number
                ]
    return missing


def order_wrongs(people: Sequence[KandyPerson]) -> list[str]:
    """What came twice, or out of order, or from nowhere."""
    wrongs = []
    for author in people:
        for hearer in people:
            for index, client in enumerate(hearer.clients):
                who = f"{hearer.name}'s client {index}"
                numbers = texts_of(client, author.name)
                wrongs += [
                    f"{who} got {author.name}'s message {wrong}"
                    for wrong in _message_wrongs(numbers, set(author.sent.get(hearer.name, ())))
                ]
                if max(numbers, default=0) > author.tried.get(hearer.name, 0):
                    wrongs.append(f"{who} got {author.name}'s message {max(numbers)}, which nobody sent")
                wrongs += [f"{who} {wrong}" for wrong in _presence_wrongs(client.presence.get(author.name, ()))]
    return wrongs


def unseen(people: Sequence[KandyPerson]) -> list[str]:
    """The presences, acknowledged to somebody, that another who has watched all the time was never told of."""
    return [
        f"{hearer.name}'s client {index} did not see {author.name}'s presence {number}"
        for author in people
        for hearer in people
        if hearer is not author
        for index, client in enumerate(hearer.clients)
        if "UNSUBSCRIBED" not in client.reasons
        for number in sorted(set(author.shown) - _numbers(client, author.name))
    ]


def _numbers(client: KandyClient, name: str) -> set[int]:
    return {number_in(shown.note) for shown in client.presence.get(name, ())}


def _message_wrongs(numbers: Sequence[int], acknowledged: Set[int]) -> list[str]:
    """Each comes once, and what was acknowledged before anything that was sent after it.

    A message whose sender gave its request up may still be stored when others, sent after it, already are.
    """
    wrongs, last, got = [], 0, set[int]()
    for number in numbers:
        if number in got:
            wrongs.append(f"{number} twice")
        elif number < last and number in acknowledged:
            wrongs.append(f"{number}, which was acknowledged, after {last}")
        last = max(last, number)
        got.add(number)
    return wrongs


def _presence_wrongs(seen: Sequence[Shown]) -> list[str]:
    """Presence never goes back; the same comes again only after something else, or when it was asked for."""
    wrongs, last = [], 0
    for earlier, later in pairwise(seen):
        last = max(last, number_in(earlier.note))
        number = number_in(later.note)
        if later.status == "open" and number < last:
            wrongs.append(f"saw presence {number} ({later.event_id}) after {last} ({earlier.event_id})")
        elif number == number_in(earlier.note) != 0 and not (_asked_for(earlier) or _asked_for(later)):
            wrongs.append(f"saw presence {number} twice: {earlier.event_id} and {later.event_id}")
    return wrongs


def _asked_for(shown: Shown) -> bool:
    return shown.event_id.startswith("s")
