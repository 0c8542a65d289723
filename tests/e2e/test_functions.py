"""Sessions that an application's own function decides about (ChatKitty protocol notes, 8.2 and 8.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.sdk import everywhere
from tests.e2e.stage import Stage
from tests.e2e.values import RUNTIMES, Runtime
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

FUNCTIONS = """
import asyncio
from pathlib import Path

from offhook.functions import AccessDenied, on

CALLS = Path({calls!r})


@on.user_attempted_start_session
async def authenticate(event, context):
    with CALLS.open("a") as calls:
        calls.write(event.username + "\\n")
    ticket = event.auth_params.get("ticket")
    if ticket == "void":
        raise AccessDenied("This ticket is void")
    if ticket == "broken":
        raise RuntimeError("the ticket machine at 10.0.0.7 is on fire")
    if ticket == "slow":
        await asyncio.Event().wait()
    if ticket == "nonsense":
        return 42
    properties = {{"ticket": ticket, "row": {{"number": 7}}}}
    return {{"display_name": "Seat " + str(ticket), "properties": properties}}
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the function writes one line for each call: the username."""
    return tmp_path_factory.mktemp("function") / "calls"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, calls: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(
        tmp_path_factory.mktemp("server"),
        settings={"function_timeout": "2"},
        functions=FUNCTIONS.format(calls=str(calls)),
    )
    process.start()
    yield process
    process.stop()


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_allowed_user_gets_the_functions_profile(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    user = await client.sign_in(stage.name("spectator"), {"ticket": "7ä"})
    assert user.display_name == "Seat 7ä"
    assert user.properties == {"ticket": "7ä", "row": {"number": 7}}
    assert await client.me() == user


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_function_runs_without_auth_params(stage: Stage, runtime: Runtime, calls: Path) -> None:
    name = stage.name("stroller")
    client = await stage.client(runtime)
    assert (await client.sign_in(name)).display_name == "Seat None"
    assert _runs(calls, name) == 1


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_denial_reaches_the_application(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    outcome = await client.start(stage.name("spectator"), {"ticket": "void"})
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.message) == ("AccessDeniedError", "This ticket is void")


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_defective_function_denies_and_tells_nothing(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    for ticket, secret in (("broken", "10.0.0.7"), ("nonsense", "42")):
        outcome = await client.start(stage.name("spectator"), {"ticket": ticket})
        assert outcome.error is not None
        assert outcome.error.code == "AccessDeniedError"
        assert outcome.error.message
        assert secret not in outcome.error.message


async def test_hanging_function_delays_nobody_else(stage: Stage) -> None:
    async def scenario(runtime: Runtime) -> None:
        waiting, other = await stage.client(runtime), await stage.client(runtime)
        slow = asyncio.create_task(waiting.start(stage.name("spectator"), {"ticket": "slow"}))
        await waiting.until(lambda: "open" in waiting.sockets(), "its socket to open")
        await other.sign_in(stage.name("spectator"), {"ticket": "1"})
        assert not slow.done()
        outcome = await slow
        assert outcome.error is not None
        assert outcome.error.code == "AccessDeniedError"

    await everywhere(scenario)


async def test_resuming_does_not_run_the_function_again(stage: Stage, calls: Path) -> None:
    async def scenario(runtime: Runtime) -> None:
        name = stage.name("spectator")
        proxy = await stage.proxy()
        client = await stage.client(runtime, host=proxy.host)
        await client.sign_in(name, {"ticket": "2"})
        before = await stage.session(name)

        proxy.cut()
        await client.lost()
        assert (await client.me()).display_name == "Seat 2"
        after = await stage.session(name)
        assert (after.id, after.state, after.resumes) == (before.id, "active", 1)
        assert _runs(calls, name) == 1

    await everywhere(scenario)


def _runs(calls: Path, name: str) -> int:
    """How often the function was run for a user."""
    return calls.read_text().splitlines().count(name)
