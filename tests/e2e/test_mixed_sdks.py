"""One table of scenarios for all clients, of either protocol and in either language, among each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.e2e.driver import Driver
from tests.e2e.mixed.people import KINDS, Crowd, Person, PythonKandy, Refused
from tests.e2e.stage import first_api_key
from tests.kandy.stage import PASSWORD, KandyStage
from tests.support import ServerProcess

from offhook.codes import EndReason
from offhook.kandy import KandyError

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITNESSES = ("python-chatkitty", "python-link")
"""One of either protocol."""


@pytest_asyncio.fixture(loop_scope="session")
async def stage(driver: Driver, server: ServerProcess) -> AsyncIterator[KandyStage]:
    """Makes users, proxies and clients in JavaScript, and clears them away."""
    made = await asyncio.to_thread(KandyStage, driver, server)
    yield made
    print(f"{driver.log_tail()}\n{server.log()}")
    await made.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(stage: KandyStage) -> AsyncIterator[Crowd]:
    """Makes people, and clears them away."""
    made = Crowd(stage, await asyncio.to_thread(first_api_key, stage.server), PASSWORD)
    yield made
    await made.clear()


@pytest.fixture(scope="module")
def mortal() -> Iterator[list[ServerProcess]]:
    """Servers that a test may harm; those put in here are stopped in the end."""
    servers: list[ServerProcess] = []
    yield servers
    for server in servers:
        server.stop()


async def _witnesses(crowd: Crowd, *names: str) -> list[Person]:
    witnesses = list(await asyncio.gather(*(crowd.someone(kind) for kind in WITNESSES)))
    await asyncio.gather(*(witness.watch(*names) for witness in witnesses))
    return witnesses


async def _see(witnesses: list[Person], name: str, *states: bool) -> None:
    await asyncio.gather(*(witness.sees(name, *states) for witness in witnesses))


@pytest.mark.parametrize("kind", KINDS)
async def test_start_fail_end(crowd: Crowd, stage: KandyStage, kind: str) -> None:
    stranger = await crowd.person(kind)
    witnesses = await _witnesses(crowd, stranger.name)
    with pytest.raises(Refused) as refused:
        await stranger.sign_in("wrong")
    assert refused.value.code == stranger.denied
    assert not stranger.online

    person = await crowd.person(kind, name=stranger.name)
    await person.sign_in(crowd.password)
    await person.back()
    await _see(witnesses, person.name, True)
    assert [record.state for record in await stage.sessions(person.name)] == ["active"]

    await person.sign_out()
    await _see(witnesses, person.name, True, False)
    assert not person.online
    (record,) = await stage.sessions(person.name)
    assert (record.state, record.end_reason) == ("ended", EndReason.CLIENT)
    assert person.told.over == []


@pytest.mark.parametrize("kind", KINDS)
async def test_resume(crowd: Crowd, stage: KandyStage, kind: str) -> None:
    """What a client missed comes when it is back: all of it, in order, and once. Nobody sees it leave."""
    proxy = await stage.proxy()
    traveller = await crowd.someone(kind, host=proxy.host)
    visitor = await crowd.person("python-chatkitty")
    witnesses = await _witnesses(crowd, traveller.name, visitor.name)
    await traveller.watch(visitor.name)
    await traveller.back()
    before = await stage.session(traveller.name)

    proxy.go_away()
    await traveller.lost()
    await visitor.sign_in(crowd.password)
    await _see(witnesses, visitor.name, True)
    await visitor.sign_out()
    await _see(witnesses, visitor.name, True, False)
    assert traveller.presence(visitor.name) == []

    await proxy.accept()
    await traveller.back()
    await traveller.sees(visitor.name, True, False)
    await visitor.sign_in(crowd.password)
    await traveller.sees(visitor.name, True, False, True)
    after = await stage.session(traveller.name)
    assert (after.id, after.state, traveller.told.over) == (before.id, "active", [])
    # Those who signed in before the traveller's first presence was told have seen it come.
    assert all(witness.presence(traveller.name) in ([], [True]) for witness in witnesses)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("manner", ["operator", "password"])
async def test_forced_out(crowd: Crowd, stage: KandyStage, manner: str) -> None:
    """The server ends everybody's session; each knows, stays away, and may come again if it can."""
    people = await asyncio.gather(*(crowd.someone(kind) for kind in KINDS))
    witnesses = await _witnesses(crowd, *(person.name for person in people))

    async def scenario(person: Person) -> None:
        users = f"/applications/default/users/{person.name}"
        if manner == "operator":
            await stage.end_sessions(person.name)
        else:
            await stage.admin("PUT", f"{users}/password", password="another one")
        await person.gone()
        (record,) = await stage.sessions(person.name)
        assert (record.state, record.end_reason) == (
            "ended",
            EndReason.OPERATOR if manner == "operator" else EndReason.CREDENTIALS_CHANGED,
        )
        again = await crowd.person(person.kind, name=person.name)
        if manner == "password":
            with pytest.raises(Refused) as refused:
                await again.sign_in(crowd.password)
            assert refused.value.code == again.denied
            again = await crowd.person(person.kind, name=person.name)
        await again.sign_in("another one" if manner == "password" else crowd.password)
        await again.back()

    await asyncio.gather(*(scenario(person) for person in people))
    for witness in witnesses:
        for person in people:
            await witness.comes_back(person.name)


async def test_everybody_sees_everybody_come_and_go(crowd: Crowd) -> None:
    """Each kind of client is told of each kind, in order, whichever protocols they speak."""
    people = await asyncio.gather(*(crowd.person(kind) for kind in KINDS))
    watchers = await asyncio.gather(*(crowd.someone(kind) for kind in KINDS))
    names = [person.name for person in people]
    await asyncio.gather(*(watcher.watch(*names) for watcher in watchers))
    for _ in range(2):
        for person in people:
            await person.sign_in(crowd.password)
        for person in people:
            await person.sign_out()
    for watcher in watchers:
        for name in names:
            await watcher.sees(name, True, False, True, False)


@pytest.mark.parametrize("sender", ["python-link", "python-uc"])
@pytest.mark.parametrize("recipient", ["python-link", "python-uc"])
async def test_messages(crowd: Crowd, stage: KandyStage, sender: str, recipient: str) -> None:
    """Messages arrive in order and once, also those that were sent to somebody who was away, or not there yet."""
    proxy = await stage.proxy()
    alice = await crowd.someone(sender)
    bob = await crowd.person(recipient, host=proxy.host)
    assert isinstance(alice, PythonKandy)
    assert isinstance(bob, PythonKandy)
    odd = 'päivää ✓ <b>"&amp;"</b>\nnext + %20'
    await alice.say(bob.name, "before you came")
    await bob.sign_in(crowd.password)
    await bob.hears((alice.name, "before you came"))
    await alice.say(bob.name, odd)
    await bob.hears((alice.name, "before you came"), (alice.name, odd))

    await bob.say(alice.name, "hello")
    await alice.hears((bob.name, "hello"))

    proxy.go_away()
    await bob.lost()
    for number in range(5):
        await alice.say(bob.name, str(number))
    await proxy.accept()
    missed = [(alice.name, str(number)) for number in range(5)]
    await bob.hears((alice.name, "before you came"), (alice.name, odd), *missed)
    await alice.say(bob.name, "welcome back")
    await bob.hears((alice.name, "before you came"), (alice.name, odd), *missed, (alice.name, "welcome back"))


@pytest.mark.parametrize("kind", ["python-link", "python-uc"])
async def test_token_change(crowd: Crowd, stage: KandyStage, kind: str) -> None:
    """A client goes on with the token that another one of its user was given, also when its socket must come back."""
    proxy = await stage.proxy()
    bob = await crowd.someone("python-link")
    first = await crowd.someone("python-uc")
    second = await crowd.person("python-uc", name=first.name)
    await second.sign_in(crowd.password)
    person = await crowd.person(kind, host=proxy.host, name=first.name)
    assert isinstance(bob, PythonKandy)
    assert isinstance(first, PythonKandy)
    assert isinstance(second, PythonKandy)
    assert isinstance(person, PythonKandy)
    tokens = [other.client.get_user_info().access_token for other in (first, second)]
    assert None not in tokens
    assert tokens[0] != tokens[1]

    await person.sign_in_with_token(str(tokens[0]))
    await person.say(bob.name, "with the first")
    person.client.update_token(access_token="nobody's")
    with pytest.raises(KandyError):
        await person.say(bob.name, "with none")
    person.client.update_token(access_token=tokens[1])
    await person.say(bob.name, "with the second")
    await bob.hears((person.name, "with the first"), (person.name, "with the second"))

    proxy.go_away()
    await person.lost()
    await bob.say(person.name, "are you there?")
    await proxy.accept()
    await person.until(lambda: (bob.name, "are you there?") in person.told.texts, "what it missed")
    assert person.told.over == []


async def test_one_user_with_every_client(crowd: Crowd, stage: KandyStage) -> None:
    """A user is there until the last of its clients leaves."""
    name = await stage.user("many")
    witnesses = await _witnesses(crowd, name)
    devices = [await crowd.person(kind, name=name) for kind in KINDS]
    for device in devices:
        await device.sign_in(crowd.password)
    await _see(witnesses, name, True)
    for device in devices[:-1]:
        await device.sign_out()
    assert devices[-1].online
    await devices[-1].sign_out()
    await _see(witnesses, name, True, False)
    assert {record.end_reason for record in await stage.sessions(name)} == {EndReason.CLIENT}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("manner", ["stop", "kill"])
async def test_restart_of_a_mixed_crowd(
    driver: Driver, tmp_path_factory: pytest.TempPathFactory, mortal: list[ServerProcess], manner: str
) -> None:
    """Everybody comes back to the same session, and is told what happens next, once."""
    server = ServerProcess(tmp_path_factory.mktemp("mortal"))
    mortal.append(server)
    await asyncio.to_thread(server.start)
    stage = await asyncio.to_thread(KandyStage, driver, server)
    crowd = Crowd(stage, await asyncio.to_thread(first_api_key, server), PASSWORD)
    try:
        people = await asyncio.gather(*(crowd.someone(kind) for kind in KINDS))
        visitor = await crowd.person("python-link")
        await asyncio.gather(*(person.watch(visitor.name) for person in people))
        await asyncio.gather(*(person.back() for person in people))
        before = [await stage.session(person.name) for person in people]

        await asyncio.to_thread(server.stop if manner == "stop" else server.kill)
        await asyncio.gather(*(person.lost() for person in people))
        await asyncio.to_thread(server.start)
        await asyncio.gather(*(person.back() for person in people))
        await visitor.sign_in(crowd.password)
        await visitor.sign_out()
        await asyncio.gather(*(person.sees(visitor.name, True, False) for person in people))
        for person, old in zip(people, before, strict=True):
            new = await stage.session(person.name)
            assert (new.id, new.state, person.told.over) == (old.id, "active", [])
    finally:
        await crowd.clear()
        await stage.clear()
