"""As ``test_kill``, with Kandy's clients: what a request's answer promised is kept, whenever the server is killed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

import jwt
import pytest
from tests.chaos.kandy_person import KandyPerson, number_in, order_wrongs, texts_of, unheard, unseen
from tests.chaos.killing import NODE_LEASE, Admin, Killer, seed, until
from tests.chaos.person import Person
from tests.kandy_client import Account, KandyClient, Rule
from tests.support import ServerProcess

KILLS = 56
GHOST_EVERY, LEAVE_EVERY = 14, 5
GRACE = 2.0
SLACK = 2.0
PASSWORD = "correct horse: bättery"
SECRET = "a secret of at least thirty-two bytes"
BACKLOG = 600


class Chaos:
    """People with Link, UC and ChatKitty clients, and a server that dies.

    Args:
        server: a running server.
        number: of all choices.
    """

    def __init__(self, server: ServerProcess, number: int) -> None:
        self._random = random.Random(number)
        self._server = server
        self.killer = Killer(server, self._random)
        self.admin = Admin(server)
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
        self.people = [KandyPerson(server.url, each, number + i) for i, each in enumerate(accounts)]
        self.comer = self.people[-1]
        url = f"ws://{server.http_host}/rtm/websocket?api-key={server.api_key}"
        # A name without a password is a guest's, unless the application takes tokens: these come first.
        self.others = [Person(url, f"person-{i}@example.com", number + 10 + i) for i in range(2)]
        self.ids: dict[KandyClient, str] = {}
        self.left_after: list[float] = []

    def make(self, name: str) -> str:
        """Makes a user with a password. Returns its whole name."""
        self.admin.post("/applications/default/users", name=f"{name}@example.com", password=PASSWORD)
        return f"{name}@example.com"

    @property
    def _everybody(self) -> list[KandyPerson | Person]:
        return [*self.people, *self.others]

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
        """Kills the server at a random moment and starts it again.

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
        ghost = KandyClient(self._server.url, Account(name, PASSWORD, uc=number % 2 == 0))
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
        await self._until(lambda: all(person.idle.is_set() for person in self._everybody), "everybody is done")
        await self._until(lambda: not unheard(self.people), "everybody has heard everything")

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
        auditor = KandyClient(self._server.url, Account(await asyncio.to_thread(self.make, "auditor"), PASSWORD))
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


@pytest.fixture
async def chaos(server: ServerProcess) -> AsyncIterator[Chaos]:
    made = await asyncio.to_thread(Chaos, server, seed())
    yield made
    await made.close()


@pytest.mark.timeout(480)
async def test_nothing_acknowledged_is_lost(chaos: Chaos, record_property: Callable[[str, object], None]) -> None:
    await chaos.begin()
    for turn in range(1, KILLS + 1):
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
    assert max(chaos.left_after) <= NODE_LEASE + GRACE + SLACK
    assert all(client.opens > KILLS // 2 for client in chaos.ids)


@pytest.mark.timeout(120)
async def test_the_rule_of_the_sdks_rides_out_a_restart(server: ServerProcess) -> None:
    """With their own numbers: five attempts, five seconds apart."""
    admin, killer = Admin(server), Killer(server, random.Random(1))
    accounts = [Account("alice@example.com", PASSWORD), Account("bob@example.com", PASSWORD, uc=True)]
    for account in accounts:
        await asyncio.to_thread(admin.post, "/applications/default/users", name=account.username, password=PASSWORD)
    alice, bob = (KandyClient(server.url, account, Rule()) for account in accounts)
    for client in (alice, bob):
        await client.subscribe()
    for number in range(1, 4):
        await killer.kill()
        await until(lambda: not alice.up.is_set() and not bob.up.is_set(), "the clients see it")
        await killer.start()
        # Before the socket is back: it has to wait for it.
        sent = await bob.send(alice.name, f"number {number}"), await alice.send(bob.name, f"number {number}")
        assert all(sent)
        await until(lambda: alice.up.is_set() and bob.up.is_set(), "both are back")
        await until(lambda number=number: len(alice.texts) == len(bob.texts) == number, "the messages come")  # type: ignore[misc]
    for client in (alice, bob):
        assert client.reason is None
        assert client.opens == 4
        # How many depends on how long the machine takes to start the server.
        assert client.attempts < client.opens + 3 * Rule().limit
        assert [number_in(text.text) for text in client.texts] == [1, 2, 3]
        await client.close()


@pytest.mark.timeout(120)
async def test_a_client_that_catches_up_is_told_once(server: ServerProcess) -> None:
    """The server dies again and again while a client gets hundreds of messages that it missed."""
    number = seed()
    choices = random.Random(number)
    admin, killer = Admin(server), Killer(server, choices)
    accounts = [Account("alice@example.com", PASSWORD, uc=True), Account("bob@example.com", PASSWORD, uc=True)]
    for account in accounts:
        await asyncio.to_thread(admin.post, "/applications/default/users", name=account.username, password=PASSWORD)
    alice, bob = (KandyClient(server.url, account, Rule(0.25, 80)) for account in accounts)
    await alice.subscribe()
    await bob.subscribe()
    await bob.vanish()
    for count in range(1, BACKLOG + 1):
        await alice.send(bob.name, f"number {count}")
    await bob.come_back()
    for goal in sorted(choices.sample(range(1, BACKLOG), 5)):
        await until(lambda goal=goal: len(bob.texts) >= goal, "more comes")  # type: ignore[misc]
        await killer.restart()
    await until(lambda: bool(bob.texts) and number_in(bob.texts[-1].text) == BACKLOG, "all has come")
    print(f"{bob.opens} sockets, {bob.duplicates} duplicates dropped")
    assert texts_of(bob, alice.name) == list(range(1, BACKLOG + 1))
    assert bob.reason is None
    assert not bob.wrongs
    for client in (alice, bob):
        await client.close()
