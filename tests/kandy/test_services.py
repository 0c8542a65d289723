"""Which services a subscription has (Kandy protocol notes, 3.1 and 3.5)."""

from __future__ import annotations

import msgspec
import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_unknown_service_is_left_out(stage: KandyStage, product: Product) -> None:
    page, user = await stage.page(product, services=("call", "MWI")), await stage.user("alice")
    done = await page.sign_in(user, PASSWORD, services=("call", "MWI"))
    if product.plugin:
        assert done.subscribed == ["call"]
    else:
        subscription = msgspec.convert((done.connection or {})["subscription"], dict[str, object])
        assert (subscription["status"], subscription["received"], subscription["missing"]) == (
            "PARTIAL",
            ["call"],
            ["MWI"],
        )
    answer = (
        (await page.tab.answered("POST ")).answer if product.plugin else (await page.tab.answered("/subscr")).answer
    )
    assert answer is not None
    assert msgspec.convert(answer.json()["subscribeResponse"], dict[str, object])["statusCode"] == 2


async def test_service_by_service(stage: KandyStage, plugin: Product) -> None:
    page, user = await stage.page(plugin), await stage.user("alice")
    await page.sign_in(user, PASSWORD, services=("call",))
    for number, service in enumerate(("Presence", "IM"), 1):
        await page.call("services.subscribe", [service])
        done = await page.wait("subscription:change", lambda event: len(event.subscribed) == 1 + number)  # noqa: B023
        assert service in done.subscribed
        put = await page.tab.answered("PUT ", number)
        assert put.answer is not None
        assert put.answer.status == 200
    friend, other = await stage.someone(plugin, "bob")
    await friend.say(user, "hello")
    await page.hears(other, "hello")

    await page.call("services.unsubscribe", ["IM"])
    await page.wait("subscription:change", lambda event: set(event.subscribed) == {"call", "Presence"})
    await page.tab.answered("PUT ", 3)
    await friend.say(user, "does not arrive")
    await friend.spoke(user, "hello", "does not arrive")
    await page.call("services.unsubscribe", ["call", "Presence"])
    await page.wait("subscription:change", lambda e: e.subscribed == [] and (e.services or {})["isPending"] is False)
    assert page.posted() == ["POST", "PUT", "PUT", "PUT", "DELETE"]
    assert len(page.notifications("IM")) == 1
    assert len(page.tab.websockets()) == 1
    assert page.names("subscription:error") == []
    assert page.complaints() == []


@pytest.mark.parametrize("correlator", ["phone-1", "phone/1 ü"])
async def test_renewal_with_a_client_correlator(stage: KandyStage, plugin: Product, correlator: str) -> None:
    """The SDK puts it into the path as it is, so what would not survive that must not be given back to it."""
    if not plugin.since((4, 30, 0)):
        return
    page, user = await stage.page(plugin), await stage.user("alice")
    await page.sign_in(user, PASSWORD, services=("call",), clientCorrelator=correlator)
    await page.call("services.subscribe", ["IM"])
    await page.wait("subscription:change", lambda event: set(event.subscribed) == {"call", "IM"})
    put = await page.tab.answered("PUT ")
    base = f"/rest/version/1/user/{user}/subscription"
    if correlator == "phone-1":
        assert put.request.path == f"{base}/clientCorrelator/phone-1"
    else:
        assert put.request.path.startswith(f"{base}/")
    assert put.answer is not None
    assert put.answer.status == 200
    await page.sign_out()
    assert page.posted() == ["POST", "PUT", "DELETE"]
    assert page.names("subscription:error") == []
