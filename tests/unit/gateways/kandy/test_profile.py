"""Profile and language."""

from __future__ import annotations

import pytest
from tests.unit.gateways.kandy.conftest import ALICE, BOB, PASSWORD, Kandy, base, basic
from tests.unit.gateways.kandy.test_subscription import refused

from offhook.domain.accounts import Application
from offhook.domain.values import JsonObject

NAME = "carol@example.com"


async def profile(
    kandy: Kandy, application: Application, display_name: str, properties: JsonObject
) -> dict[str, object]:
    """What is told of a user."""
    await kandy.core.users.create(
        application, NAME, display_name=display_name, password=PASSWORD, properties=properties
    )
    reply = await kandy.get(f"{base(NAME)}/userProfileData", basic(NAME))
    assert reply.status == 200, reply
    return reply.part("userProfileData")


@pytest.mark.parametrize(
    ("display_name", "properties", "expected"),
    [
        ("Carol van Dam", {}, {"firstName": "Carol", "lastName": "van Dam"}),
        ("Carol", {"emailAddress": "c@example.com"}, {"firstName": "Carol", "emailAddress": "c@example.com"}),
        ("Carol C", {"firstName": "Caroline", "lastName": 7}, {"firstName": "Caroline"}),
        ("Carol C", {"lastName": "Dam", "emailAddress": None, "photoURL": ["x"]}, {"lastName": "Dam"}),
    ],
)
async def test_what_is_known_of_a_user(
    kandy: Kandy, application: Application, display_name: str, properties: JsonObject, expected: dict[str, object]
) -> None:
    assert await profile(kandy, application, display_name, properties) == {"statusCode": 0, **expected}


async def test_a_profile_is_the_users_own(kandy: Kandy) -> None:
    path = f"{base(ALICE)}/userProfileData"
    refused(await kandy.get(path, basic(BOB)), 401, 4, "userProfileData")
    refused(await kandy.get(path), 401, 4, "userProfileData")
    assert (await kandy.get(path, token=await kandy.log_in(ALICE))).status == 200


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en-US"),
        ("", "en-US"),
        ("*", "en-US"),
        ("de", "de"),
        ("fr-CA, fr;q=0.8, en;q=0.6", "fr-CA"),
        ("en;q=0.2, de-CH ; q=0.9", "de-CH"),
        ("en;q=x, \x00, de;q=0", "en-US"),
        (", ".join(["*"] * 5000), "en-US"),
    ],
)
async def test_the_language_is_the_browsers(kandy: Kandy, header: str | None, language: str) -> None:
    headers = {} if header is None else {"accept-language": header}
    reply = await kandy.get("/rest/version/1/localization", headers)
    assert (reply.status, reply.json) == (200, {"acceptLanguage": language})
