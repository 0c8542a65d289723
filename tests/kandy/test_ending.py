"""Stays that end by the will of others (Kandy protocol notes, 3.8 and 4.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

PING: dict[str, object] = {"pingInterval": 3000}
"""Older builds find out that their socket is closed at their next ping, which is 30 s away unless told otherwise."""


@pytest.mark.parametrize("manner", ["end", "password", "disable", "delete"])
async def test_gone(stage: KandyStage, product: Product, manner: str) -> None:
    page, user = await stage.page(product, connectivity=PING), await stage.user("alice")
    await page.sign_in(user, PASSWORD)
    users = f"/applications/default/users/{user}"
    since = page.tab.mark
    if manner == "end":
        await stage.end_sessions(user)
    elif manner == "password":
        await stage.admin("PUT", f"{users}/password", password="another one")
    elif manner == "disable":
        await stage.admin("PATCH", users, enabled=False)
    else:
        await stage.admin("DELETE", users)
    assert await page.ended(since, timeout=60) == page.evicted
    await page.tab.until(lambda: page.tab.sockets()[-1] == "closed", "the socket's end")
    # Neither another attempt nor a second end when the server closes its side.
    await page.tab.quiet(7, "request", "websocket", "event")
    assert page.reasons() == [page.evicted]
    state = await page.state()
    assert not state.connected and not state.subscribed
    if manner != "delete":
        (session,) = await stage.sessions(user)
        assert session.state == "ended"
    assert page.complaints() == []
    if manner == "end":
        await page.sign_in(user, PASSWORD)


async def test_disabled_user_cannot_sign_in(stage: KandyStage, product: Product) -> None:
    user, page = await stage.user("alice"), await stage.page(product)
    await stage.admin("PATCH", f"/applications/default/users/{user}", enabled=False)
    code, message = await page.refused({"username": user, "password": PASSWORD})
    assert code == ("authentication:4" if product.link else "authentication:9")
    assert "undefined" not in message


async def test_gone_reaches_a_page_that_was_away(stage: KandyStage, product: Product) -> None:
    proxy = await stage.proxy(secure=True)
    address = f"localhost:{proxy.host.rpartition(':')[2]}"
    page = await stage.page(product, socket=address, connectivity=PING)
    user = await stage.user("alice")
    await page.sign_in(user, PASSWORD)
    since = page.tab.mark
    proxy.go_away()
    await page.tab.until(lambda: "closed" in page.tab.sockets(since), "the loss")
    await stage.end_sessions(user)
    await proxy.accept()
    # What it is told depends on whether the server still knows the channel; it must be an end either way.
    assert await page.ended(since, timeout=60) in ("GONE", "LOST_CONNECTION")
    await page.tab.quiet(7, "request", "websocket", "event")
    assert len(page.reasons()) == 1


@pytest.fixture
def lost_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that may lose its data."""
    process = ServerProcess(tmp_path_factory.mktemp("server"))
    process.start()
    yield process
    process.stop()


class TestAfterTheLossOfAllData:
    """The channel that pages come back to is unknown."""

    @pytest.fixture
    def server(self, lost_server: ServerProcess) -> ServerProcess:
        return lost_server

    @pytest.mark.timeout(180)
    async def test_pages_give_up_without_a_storm(self, stage: KandyStage, builds: list[Product]) -> None:
        pages = [(await stage.someone(product, "alice"))[0] for product in builds]
        server = stage.server

        def lose() -> None:
            server.lose_data()
            server.start()

        marks = {id(page): page.tab.mark for page in pages}
        await asyncio.to_thread(lose)
        for page in pages:
            reason = await page.ended(marks[id(page)], timeout=90)
            # Builds that renew meanwhile hear of it by the answer to that.
            assert reason == "LOST_CONNECTION", page
            assert len(page.tab.websockets(marks[id(page)])) <= 6, page
        for page in pages:
            assert page.reasons() == ["LOST_CONNECTION"], page
