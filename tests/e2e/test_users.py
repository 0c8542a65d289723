"""The current user's profile, and the directory of other users (protocol notes, sections 5.1, 5.2 and 7)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
import pytest
import pytest_asyncio
from tests.e2e.driver import Driver
from tests.e2e.stage import Application, Stage
from tests.e2e.values import NEWEST, RUNTIMES, Runtime, Thrown
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREW = 27
"""Users in the directory whose display names begin with Crew; a page holds 25 users by default."""

INVALID: tuple[tuple[str, object], ...] = (
    ("displayName", 5),
    ("displayName", ""),
    ("displayName", "x" * 1000),
    ("displayName", "two\nlines"),
    ("properties", "text"),
    ("properties", {"big": "x" * 20_000}),
)


@dataclass(frozen=True, slots=True)
class Directory:
    """An application with a known crew, all of them offline, and a passenger.

    Attributes:
        api_key: the application's key.
        ids: ids of the crew in the order of their display names.
    """

    api_key: str
    ids: list[int]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def directory(shared_server: ServerProcess, driver: Driver) -> Directory:
    created = await asyncio.to_thread(shared_server.cli, "app", "create", "directory")
    api_key = msgspec.convert(created, Application).api_key
    client = await driver.open(NEWEST, host=shared_server.http_host, api_key=api_key)
    ids = []
    for number in range(CREW):
        user = await client.sign_in(f"crew{number}@example.test")
        await client.update(displayName=f"{'CREW' if number % 2 else 'Crew'} {number:02}")
        await client.end()
        ids.append(user.id)
    await client.sign_in("passenger@example.test")
    await client.end()
    await client.kill()
    return Directory(api_key, ids)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_update_of_the_current_user(stage: Stage, runtime: Runtime) -> None:
    name = stage.name("changing")
    client, contact = await stage.client(runtime), await stage.client(NEWEST)
    await contact.sign_in(stage.name("contact"))
    user = await client.sign_in(name)
    properties: dict[str, object] = {
        "colour": "grün",
        "nested": {"list": [1, 2.5, None, True]},
        "emoji": "🐈",
    }

    outcome = await client.update(displayName="Zoë: a\\b 🙂", properties=properties)
    assert outcome.succeeded
    changed = outcome.user
    assert changed is not None
    assert (changed.id, changed.name, changed.is_guest) == (user.id, name, True)
    assert (changed.display_name, changed.properties) == ("Zoë: a\\b 🙂", properties)
    assert await client.me() == changed
    assert client.selves()[-1] == changed
    await contact.until(lambda: len(contact.profiles(name)) == 1, "the change")
    assert await contact.contact(name) == changed


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_what_an_update_may_not_change(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    user = await client.sign_in(stage.name("ambitious"))
    outcome = await client.update(name="root", id=1, isGuest=False, displayName="Still me")
    assert outcome.user is not None
    assert (outcome.user.id, outcome.user.name, outcome.user.is_guest) == (user.id, user.name, True)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_invalid_update_names_the_field(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    user = await client.sign_in(stage.name("careless"))
    for field, value in INVALID:
        outcome = await client.update(**{field: value})
        assert outcome.failed, (field, value)
        assert outcome.error is not None
        assert outcome.error.code == "ClientError"
        assert field in outcome.error.message
    assert await client.me() == user


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_pages_of_users(stage: Stage, runtime: Runtime, directory: Directory) -> None:
    client = await stage.client(runtime, api_key=directory.api_key)
    await client.sign_in(stage.name("reader"))

    first = await client.list_users(displayName="crew")
    assert first.users is not None
    assert [user.id for user in first.users] == directory.ids[:25]
    assert (first.has_prev_page, first.has_next_page) == (False, True)
    second = await client.turn("next")
    assert second.users is not None
    assert [user.id for user in second.users] == directory.ids[25:]
    assert (second.has_prev_page, second.has_next_page) == (True, False)
    with pytest.raises(Thrown, match="PageOutOfBoundsError"):
        await client.turn("next")
    back = await client.turn("prev")
    assert back.users == first.users
    await client.end()


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_filters_and_counts_of_users(stage: Stage, runtime: Runtime, directory: Directory) -> None:
    reader = stage.name("reader")
    client = await stage.client(runtime, api_key=directory.api_key)
    await client.sign_in(reader)

    assert await client.count_users(displayName="crew") == CREW
    assert await client.count_users(displayName="crew", online=True) == 0
    assert await client.count_users(displayName="crew", online=False) == CREW
    assert await client.count_users(displayName="crew 1") == 10
    assert await client.count_users(displayName="%") == 0
    assert await client.count_users(name="passenger@example.test") == 1
    assert await client.count_users(name="passenger") == 0
    assert await client.count_users(name=reader) == 0, "nobody is their own contact"

    crew = await client.list_users(displayName="crew 03")
    assert crew.users is not None
    assert [user.id for user in crew.users] == [directory.ids[3]]
    nobody = await client.list_users(name="no:such\\user")
    assert nobody.users == []
    assert (nobody.has_prev_page, nobody.has_next_page) == (False, False)
    assert await client.retrieve_user(directory.ids[3]) == crew.users[0]
    await client.end()
