"""Kandy.js in pages and Kandy's client in Python: presence, messages and endings, both ways.

Only the newest build of each family plays: what older ones do otherwise is tested page against page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.e2e.mixed.people import Crowd, PythonKandy
from tests.e2e.stage import first_api_key
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

from offhook import kandy

pytestmark = pytest.mark.asyncio(loop_scope="session")

ODD = 'päivää ✓ <b>"&amp;"</b>\nnext + %20'
NOTE = 'päivää ✓ <b>"&amp;"</b> + %20'


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(stage: KandyStage) -> AsyncIterator[Crowd]:
    """Makes people with clients in Python, and clears them away."""
    made = Crowd(stage, await asyncio.to_thread(first_api_key, stage.server), PASSWORD)
    yield made
    await made.clear()


@pytest.fixture
def page_product(builds: list[Product], family: str) -> Product:
    """The newest build of a family."""
    found = [build for build in builds if build.family == family]
    if not found:
        pytest.skip(f"there is no build of {family}")
    return found[0]


both = pytest.mark.parametrize("family", ["link", "uc"])
kinds = pytest.mark.parametrize("kind", ["python-link", "python-uc"])


async def _python(crowd: Crowd, kind: str) -> PythonKandy:
    person = await crowd.someone(kind)
    assert isinstance(person, PythonKandy)
    return person


@both
@kinds
async def test_presence_both_ways(stage: KandyStage, crowd: Crowd, page_product: Product, kind: str) -> None:
    page, alice = await stage.someone(page_product, "alice")
    bob = await _python(crowd, kind)
    await page.watch(bob.name)
    await page.sees(bob.name, "open", "active")
    await bob.watch(alice)

    await bob.client.presence.update("open", "busy", NOTE)
    await page.sees(bob.name, "open", "busy", NOTE)
    await page.call("presence.update", "open", "lunch", "back at one")
    wanted = kandy.Presence(alice, "open", "lunch", "back at one")
    await bob.until(lambda: bob.client.presence.get(alice) == wanted, f"{wanted}")

    await bob.sign_out()
    await page.tab.until(lambda: page.told(bob.name)[-1][0] == "closed", "the Python client's end")
    await bob.sign_in(PASSWORD)
    await page.tab.until(lambda: page.told(bob.name)[-1][0] == "open", "its return")
    await bob.watch(alice)
    await page.sign_out()
    await bob.sees(alice, False)
    assert page.complaints() == []


@both
@kinds
async def test_messages_both_ways(stage: KandyStage, crowd: Crowd, page_product: Product, kind: str) -> None:
    page, alice = await stage.someone(page_product, "alice")
    bob = await _python(crowd, kind)
    await bob.say(alice, ODD)
    await page.hears(bob.name, ODD)
    await page.say(bob.name, ODD)
    await bob.hears((alice, ODD))
    for number in range(5):
        await bob.say(alice, f"to the page {number}")
    await page.hears(bob.name, ODD, *(f"to the page {number}" for number in range(5)))
    await page.spoke(bob.name, ODD)
    assert page.names("messages:error") == []
    assert page.complaints() == []


@both
@kinds
async def test_messages_wait_for_whoever_is_away(
    stage: KandyStage, crowd: Crowd, page_product: Product, kind: str
) -> None:
    page, alice = await stage.someone(page_product, "alice")
    bob = await crowd.person(kind)
    assert isinstance(bob, PythonKandy)
    await page.say(bob.name, "are you there?")
    await page.spoke(bob.name, "are you there?")
    await bob.sign_in(PASSWORD)
    await bob.hears((alice, "are you there?"))

    carol = await stage.user("carol")
    await bob.say(carol, "and you?")
    late = await stage.page(page_product)
    await late.sign_in(carol, PASSWORD)
    await late.hears(bob.name, "and you?")


async def test_force_log_out_between_a_page_and_python(stage: KandyStage, newest: Product) -> None:
    """Each sends the other away: both are devices of one user, of whom there may be one."""
    app, domain = await stage.tenant(sessions={"max_sessions": 1, "duplicates": "reject-new"})
    user = await stage.user("alice", app=app, domain=domain)
    page = await stage.page(newest)
    await page.sign_in(user, PASSWORD)
    person = PythonKandy(user, stage.server.http_host, "link")
    try:
        person.client.set_credentials(username=user, password=PASSWORD)
        with pytest.raises(kandy.KandyError, match="19") as refused:
            await person.client.services.subscribe(["call", "Presence", "IM"])
        assert refused.value.code == "authentication:4"
        await person.client.services.subscribe(["call", "Presence", "IM"], force_log_out=True)
        assert await page.ended() == "GONE"
        await person.back()

        again = await stage.page(newest)
        await again.sign_in(user, PASSWORD, forceLogOut=True)
        await person.gone()
        assert again.reasons() == []
    finally:
        await person.close()
