"""Points of STOMP 1.2 that concern a whole connection; those of single frames are the codec's tests."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.unit.gateways.chatkitty.conftest import Client, Connect

from offhook.codes import CloseReason
from offhook.core import Core
from offhook.domain.accounts import Application, UserChanges
from offhook.gateways.background import settle
from offhook.protocols import stomp

USER = "/application/v1/user.relay"


async def started(connect: Connect, ack: str | None, token: str = "") -> Client:
    """A client that is subscribed to its topics in one acknowledgement mode."""
    client = connect()
    await client.connect("jane", **({"StompX-Auth-Session-ID": token} if token else {}))
    client.user = await client.relay(USER)
    topics = client.user["_topics"]
    assert isinstance(topics, dict)
    for key in ("self", "contacts", "users"):
        mode = {} if ack is None else {"ack": ack}
        client.send("SUBSCRIBE", {"id": key, "destination": topics[key], "receipt": key, **mode})
        assert (await client.frame("RECEIPT")).headers["receipt-id"] == key
    await settle()
    return client


@pytest.mark.parametrize(
    ("mode", "acknowledged", "again"),
    [
        (None, None, []),
        ("auto", None, []),
        ("client", None, ["A", "B", "C"]),
        ("client", 1, ["C"]),
        ("client-individual", None, ["A", "B", "C"]),
        ("client-individual", 2, []),
        ("undefined", None, []),
    ],
)
async def test_what_is_not_acknowledged_comes_again(
    connect: Connect, core: Core, application: Application, mode: str | None, acknowledged: int | None, again: list[str]
) -> None:
    john = await core.users.create(application, "john")
    client = await started(connect, mode)
    for name in "ABC":
        await core.users.change(application, john.id, UserChanges(display_name=name))
    messages = [await client.frame("MESSAGE") for _ in range(3)]
    assert [message.headers["ack"] for message in messages] == [m.headers["message-id"] for m in messages]
    assert len({message.headers["message-id"] for message in messages}) == 3
    if acknowledged is not None:
        client.send("ACK", {"id": messages[acknowledged].headers["ack"]})
    await client.lose()
    back = await started(connect, mode, client.session)
    await core.users.change(application, john.id, UserChanges(display_name="end"))
    names: list[str] = []
    while not names or names[-1] != "end":
        names.append(json.loads((await back.frame("MESSAGE")).body)["resource"]["displayName"])
    assert names == [*again, "end"]


async def test_nack_acknowledges_nothing(connect: Connect, core: Core, application: Application) -> None:
    john = await core.users.create(application, "john")
    client = await started(connect, "client-individual")
    await core.users.change(application, john.id, UserChanges(display_name="A"))
    message = await client.frame("MESSAGE")
    client.send("NACK", {"id": message.headers["ack"], "receipt": "n"})
    await client.frame("RECEIPT")
    await client.lose()
    back = await started(connect, "client-individual", client.session)
    assert (await back.frame("MESSAGE")).headers["message-id"] == message.headers["message-id"]


async def test_an_id_names_one_subscription(connect: Connect, core: Core, application: Application) -> None:
    client = await started(connect, "client")
    topics = client.user["_topics"]
    assert isinstance(topics, dict)
    client.send("SUBSCRIBE", {"id": "contacts", "destination": topics["channels"]})
    await core.users.create(application, "john")
    john = await core.users.by_name(application, "john")
    await core.users.change(application, john.id, UserChanges(display_name="A"))
    await client.relay(USER)
    assert client.nothing_more()


async def test_a_receipt_comes_after_its_frame_is_done_and_after_those_before_it(connect: Connect, core: Core) -> None:
    client = await started(connect, "client")
    client.send("SEND", {"destination": client.action("update"), "receipt": "1"}, {"displayName": "One"})
    client.send("SUBSCRIBE", {"id": "l", "destination": "/application/v1/user/contacts.count.relay", "receipt": "2"})
    client.send("UNSUBSCRIBE", {"id": "users", "receipt": "3"})
    frames = [await client.frame() for _ in range(5)]
    kinds = [frame.headers.get("receipt-id", frame.headers.get("subscription")) for frame in frames]
    assert kinds == ["1", "1", "l", "2", "3"]
    assert (await core.users.get(await core.applications.get("default"), 1)).display_name == "One"


async def test_a_transaction_ends_with_its_connection(connect: Connect, core: Core, application: Application) -> None:
    client = await started(connect, "client")
    client.send("BEGIN", {"transaction": "t"})
    client.send("SEND", {"destination": client.action("update"), "transaction": "t"}, {"displayName": "Never"})
    await client.lose()
    assert (await core.users.by_name(application, "jane")).display_name == "jane"


async def test_transactions_are_bounded(connect: Connect) -> None:
    client = await started(connect, "client")
    client.send("BEGIN", {"transaction": "t"})
    for _ in range(101):
        client.send("SEND", {"destination": "/x", "transaction": "t"}, {})
    await client.frame("ERROR")
    assert await client.closing() is CloseReason.PROTOCOL_ERROR


async def test_an_error_names_the_receipt_and_ends_the_connection(connect: Connect) -> None:
    client = await started(connect, "client")
    client.connection.received(b"SUBSCRIBE\nreceipt:r\nid:\\q\n\n\0")
    assert (await client.frame("ERROR")).headers["receipt-id"] == "r"
    assert await client.closing() is CloseReason.PROTOCOL_ERROR


async def test_after_the_receipt_of_disconnect_nothing_comes(
    connect: Connect, core: Core, application: Application
) -> None:
    john = await core.users.create(application, "john")
    client = await started(connect, "client")
    client.send("DISCONNECT", {"receipt": "close-0"})
    await client.frame("RECEIPT")
    await core.users.change(application, john.id, UserChanges(display_name="A"))
    client.connection.received(stomp.encode("SEND", {"destination": client.action("update")}, b'{"displayName":"No"}'))
    await settle()
    await asyncio.sleep(0)
    assert client.nothing_more()
    assert (await core.users.by_name(application, "jane")).display_name == "jane"
