"""The server goes away and comes back (Kandy protocol notes, 4.4 and 4.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.kandy.page import KandyPage
from tests.kandy.products import Product
from tests.kandy.stage import KandyStage
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


@pytest.mark.timeout(240)
@pytest.mark.parametrize("manner", ["stop", "kill"])
async def test_pages_ride_out_a_restart(stage: KandyStage, builds: list[Product], manner: str) -> None:
    signed = [await stage.someone(product, "alice") for product in builds]
    friend, other = await stage.someone(builds[0], "friend")
    marks = {id(page): page.tab.mark for page, _ in signed}
    for page, user in signed:
        await friend.say(user, "before")
        await page.hears(other, "before")

    await asyncio.to_thread(stage.server.stop if manner == "stop" else stage.server.kill)
    aware = [page for page, _ in signed if page.product.watches_close]
    for page in aware:
        await page.tab.until(lambda p=page: "closed" in p.tab.sockets(marks[id(p)]), "the loss")  # type: ignore[misc]
    if manner == "stop":
        codes = {code for page in aware for code in page.tab.close_codes(marks[id(page)])}
        # An SDK tries again at once; what it then meets has no close code but the browser's own.
        assert codes & GOING_AWAY and codes <= GOING_AWAY | {1006}
    await asyncio.to_thread(stage.server.start)

    async def back(page: KandyPage, user: str) -> None:
        await page.tab.until(lambda: page.tab.sockets(marks[id(page)])[-1:] == ["open"], "the reconnect", timeout=60)
        await friend.say(user, "after")
        await page.hears(other, "before", "after")
        assert page.reasons() == [], page
        assert "POST" not in page.posted(marks[id(page)]), page

    await friend.tab.until(lambda: friend.tab.sockets()[-1] == "open", "the friend's reconnect", timeout=60)
    async with asyncio.TaskGroup() as group:
        for page, user in signed:
            group.create_task(back(page, user))
