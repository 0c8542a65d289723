"""Sessions that end by the will of others, above all ``offhook session end``: clients go, and stay away."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.e2e.sdk import RECONNECT, Client, everywhere
from tests.e2e.stage import Ledger, Stage
from tests.e2e.values import NEWEST, RUNTIMES, Runtime

from offhook.codes import EndReason

pytestmark = pytest.mark.asyncio(loop_scope="session")

DECIDED = (
    EndReason.USER_DISABLED,
    EndReason.USER_DELETED,
    EndReason.CREDENTIALS_CHANGED,
    EndReason.APPLICATION_CLOSED,
    EndReason.REPLACED,
)


async def _gone(client: Client) -> None:
    """Waits until the client is offline, and watches that it stays so."""
    await client.lost()
    await client.quiet("socket", RECONNECT)
    assert client.connectivity()[-1] == "offline"


async def test_evicted_client_stays_away(stage: Stage) -> None:
    async def scenario(runtime: Runtime) -> None:
        name = stage.name("evicted")
        client, watcher = await stage.client(runtime), await stage.client(NEWEST)
        await watcher.sign_in(stage.name("watcher"))
        await client.sign_in(name)
        session = await stage.session(name)

        await stage.cli("session", "end", str(session.id))
        await watcher.until(lambda: watcher.presence(name) == [(name, True), (name, False)], "the end", timeout=3)
        await _gone(client)
        ended = await stage.session(name)
        assert (ended.id, ended.state, ended.end_reason) == (session.id, "ended", "operator")

    await everywhere(scenario)


async def test_the_command_line_tells_why(stage: Stage) -> None:
    name = stage.name("evicted")
    client = await stage.client(NEWEST)
    await client.sign_in(name)
    session = await stage.session(name)
    await stage.cli("session", "end", str(session.id), "--text", "Come back on Monday")
    await client.lost()

    listed = await stage.cli("session", "list", "--user", name)
    assert msgspec.convert(listed, Ledger).sessions == [await stage.session(name)]
    shown = msgspec.convert(await stage.cli("session", "show", str(session.id)), dict[str, object])
    assert (shown["id"], shown["end_reason"]) == (session.id, "operator")
    assert "Come back on Monday" in str(shown["story"])


async def test_all_sessions_of_a_user_end(stage: Stage) -> None:
    name, other = stage.name("evicted"), stage.name("spared")
    devices = [await stage.client(runtime) for runtime in RUNTIMES]
    bystander = await stage.client(NEWEST)
    for device in devices:
        await device.sign_in(name)
    await bystander.sign_in(other)

    await stage.cli("session", "end", "--user", name)
    await asyncio.gather(*(_gone(device) for device in devices))
    assert {session.end_reason for session in await stage.sessions(name)} == {"operator"}
    assert (await bystander.me()).presence.online
    assert (await stage.session(other)).state == "active"


async def test_user_may_start_again_after_an_eviction(stage: Stage) -> None:
    name = stage.name("evicted")
    client = await stage.client(NEWEST)
    await client.sign_in(name)
    await stage.cli("session", "end", "--user", name)
    await client.lost()
    again = await stage.client(NEWEST)
    await again.sign_in(name)
    newest, _ = await stage.sessions(name)
    assert newest.state == "active"


async def test_whoever_is_sent_away_stays_away(stage: Stage) -> None:
    """Each ending that a server decides on, each with another SDK."""
    closing = await stage.application("closing")
    single = await stage.application("one-at-a-time", "--max-sessions", "1")
    keys = {EndReason.APPLICATION_CLOSED: closing.api_key, EndReason.REPLACED: single.api_key}

    async def scenario(reason: EndReason, runtime: Runtime) -> None:
        name = stage.name("unwanted")
        client = await stage.client(runtime, api_key=keys.get(reason))
        await client.sign_in(name)
        session = await stage.session(name)
        match reason:
            case EndReason.USER_DISABLED:
                await stage.cli("user", "disable", name)
            case EndReason.USER_DELETED:
                await stage.cli("user", "delete", name, "--yes")
            case EndReason.CREDENTIALS_CHANGED:
                await stage.cli("user", "set-password", name, "--password-stdin", stdin="a new one")
            case EndReason.APPLICATION_CLOSED:
                await stage.cli("app", "update", closing.name, "--disable")
            case EndReason.REPLACED:
                successor = await stage.client(runtime, api_key=single.api_key)
                await successor.sign_in(name)
        await _gone(client)
        ended = [record for record in await stage.sessions(name) if record.id == session.id]
        assert [(record.state, record.end_reason) for record in ended] == [("ended", reason)]

    async with asyncio.TaskGroup() as group:
        for reason, runtime in zip(DECIDED, RUNTIMES, strict=True):
            group.create_task(scenario(reason, runtime))
