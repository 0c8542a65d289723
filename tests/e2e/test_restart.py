"""The server goes away and comes back: stopped in good order, or killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.e2e.stage import Stage
from tests.e2e.travel import records, travellers
from tests.e2e.values import NEWEST, Heard
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOING_AWAY = {1001, 1012}
"""WebSocket close codes that tell of a restart (RFC 6455, section 7.4.1, and the IANA registry)."""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("server"))
    process.start()
    yield process
    process.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("manner", ["stop", "kill"])
async def test_sessions_and_missed_events_survive_a_restart(stage: Stage, manner: str) -> None:
    friend, visitor = await stage.client(NEWEST), await stage.client(NEWEST)
    friend_name, visitor_name = stage.name("friend"), stage.name("visitor")
    names = (friend_name, visitor_name)
    await friend.sign_in(friend_name)
    group = await travellers(stage)
    before = await records(stage, group)
    await friend.update(displayName="Before")
    first: Heard = [("contact", friend_name, "Before")]
    await asyncio.gather(*(traveller.hears(first, *names) for traveller in group))

    for traveller in group:
        traveller.proxy.refuse()
    group = [traveller.departs() for traveller in group]
    await asyncio.to_thread(stage.server.stop if manner == "stop" else stage.server.kill)
    everyone = [friend, *(traveller.client for traveller in group)]
    await asyncio.gather(*(client.lost() for client in everyone))
    if manner == "stop":
        assert {code for client in everyone for code in client.close_codes()} <= GOING_AWAY
    late = await stage.client(NEWEST)
    outcome = await late.start(stage.name("late"))
    assert outcome.error is not None
    assert outcome.error.code == "ChatKittyConnectionError"

    await asyncio.to_thread(stage.server.start)
    # The friend comes back while the others are still cut off; the SDK keeps the update until then.
    assert (await friend.update(displayName="After")).succeeded
    await visitor.sign_in(visitor_name)
    for traveller in group:
        await traveller.proxy.accept()
    missed: Heard = [("contact", friend_name, "After"), ("presence", visitor_name, True)]
    # What clients acknowledged in the last half second before a crash is not yet noted, and comes again.
    repeats = first if manner == "kill" else []
    await asyncio.gather(*(t.client.hears(missed, *names, since=t.mark, repeats=repeats) for t in group))

    group = [traveller.departs() for traveller in group]
    await visitor.end()
    await asyncio.gather(*(traveller.hears([("presence", visitor_name, False)], *names) for traveller in group))
    for old, new, traveller in zip(before, await records(stage, group), group, strict=True):
        assert (new.id, new.state, new.resumes) == (old.id, "active", 1)
        assert (await traveller.client.me()).presence.online
    await late.until(lambda: late.selves()[-1] is not None, "the late success")
