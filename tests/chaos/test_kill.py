"""The server is killed again and again, at random moments: nothing that it acknowledged may be lost.

A failure prints the seed; set OFFHOOK_CHAOS_SEED to it to have the same choices again (not the same timing).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest
from tests.chaos.killing import NODE_LEASE, Admin, Killer, seed, until
from tests.chaos.person import Person
from tests.support import ServerProcess

KILLS = 60
PEOPLE = 6
GHOST_EVERY = 10
LEAVE_GRACE = 1.0
SLACK = 2.0


class Chaos:
    """People who work, and a server that dies.

    Args:
        server: a running server.
        seed: of all choices.
    """

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self._random = random.Random(seed)
        self._killer = Killer(server, self._random)
        self._url = f"ws://{server.http_host}/rtm/websocket?api-key={server.api_key}"
        self.admin = Admin(server)
        self.admin.patch("/applications/default", {"sessions": {"leave_grace": LEAVE_GRACE}})
        self.people = [Person(self._url, f"person-{number}@example.test", seed + number) for number in range(PEOPLE)]
        self.ids: dict[str, object] = {}
        self.left_after: list[float] = []

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        await until(condition, what, lambda: [wrong for person in self.people for wrong in person.wrongs])

    async def begin(self) -> None:
        """Starts everybody's session."""
        for person in self.people:
            person.busy = False
            person.start()
        await self._until(lambda: all(person.ready.is_set() for person in self.people), "everybody starts")
        for person in self.people:
            (session,) = await asyncio.to_thread(self.admin.sessions, person.name)
            self.ids[person.name] = session["id"]
        for person in self.people:
            await person.stop()
            person.busy = True
            person.start()

    async def strike(self) -> None:
        """Kills the server at a random moment and starts it again."""
        if self._random.random() < 0.7:
            # Mostly when all are back at work, else while they come back.
            done = [len(person.acknowledged) for person in self.people]
            await self._until(
                lambda: all(len(p.acknowledged) > n for p, n in zip(self.people, done, strict=True)),
                "everybody is at work again",
            )
        await asyncio.sleep(self._random.uniform(0, 0.8))
        await self._killer.restart()

    async def haunt(self, number: int) -> None:
        """Somebody is online when the server dies, and never comes back: all must learn that, in time."""
        name = f"ghost-{number}@example.test"
        ghost = Person(self._url, name, number)
        ghost.busy = False
        ghost.start()
        await self._until(ghost.ready.is_set, "the ghost starts")
        await self._until(lambda: all(_last_seen(person, name) is True for person in self.people), "the ghost is seen")
        await self._killer.kill()
        await ghost.stop()
        await self._killer.start()
        back = time.monotonic()
        await self._until(
            lambda: all(_last_seen(person, name) is False for person in self.people), "the ghost is seen to leave"
        )
        self.left_after.append(max(person.presence[name][-1][0] for person in self.people) - back)
        online = await self.people[0].relay("/application/v1/user/contacts.relay.page.0.size.100.sort.", online="true")
        assert name not in str(online)
        (session,) = await asyncio.to_thread(self.admin.sessions, name)
        assert session["state"] == "suspended"
        assert not ghost.wrongs, ghost.story()

    async def finish(self) -> None:
        """Lets everybody end their work and hear what is left to hear."""
        for person in self.people:
            person.busy = False
        await self._until(lambda: all(person.idle.is_set() for person in self.people), "everybody is back and done")
        await self._until(lambda: not self._unheard(), "everybody has heard everything")
        for person in self.people:
            await person.stop()

    def _unheard(self) -> list[str]:
        """What somebody has not heard yet of what was acknowledged to somebody else."""
        return [
            f"{observer.name} did not hear {author.name}'s {number}"
            for author in self.people
            for observer in self.people
            for number in set(author.acknowledged) - set(_heard_of(observer, author))
        ]

    def check(self) -> list[str]:
        """Everything that is wrong in the end."""
        wrongs = [f"{person.name}: {wrong}" for person in self.people for wrong in person.wrongs]
        wrongs += self._unheard()
        for person in self.people:
            stored = self.admin.user(person.name)
            counter = stored["properties"]["counter"]  # type: ignore[index]
            if not person.acknowledged[-1] <= counter <= person.tried:
                wrongs.append(f"{person.name}: {counter} is stored, {person.acknowledged[-1]} was acknowledged")
            for observer in self.people:
                if (last := _heard_of(observer, person)[-1]) != counter:
                    wrongs.append(f"{observer.name} heard last {last} of {person.name}, whose counter is {counter}")
            sessions = self.admin.sessions(person.name)
            if [session["id"] for session in sessions] != [self.ids[person.name]]:
                wrongs.append(f"{person.name} had one session and now has {sessions}")
            elif sessions[0]["end_reason"] is not None or sessions[0]["resumes"] < person.resumes:  # type: ignore[operator]
                wrongs.append(f"{person.name} was resumed {person.resumes} times, the ledger says {sessions[0]}")
        return wrongs

    def figures(self) -> str:
        """What happened, in a line."""
        return (
            f"{self._killer.figures()}, "
            f"acknowledged {sum(len(person.acknowledged) for person in self.people)} of "
            f"{sum(person.tried for person in self.people)} updates, "
            f"heard {sum(len(seen) for person in self.people for seen in person.others.values())} events, "
            f"resumes {sum(person.resumes for person in self.people)}, "
            f"duplicates {sum(person.duplicates for person in self.people)}, "
            f"ghosts gone after {', '.join(f'{seconds:.1f}' for seconds in self.left_after)} s"
        )

    def stories(self, wrongs: list[str]) -> str:
        """The histories of those whom something is wrong with."""
        concerned = [person for person in self.people if any(wrong.startswith(person.name) for wrong in wrongs)]
        return "\n".join(person.story() for person in concerned or self.people)


def _heard_of(observer: Person, author: Person) -> list[int]:
    return author.own if observer is author else observer.others.get(author.name, [0])


def _last_seen(observer: Person, name: str) -> bool | None:
    seen = observer.presence.get(name)
    return seen[-1][1] if seen else None


@pytest.mark.timeout(420)
async def test_nothing_acknowledged_is_lost(
    server: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    number = seed()
    chaos = await asyncio.to_thread(Chaos, server, number)
    try:
        await chaos.begin()
        for turn in range(1, KILLS + 1):
            if turn % GHOST_EVERY == 0:
                await chaos.haunt(turn)
            else:
                await chaos.strike()
        await chaos.finish()
    except AssertionError:
        print(chaos.stories([f"{person.name} {wrong}" for person in chaos.people for wrong in person.wrongs]))
        raise
    figures = chaos.figures()
    print(figures)
    record_property("chaos", figures)
    wrongs = await asyncio.to_thread(chaos.check)
    assert not wrongs, f"OFFHOOK_CHAOS_SEED={number}\n" + "\n".join(wrongs[:50]) + "\n" + chaos.stories(wrongs)
    assert max(chaos.left_after) <= NODE_LEASE + LEAVE_GRACE + SLACK
    assert all(person.resumes >= KILLS // 2 for person in chaos.people)
