"""Starting and ending a user session (ChatKitty protocol notes, sections 2.2 to 2.8)."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from tests.e2e.sdk import RECONNECT, Client, everywhere
from tests.e2e.stage import Stage
from tests.e2e.values import RUNTIMES, Runtime, Thrown, User
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

AGENTS = {
    "core-1.11.0": "ChatKitty-JS-Core/0.0.0-semantic-release",
    "core-2.106.2": "ChatKitty-ChatUI/2.106.2",
    "chatkitty-1.58.2": "ChatKitty-JS/1.58.2",
}
PASSWORD = "pässwörd: ÿ"
"""Every character of it is one byte in Latin-1 and two in UTF-8, where it is not ASCII."""
CONNECT_API = [runtime for runtime in RUNTIMES if runtime.generation == 3]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def member(shared_server: ServerProcess) -> str:
    """A user with a password."""
    name = "member@example.test"
    await asyncio.to_thread(
        shared_server.cli, "user", "create", name, "--app", "default", "--password-stdin", stdin=PASSWORD
    )
    return name


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_guest_starts_and_ends_a_session(stage: Stage, runtime: Runtime, secure: bool) -> None:
    name = stage.name("guest")
    client = await stage.client(runtime, secure=secure)

    outcome = await client.start(name)
    assert outcome.succeeded
    assert not outcome.failed
    user = outcome.user
    assert user is not None
    assert (user.name, user.display_name, user.is_guest) == (name, name, True)
    assert user.presence.online
    assert user.presence.status == "AVAILABLE"
    assert user.properties == {}
    assert user.id > 0
    assert await client.me() == user

    picture = await client.fetch(user.display_picture_url)
    assert picture.status == 200
    assert picture.type is not None and picture.type.startswith("image/")
    assert picture.size > 0

    session = await stage.session(name)
    assert (session.protocol, session.state, session.end_reason) == ("chatkitty", "active", None)
    assert session.client == AGENTS[runtime.sdk]
    assert session.address in ("127.0.0.1", "::1")

    await client.end()
    with pytest.raises(Thrown, match="NoActiveSessionError"):
        await client.me()
    seen = client.selves()
    assert (seen[0], seen[-1]) == (None, None)
    assert user in seen
    assert client.sockets() == ["connecting", "open", "closed"]
    ended = await stage.session(name)
    assert (ended.id, ended.state, ended.end_reason) == (session.id, "ended", "client")


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_client_starts_again_after_the_end(stage: Stage, runtime: Runtime) -> None:
    name = stage.name("returning")
    client = await stage.client(runtime)
    first = await client.sign_in(name)
    await client.end()
    second = await client.sign_in(name)
    assert second == first
    newest, oldest = await stage.sessions(name)
    assert (newest.state, oldest.end_reason) == ("active", "client")
    assert newest.id != oldest.id


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_username_arrives_unharmed(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    for name in ("a:b\\c d", "Zoë 🙂 <b>&amp;", "undefined-1"):
        user = await client.sign_in(name)
        assert user.name == name
        assert (await client.me()).name == name
        await client.end()


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_password_user_starts_a_session(stage: Stage, runtime: Runtime, member: str) -> None:
    client = await stage.client(runtime)
    user = await client.sign_in(member, {"password": PASSWORD})
    assert user.name == member
    assert not user.is_guest
    await client.end()


async def test_wrong_password_is_denied_for_good(stage: Stage, member: str) -> None:
    async def scenario(runtime: Runtime) -> None:
        client = await stage.client(runtime)
        outcome = await client.start(member, {"password": "wrong"})
        assert outcome.failed and not outcome.succeeded
        assert outcome.error is not None
        assert outcome.error.code == "AccessDeniedError"
        assert outcome.error.message == "The username or the password is wrong"
        assert outcome.error.timestamp is not None

        await client.lost()
        await client.quiet("socket", RECONNECT)
        await client.sign_in(member, {"password": PASSWORD})
        await client.end()

    await everywhere(scenario)


@pytest.mark.parametrize("runtime", CONNECT_API, ids=str)
async def test_connect_api_gives_a_live_connection(stage: Stage, runtime: Runtime) -> None:
    name = stage.name("connection")
    client = await stage.client(runtime)
    outcome = await client.connect(name)
    assert outcome.user is not None
    assert outcome.user.name == name

    await client.command("updateUser", {"displayName": "Connie"})
    await client.until(lambda: _watched(client)[-1].display_name == "Connie", "its own update")
    assert (await client.me()).display_name == "Connie"

    await client.call("dispose")
    session = await stage.session(name)
    assert (session.state, session.end_reason) == ("ended", "client")


@pytest.mark.parametrize("runtime", CONNECT_API, ids=str)
async def test_connect_api_rejects_with_the_servers_message(stage: Stage, runtime: Runtime, member: str) -> None:
    client = await stage.client(runtime)
    with pytest.raises(Thrown) as thrown:
        await client.connect(member, {"password": "wrong"})
    assert thrown.value.failure.name == "Error"
    assert thrown.value.failure.message == "The username or the password is wrong"


@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if r.generation == 2], ids=str)
async def test_second_start_on_a_live_client_throws(stage: Stage, runtime: Runtime) -> None:
    name = stage.name("first")
    client = await stage.client(runtime)
    await client.sign_in(name)
    with pytest.raises(Thrown, match="SessionActiveError"):
        await client.start(stage.name("second"))
    assert (await client.me()).name == name
    assert (await stage.session(name)).state == "active"


async def test_second_start_never_resumes_across_users(stage: Stage) -> None:
    """Generation 3 has no guard: after a loss it presents the second username with the first session's id."""

    async def scenario(runtime: Runtime) -> None:
        first, second = stage.name("first"), stage.name("second")
        proxy = await stage.proxy()
        client = await stage.client(runtime, host=proxy.host)
        first_user = await client.sign_in(first)
        session = await stage.session(first)
        with pytest.raises(TimeoutError):
            await client.start(second, timeout=1)

        proxy.cut()
        await client.until(
            lambda: any(user and user.name == second for user in client.selves()),
            "a session of the second user",
        )
        assert (await client.me()).name == second
        kept, made = await stage.session(first), await stage.session(second)
        assert (kept.id, kept.state, kept.resumes) == (session.id, "suspended", 0)
        assert (made.state, made.resumes) == ("active", 0)
        assert made.id != session.id

        twin = await stage.client(runtime)
        await twin.sign_in(first)
        mark = len(client.events)
        await twin.update(displayName="Not for the second user")
        await client.me()
        assert all(user and user.id != first_user.id for user in client.selves(mark))

    async with asyncio.TaskGroup() as group:
        for runtime in CONNECT_API:
            group.create_task(scenario(runtime))


def _watched(client: Client) -> list[User]:
    return list(client.values("watched", User))
