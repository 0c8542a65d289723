"""What a page learns about its own user (Kandy protocol notes, 7.2)."""

from __future__ import annotations

import msgspec
import pytest
from tests.kandy.products import Product
from tests.kandy.stage import KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_fetch_self_info(stage: KandyStage, product: Product) -> None:
    page, user = await stage.someone(product, "alice")
    await page.call("user.fetchSelfInfo")
    await page.wait("users:change")
    profile = (await page.tab.answered(f"GET /rest/version/1/user/{user}/userProfileData")).answer
    assert profile is not None
    assert profile.status == 200
    fields = msgspec.convert(profile.json()["userProfileData"], dict[str, object])
    assert fields["statusCode"] == 0
    assert None not in fields.values()
    locale = (await page.tab.answered("GET /rest/version/1/localization")).answer
    assert locale is not None
    assert locale.status == 200
    assert locale.json() == {"acceptLanguage": "en-US"}
    assert page.names("users:error") == []
    assert page.complaints() == []
