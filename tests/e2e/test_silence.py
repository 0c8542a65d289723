"""A network that swallows everything and closes nothing: the server finds out by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.e2e.stage import Stage
from tests.e2e.travel import records, travellers
from tests.e2e.values import NEWEST, Heard
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

PING_INTERVAL, PING_TIMEOUT, LEAVE_GRACE = 2, 2, 10
"""Seconds until the server probes a connection, then until it gives it up, then until the user is offline."""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"ping_interval": str(PING_INTERVAL), "ping_timeout": str(PING_TIMEOUT)}
    process = ServerProcess(tmp_path_factory.mktemp("server"), settings=settings)
    process.start()
    yield process
    process.stop()


async def test_silent_network_is_noticed_and_survived(stage: Stage) -> None:
    friend = await stage.client(NEWEST)
    friend_name = stage.name("friend")
    await friend.sign_in(friend_name)
    group = await travellers(stage)
    before = await records(stage, group)

    for traveller in group:
        traveller.proxy.stall()
    await friend.update(displayName="Unheard")
    bound = PING_INTERVAL + PING_TIMEOUT + LEAVE_GRACE + 5
    for traveller in group:
        gone: Heard = [("presence", traveller.name, True), ("presence", traveller.name, False)]
        await friend.hears(gone, traveller.name, timeout=bound)
    assert {record.state for record in await records(stage, group)} == {"suspended"}

    for traveller in group:
        traveller.proxy.cut()
        traveller.proxy.flow()
    unheard: Heard = [("contact", friend_name, "Unheard")]
    await asyncio.gather(*(traveller.hears(unheard, friend_name) for traveller in group))
    await asyncio.gather(*(traveller.client.me() for traveller in group))
    for old, new in zip(before, await records(stage, group), strict=True):
        assert (new.id, new.state, new.resumes) == (old.id, "active", 1)
