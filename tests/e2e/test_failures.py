"""Every way in which a start fails, as an SDK's user sees it (ChatKitty protocol notes, section 2.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
import pytest
import pytest_asyncio
from tests.e2e.sdk import everywhere
from tests.e2e.stage import Application, Stage, first_api_key
from tests.e2e.values import RUNTIMES, Failure, Outcome, Runtime
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

DISABLED = "disabled@example.test"
PROTECTED = "protected@example.test"


@dataclass(frozen=True, slots=True)
class Applications:
    """API keys of applications that refuse someone.

    Attributes:
        members_only: lets no guests in.
        single: one session a user, further ones are rejected.
    """

    members_only: str
    single: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def applications(shared_server: ServerProcess) -> Applications:
    """Applications and users that must be refused."""

    async def cli(*arguments: str, stdin: str | None = None) -> object:
        return await asyncio.to_thread(shared_server.cli, *arguments, stdin=stdin)

    await cli("user", "create", DISABLED, "--app", "default")
    await cli("user", "disable", DISABLED, "--app", "default")
    await cli("user", "create", PROTECTED, "--app", "default", "--password-stdin", stdin="a secret")
    members_only = await cli("app", "create", "members-only", "--no-guests")
    single = await cli("app", "create", "single", "--max-sessions", "1", "--duplicates", "reject-new")
    return Applications(
        msgspec.convert(members_only, Application).api_key, msgspec.convert(single, Application).api_key
    )


def _denied(outcome: Outcome) -> str:
    """The message of a failure that no retry can cure."""
    error = _failure(outcome)
    assert error.code == "AccessDeniedError"
    return error.message


def _failure(outcome: Outcome) -> Failure:
    assert outcome.failed and not outcome.succeeded
    assert outcome.error is not None
    assert outcome.error.message
    assert outcome.error.timestamp is not None
    assert datetime.fromisoformat(outcome.error.timestamp).tzinfo is not None
    return outcome.error


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_unknown_api_key(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime, api_key="no such key & more")
    assert "API key" in _denied(await client.start(stage.name("guest")))


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_unknown_user_where_guests_are_off(stage: Stage, runtime: Runtime, applications: Applications) -> None:
    client = await stage.client(runtime, api_key=applications.members_only)
    assert "uest" in _denied(await client.start(stage.name("guest")))
    assert "password" in _denied(await client.start(stage.name("guest"), {"password": "guess"}))


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_disabled_user(stage: Stage, runtime: Runtime, applications: Applications) -> None:
    client = await stage.client(runtime)
    assert "disabled" in _denied(await client.start(DISABLED))


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_user_with_a_password_is_not_a_guests_to_take(
    stage: Stage, runtime: Runtime, applications: Applications
) -> None:
    client = await stage.client(runtime)
    assert "password" in _denied(await client.start(PROTECTED))


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_impossible_username(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    for username in ("", " ", "x" * 300):
        assert "username" in _denied(await client.start(username))


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_too_many_sessions(stage: Stage, runtime: Runtime, applications: Applications) -> None:
    name = stage.name("single")
    holder = await stage.client(runtime, api_key=applications.single)
    await holder.sign_in(name)
    late = await stage.client(runtime, api_key=applications.single)
    assert "session" in _denied(await late.start(name))
    assert (await holder.me()).presence.online

    await holder.end()
    await late.sign_in(name)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_nothing_served_at_this_path(stage: Stage, runtime: Runtime) -> None:
    """An HTTP error in answer to the upgrade."""
    client = await stage.client(runtime, host=f"{stage.server.http_host}/nowhere")
    assert _failure(await client.start(stage.name("lost"))).code == "ChatKittyConnectionError"


async def test_unreachable_server_then_late_success(stage: Stage) -> None:
    """The promise has failed already when the SDK, which goes on trying, completes the start by itself."""

    async def scenario(runtime: Runtime) -> None:
        name = stage.name("patient")
        proxy = await stage.proxy()
        proxy.refuse()
        client = await stage.client(runtime, host=proxy.host)
        assert _failure(await client.start(name)).code == "ChatKittyConnectionError"

        await proxy.accept()
        await client.until(lambda: client.selves()[-1] is not None, "the late success")
        assert (await client.me()).name == name
        await client.call("observe")
        await client.end()
        assert (await stage.session(name)).end_reason == "client"

    await everywhere(scenario)


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that slows down whoever was refused once."""
    settings = {"denial_burst": "1", "denial_rate": "0.5"}
    # Processes do not count each other's refusals.
    process = ServerProcess(tmp_path_factory.mktemp("server"), settings=settings, alone=True)
    process.start()
    yield process
    process.stop()


async def test_transient_refusal_is_retried(stage: Stage, strict_server: ServerProcess) -> None:
    """An ERROR with any name but AccessDeniedError: the start fails, and the SDK comes back by itself."""
    for runtime in RUNTIMES:
        arguments = ("user", "create", f"{runtime}@example.test", "--app", "default", "--password-stdin")
        await asyncio.to_thread(strict_server.cli, *arguments, stdin="right")

    api_key = await asyncio.to_thread(first_api_key, strict_server)

    async def scenario(runtime: Runtime) -> None:
        name = f"{runtime}@example.test"
        guesser, owner = [await stage.client(runtime, host=strict_server.http_host, api_key=api_key) for _ in range(2)]
        _denied(await guesser.start(name, {"password": "wrong"}))
        error = _failure(await owner.start(name, {"password": "right"}))
        assert error.code == "RateLimitedError"
        await owner.until(lambda: owner.selves()[-1] is not None, "the late success")
        assert (await owner.me()).name == name

    await everywhere(scenario)
