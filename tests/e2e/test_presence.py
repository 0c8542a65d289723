"""Several devices of one user, and what other users see of them (protocol notes, sections 4.13 and 6.1)."""

from __future__ import annotations

import asyncio

import pytest
from tests.e2e.sdk import everywhere
from tests.e2e.stage import Stage
from tests.e2e.values import NEWEST, RUNTIMES, Runtime

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEAVE_GRACE = 10.0
"""Seconds for which a user who was cut off still counts as online, by default."""


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_other_user_comes_and_goes(stage: Stage, runtime: Runtime) -> None:
    watcher, visitor = await stage.client(runtime), await stage.client(runtime)
    name = stage.name("visitor")
    await watcher.sign_in(stage.name("watcher"))

    user = await visitor.sign_in(name)
    await watcher.until(lambda: watcher.presence(name) == [(name, True)], "the visitor to come online")
    seen = await watcher.contact(name)
    assert seen == user
    assert seen == await watcher.retrieve_user(user.id)

    await visitor.end()
    await watcher.until(lambda: watcher.presence(name)[1:] == [(name, False)], "the visitor to go offline")
    gone = await watcher.contact(name)
    assert not gone.presence.online
    assert gone.presence.status == "UNAVAILABLE"


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
async def test_two_devices_of_one_user(stage: Stage, runtime: Runtime) -> None:
    contact, laptop, phone, marker = [await stage.client(kind) for kind in (NEWEST, runtime, runtime, NEWEST)]
    name, marked = stage.name("owner"), stage.name("marker")
    await contact.sign_in(stage.name("contact"))
    owner = await laptop.sign_in(name)
    assert await phone.sign_in(name) == owner

    outcome = await laptop.update(displayName="Two Devices")
    assert outcome.succeeded
    await contact.until(lambda: contact.profiles(name) == [(name, "Two Devices")], "the new display name")
    if runtime.generation == 3:
        await phone.until(
            lambda: any(user and user.display_name == "Two Devices" for user in phone.selves()),
            "the other's update",
        )
    assert (await phone.me()).display_name == "Two Devices"

    await laptop.end()
    await marker.sign_in(marked)
    await contact.until(lambda: contact.presence(marked) == [(marked, True)], "the marker")
    assert contact.presence(name) == [(name, True)]
    assert (await phone.me()).presence.online

    await phone.end()
    await contact.until(lambda: contact.presence(name) == [(name, True), (name, False)], "the last device to go")


async def test_reload_does_not_flicker_and_a_loss_shows_after_the_grace(stage: Stage) -> None:
    async def scenario(runtime: Runtime) -> None:
        watcher, client = await stage.client(runtime), await stage.client(runtime)
        name = stage.name("reloader")
        await watcher.sign_in(stage.name("watcher"))
        await client.sign_in(name)

        await client.reload()
        await client.sign_in(name)
        abandoned = (await stage.sessions(name))[-1]
        assert (abandoned.state, abandoned.end_reason) == ("suspended", None)

        clock = asyncio.get_running_loop()
        killed_at = clock.time()
        await client.kill()
        await watcher.until(
            lambda: len(watcher.presence(name)) == 2, "the lost user to go offline", timeout=LEAVE_GRACE + 10
        )
        assert watcher.presence(name) == [(name, True), (name, False)]
        assert clock.time() - killed_at > LEAVE_GRACE - 1
        assert {session.state for session in await stage.sessions(name)} == {"suspended"}

    await everywhere(scenario)
