"""Messages of Link's clients."""

from __future__ import annotations

import pytest
from tests.unit.gateways.kandy.conftest import ALICE, BOB, Kandy, base, basic
from tests.unit.gateways.kandy.test_subscription import refused

from offhook.domain.accounts import Application

PATH = f"{base(ALICE)}/instantmessage"


def message(text: object = "hello", to: object = BOB) -> dict[str, object]:
    """The body of ``instantmessage``."""
    return {"imRequest": {"charset": "UTF-8", "toUrl": to, "message": text, "type": "A2"}}


@pytest.mark.parametrize("to", [BOB, f"sip:{BOB}", f" SIP:{BOB} "])
async def test_a_message_is_stored_for_its_receiver(kandy: Kandy, application: Application, to: str) -> None:
    await kandy.subscribe(ALICE)
    reply = await kandy.post(PATH, message("hi 👋", to), basic(ALICE))
    assert reply.status == 200
    bob = await kandy.core.users.by_name(application, BOB)
    (thread,) = await kandy.core.messages.threads(bob)
    assert thread.last is not None
    assert (thread.last.sender, thread.last.text) == (ALICE, "hi 👋")
    assert reply.json == {"imResponse": {"statusCode": 0, "messageId": f"m-{thread.last.id}"}}


@pytest.mark.parametrize(
    ("body", "status", "code", "names"),
    [
        (b"null", 400, 5, ""),
        ({"imRequest": {"toUrl": BOB}}, 400, 5, "imRequest.message"),
        (message(""), 400, 37, "imRequest.message"),
        (message("a\0b"), 400, 37, "imRequest.message"),
        (message(to=""), 400, 37, "imRequest.toUrl"),
        (message(to="nobody@example.com"), 404, 42, ""),
        (message("x" * 5000), 413, 37, ""),
    ],
)
async def test_a_message_that_cannot_be_sent(
    kandy: Kandy, body: bytes | dict[str, object], status: int, code: int, names: str
) -> None:
    await kandy.subscribe(ALICE)
    assert names in refused(await kandy.post(PATH, body, basic(ALICE)), status, code, "imResponse")


async def test_a_block_stands_between(kandy: Kandy, application: Application) -> None:
    await kandy.subscribe(ALICE)
    alice = await kandy.core.users.by_name(application, ALICE)
    bob = await kandy.core.users.by_name(application, BOB)
    await kandy.core.users.block(application, bob.id, alice.id)
    refused(await kandy.post(PATH, message(), basic(ALICE)), 403, 27, "imResponse")


async def test_messages_are_for_those_who_subscribed_to_them(kandy: Kandy) -> None:
    refused(await kandy.post(PATH, message(), basic(ALICE)), 403, 35, "imResponse")
    await kandy.subscribe(ALICE, "Presence")
    refused(await kandy.post(PATH, message(), basic(ALICE)), 403, 35, "imResponse")


async def test_messages_need_credentials(kandy: Kandy) -> None:
    await kandy.subscribe(ALICE)
    refused(await kandy.post(PATH, message(), basic(BOB)), 401, 4, "imResponse")
    refused(await kandy.post(PATH, message()), 401, 4, "imResponse")
