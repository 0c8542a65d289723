"""As ``test_kill``, with Kandy's clients: what a request's answer promised is kept, whenever the server is killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from tests.chaos.kandy_chaos import PASSWORD, Chaos, Front, play
from tests.chaos.kandy_person import number_in, texts_of
from tests.chaos.killing import Admin, Killer, seed, until
from tests.kandy_client import Account, KandyClient, Rule
from tests.support import ServerProcess

KILLS = 56
BACKLOG = 600


@pytest.fixture
async def chaos(server: ServerProcess) -> AsyncIterator[Chaos]:
    number = seed()
    front = Front(server.url, await asyncio.to_thread(lambda: server.api_key))
    killer = Killer(server, random.Random(number))
    made = await asyncio.to_thread(Chaos, front, Admin(server), killer, number)
    yield made
    await made.close()


@pytest.mark.timeout(480)
async def test_nothing_acknowledged_is_lost(chaos: Chaos, record_property: Callable[[str, object], None]) -> None:
    await play(chaos, KILLS, record_property)
    assert chaos.left_after
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
