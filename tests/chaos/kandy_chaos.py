"""People with Link, UC and ChatKitty clients at work, while something that serves them dies again and again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jwt
from tests.chaos.kandy_person import KandyPerson, number_in, order_wrongs, unheard, unseen
from tests.chaos.killing import NODE_LEASE, Admin, until
from tests.chaos.person import Person
from tests.kandy_client import Account, KandyClient

GHOST_EVERY, LEAVE_EVERY = 8, 5
GRACE = 2.0
SLACK = 2.0
LEFT_WITHIN = NODE_LEASE + GRACE + SLACK
"""Seconds after a crash within which all see that somebody who was lost with it is gone."""
PASSWORD = "correct horse: bättery"
SECRET = "a secret of at least thirty-two bytes"


@dataclass(frozen=True, slots=True)
class Front:
    """Where clients connect.

    Attributes:
        url: of HTTP.
        api_key: of the application ``default``.
    """

    url: str
    api_key: str


class Killer(Protocol):
    """What kills, and brings back to life."""

    async def kill(self) -> None:
        """Kills it."""

    async def start(self) -> None:
        """Starts it again, and waits until it is ready."""

    async def restart(self) -> None:
        """Kills it and starts it again."""

    def figures(self) -> str:
        """What was done, in a few words."""


class Chaos:
    """The people, and what kills.

    Args:
        front: where they connect.
        admin: the admin API; what it needs lives while nothing is killed.
        killer: kills.
        number: of all choices.
    """

    def __init__(self, front: Front, admin: Admin, killer: Killer, number: int) -> None:
        self._random = random.Random(number)
        self._front = front
        self.killer = killer
        self.admin = admin
        policy = {"leave_grace": GRACE, "socket_grace": GRACE}
        tokens = {"algorithms": ["HS256"], "secret": SECRET}
        self.admin.patch("/applications/default", {"sessions": policy, "tokens": tokens})
        link, uc, bearer, both, comer = (self.make(f"kandy-{n}") for n in ("link", "uc", "bearer", "both", "comer"))
        token = jwt.encode({"sub": bearer, "exp": int(time.time()) + 3600}, SECRET, "HS256")
        accounts = [
            [Account(link, PASSWORD)],
            [Account(uc, PASSWORD, uc=True)],
            [Account(bearer, bearer=token)],
            [Account(both, PASSWORD), Account(both, PASSWORD, uc=True)],
            [Account(comer, PASSWORD)],
        ]
        self.people = [KandyPerson(front.url, each, number + i) for i, each in enumerate(accounts)]
        self.comer = self.people[-1]
        url = f"{front.url.replace('http', 'ws', 1)}/rtm/websocket?api-key={front.api_key}"
        # A name without a password is a guest's, unless the application takes tokens: these come first.
        self.others = [Person(url, f"person-{i}@example.com", number + 10 + i) for i in range(2)]
        self.ids: dict[KandyClient, str] = {}
        self.left_after: list[float] = []
        self.left_within = LEFT_WITHIN

    def make(self, name: str) -> str:
        """Makes a user with a password. Returns its whole name."""
        self.admin.post("/applications/default/users", name=f"{name}@example.com", password=PASSWORD)
        return f"{name}@example.com"

    @property
    def _everybody(self) -> list[KandyPerson | Person]:
        return [*self.people, *self.others]

    def expects_refusals(self) -> None:
        """The server may say that it cannot now: what it depends on is away at times."""
        for person in self._everybody:
            person.patient = True
        # What nobody could renew meanwhile is given the time of a lease to be renewed.
        self.left_within = LEFT_WITHIN + NODE_LEASE

    def wrongs(self) -> list[str]:
        """What is wrong so far."""
        return [wrong for person in self._everybody for wrong in person.wrongs]

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        await until(condition, what, self.wrongs)

    async def begin(self) -> None:
        """Starts everybody's work."""
        names = [person.name for person in self.people]
        for person in self.people:
            await person.begin([name for name in names if name != person.name])
        await self._until(lambda: not self._unseen_at_all(), "what everybody asked for is shown")
        for person in self.people:
            self.ids |= {client: client.session_id for client in person.clients if person is not self.comer}
            person.start()
        for other in self.others:
            other.start()

    def _unseen_at_all(self) -> bool:
        return any(len(client.presence) < len(self.people) - 1 for person in self.people for client in person.clients)

    async def strike(self, leaves: bool) -> None:
        """Kills at a random moment and starts again.

        Args:
            leaves: whether somebody unsubscribes before, and subscribes anew after.
        """
        if self._random.random() < 0.7:
            # Mostly when all are back at work, else while they come back.
            done = {person: person.done for person in self.people}
            await self._until(
                lambda: all(person.done > done[person] and person.up for person in self.people),
                "everybody is at work again",
            )
        if leaves:
            await self.comer.leave()
        await asyncio.sleep(self._random.uniform(0, 0.8))
        await self.killer.restart()
        if leaves:
            await self.comer.come_back()

    async def haunt(self, number: int) -> None:
        """Somebody is online when the server dies, and never comes back: all must learn that, in time."""
        name = await asyncio.to_thread(self.make, f"ghost-{number}")
        ghost = KandyClient(self._front.url, Account(name, PASSWORD, uc=number % 2 == 0))
        await ghost.subscribe()
        for person in self.people:
            await person.watch(name)
        await self._until(lambda: self._all_see(name, "open"), "the ghost is seen")
        await self.killer.kill()
        await ghost.close()
        await self.killer.start()
        back = asyncio.get_running_loop().time()
        await self._until(lambda: self._all_see(name, "closed"), "the ghost is seen to leave")
        last = max(client.presence[name][-1].at for person in self.people for client in person.clients)
        self.left_after.append(last - back)
        (session,) = await asyncio.to_thread(self.admin.sessions, name)
        assert session["state"] == "suspended", session

    def _all_see(self, name: str, status: str) -> bool:
        return all(
            (seen := client.presence.get(name)) is not None and seen[-1].status == status
            for person in self.people
            for client in person.clients
        )

    async def finish(self) -> None:
        """Lets everybody end their work and hear what is left to hear."""
        for person in self._everybody:
            person.busy = False
        try:
            await self._until(lambda: all(person.idle.is_set() for person in self._everybody), "everybody is done")
        except AssertionError as error:
            busy = [person for person in self._everybody if not person.idle.is_set()]
            lines = [line for person in busy if isinstance(person, Person) for line in person.story().splitlines()]
            stories = [line for line in lines if ".contacts" not in line][-60:]
            raise AssertionError(f"{error}; not {[person.name for person in busy]}\n" + "\n".join(stories)) from None
        try:
            await self._until(lambda: not unheard(self.people), "everybody has heard everything")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *unheard(self.people)[:50]])) from None

    async def check(self) -> list[str]:
        """Everything that is wrong in the end."""
        wrongs = self.wrongs() + unheard(self.people) + order_wrongs(self.people)
        wrongs += unseen([person for person in self.people if person is not self.comer])
        wrongs += await self._presence_wrongs()
        for person in self.people:
            for client in person.clients:
                live = await asyncio.to_thread(self.admin.sessions, person.name, "live")
                if len(live) != len(person.clients):
                    wrongs.append(f"{person.name} has these sessions: {live}")
                if self.ids.get(client, client.session_id) not in {str(session["id"]) for session in live}:
                    wrongs.append(f"{person.name} had session {self.ids[client]} and has {live}")
                if client.session_id != self.ids.get(client, client.session_id):
                    wrongs.append(f"{person.name} has subscribed anew")
        return wrongs

    async def _presence_wrongs(self) -> list[str]:
        """What somebody sees last of another must be what the server tells one who asks now."""
        auditor = KandyClient(self._front.url, Account(await asyncio.to_thread(self.make, "auditor"), PASSWORD))
        await auditor.subscribe()
        await auditor.watch(*(person.name for person in self.people), action="get")
        await self._until(lambda: len(auditor.presence) == len(self.people), "the auditor is told of everybody")
        wrongs = []
        for person in self.people:
            truth = auditor.presence[person.name][-1]
            if not person.shown[-1] <= number_in(truth.note) <= person.tried_shown or truth.status != "open":
                wrongs.append(f"{person.name}: {truth} is stored, {person.shown[-1]} was acknowledged")
            for hearer in self.people:
                for client in hearer.clients if hearer is not person else ():
                    seen = client.presence[person.name][-1]
                    if (seen.status, seen.activity, seen.note) != (truth.status, truth.activity, truth.note):
                        wrongs.append(f"{hearer.name} saw {seen} last of {person.name}, the truth is {truth}")
        await auditor.close()
        return wrongs

    def figures(self) -> str:
        """What happened, in a line."""
        clients = [client for person in self.people for client in person.clients]
        return (
            f"{self.killer.figures()}, "
            f"messages acknowledged {sum(len(n) for p in self.people for n in p.sent.values())} "
            f"of {sum(n for p in self.people for n in p.tried.values())}, "
            f"presences {sum(len(p.shown) for p in self.people)} of {sum(p.tried_shown for p in self.people)}, "
            f"notified {sum(len(c.texts) + sum(map(len, c.presence.values())) for c in clients)}, "
            f"duplicates dropped {sum(c.duplicates for c in clients)}, sockets {sum(c.opens for c in clients)} "
            f"of {sum(c.attempts for c in clients)} attempts, refused for now {sum(p.refused for p in self.people)}, "
            f"ghosts gone after {', '.join(f'{seconds:.1f}' for seconds in self.left_after)} s"
        )

    async def close(self) -> None:
        """Everybody goes away."""
        for person in self.people:
            await person.close()
        for other in self.others:
            await other.stop()


async def play(chaos: Chaos, kills: int, record_property: Callable[[str, object], None]) -> None:
    """Kills so often, and sees to it that nothing that was acknowledged is lost."""
    await chaos.begin()
    for turn in range(1, kills + 1):
        if turn % GHOST_EVERY == 0:
            await chaos.haunt(turn)
        else:
            await chaos.strike(turn % LEAVE_EVERY == 0)
    await chaos.finish()
    figures = chaos.figures()
    print(figures)
    record_property("chaos", figures)
    wrongs = await chaos.check()
    assert not wrongs, "\n".join(wrongs[:50])
    assert max(chaos.left_after, default=0.0) <= chaos.left_within
