"""Relays and actions: the current user, other users, blocks; every wrong request is answered and named."""

from __future__ import annotations

import json

import pytest
from tests.unit.gateways.chatkitty.conftest import Client, Connect

from offhook.core import Core
from offhook.domain.accounts import Application
from offhook.services.signing import Grant

CONTACTS = "/application/v1/user/contacts.relay.page.0.size..sort."


async def act(client: Client, destination: str, body: object = None, receipt: str = "r") -> dict[str, object]:
    """Does something and returns the event or error that answers it."""
    client.send("SEND", {"destination": destination, "receipt": receipt}, {} if body is None else body)
    answer: dict[str, object] | None = None
    while True:
        frame = await client.frame()
        if frame.command == "RECEIPT":
            assert frame.headers["receipt-id"] == receipt
            assert answer is not None, "the receipt came without an answer before it"
            return answer
        if frame.headers.get("receipt-id") == receipt:
            assert answer is None, "two answers"
            answer = json.loads(frame.body)


async def test_updating_the_current_user(connect: Connect) -> None:
    jane, witness = await connect().bootstrap("jane"), await connect().bootstrap("john")
    twin = await connect().bootstrap("jane")
    jane.skip()
    witness.skip()
    changed = {**jane.user, "displayName": "Jane Doe", "properties": {"a": [1, None]}, "name": "ignored", "id": 99}
    event = await act(jane, jane.action("update"), changed)
    assert event["type"] == "user.self.updated"
    resource = event["resource"]
    assert isinstance(resource, dict)
    assert resource["displayName"] == "Jane Doe" and resource["properties"] == {"a": [1, None]}
    assert resource["name"] == "jane" and resource["id"] == jane.user["id"]
    assert resource["displayPictureUrl"].endswith("/v1/picture/Jane%20Doe")
    frame = await twin.frame("MESSAGE")
    assert "receipt-id" not in frame.headers and json.loads(frame.body)["resource"]["displayName"] == "Jane Doe"
    seen = await witness.body()
    assert seen["type"] == "contact.user.updated"
    assert witness.nothing_more()
    assert (await jane.relay("/application/v1/user.relay"))["displayName"] == "Jane Doe"


async def test_a_status_of_ones_own_is_kept_and_told(connect: Connect) -> None:
    jane, witness = await connect().bootstrap("jane"), await connect().bootstrap("john")
    jane.skip()
    event = await act(jane, jane.action("update"), {**jane.user, "presence": {"status": "BUSY", "online": False}})
    assert isinstance(event["resource"], dict)
    assert event["resource"]["presence"] == {"status": "BUSY", "online": True}
    seen = await witness.body()
    assert seen["type"] == "contact.presence.changed"
    assert witness.nothing_more()


async def test_an_update_that_changes_nothing_is_answered_and_told_to_nobody_else(connect: Connect) -> None:
    jane, witness = await connect().bootstrap("jane"), await connect().bootstrap("john")
    jane.skip()
    assert (await act(jane, jane.action("update"), jane.user))["type"] == "user.self.updated"
    assert witness.nothing_more()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"displayName": 7}, "displayName"),
        ({"displayName": ""}, "displayName"),
        ({"displayName": "x" * 256}, "displayName"),
        ({"displayName": "a\nb"}, "displayName"),
        ({"displayName": None}, "displayName"),
        ({"properties": []}, "properties"),
        ({"properties": None}, "properties"),
        ({"presence": "BUSY"}, "presence"),
        ({"presence": {"status": 7}}, "presence.status"),
        ({"presence": {"status": "x" * 65}}, "presence.status"),
        ({"displayPictureUrl": 7}, "displayPictureUrl"),
        ({"displayPictureUrl": "javascript:alert(1)"}, "displayPictureUrl"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff", "body"),
        (b"[" * 4000, "body"),
    ],
)
async def test_wrong_updates_name_the_field(connect: Connect, body: object, field: str) -> None:
    jane = await connect().bootstrap("jane")
    error = await act(jane, jane.action("update"), body)
    assert error["error"] == "ClientError" and error["field"] == field
    assert (await jane.relay("/application/v1/user.relay"))["displayName"] == "jane"


async def test_too_large_bodies_are_refused_one_by_one(connect: Connect) -> None:
    jane = await connect().bootstrap("jane")
    error = await act(jane, jane.action("update"), {"displayName": "x" * 5000})
    assert error["error"] == "ClientError" and "large" in str(error["message"])
    assert jane.socket.closed is None


async def test_actions_that_do_not_exist_fail_with_their_receipt(connect: Connect) -> None:
    jane = await connect().bootstrap("jane")
    for destination in (jane.action("createChannel"), "/application/v1/nonsense", "/elsewhere", ""):
        assert (await act(jane, destination))["error"] == "ResourceNotFoundError"


async def test_relays_that_do_not_exist_fail_with_their_subscription(connect: Connect) -> None:
    jane = await connect().bootstrap("jane")
    for destination in (
        "/application/v1/users/999.relay",
        "/application/v1/users/x.relay",
        "/application/v1/nonsense",
        "/application/v1/channels/1.relay",
    ):
        jane.send("SUBSCRIBE", {"id": destination, "destination": destination})
        frame = await jane.frame("MESSAGE")
        assert frame.headers["subscription"] == "errors"
        assert frame.headers["subscription-id"] == destination
        assert json.loads(frame.body)["error"] == "ResourceNotFoundError"
    for destination in (CONTACTS.replace(".0.", ".x."), CONTACTS.replace("size.", "size.-1")):
        jane.send("SUBSCRIBE", {"id": "x", "destination": destination})
        assert json.loads((await jane.frame("MESSAGE")).body)["error"] == "ClientError"
    jane.send("SUBSCRIBE", {"id": "x", "destination": CONTACTS, "online": "perhaps"})
    assert json.loads((await jane.frame("MESSAGE")).body)["field"] == "online"


async def test_without_an_action_topic_the_answer_comes_on_another(connect: Connect) -> None:
    jane = await connect().bootstrap("jane")
    jane.send("UNSUBSCRIBE", {"id": "t-self"})
    event = await act(jane, jane.action("update"), {"displayName": "Jane Doe"})
    assert event["type"] == "user.self.updated"


async def test_listing_users(connect: Connect, core: Core, application: Application) -> None:
    for number in range(60):
        await core.users.create(application, f"user-{number:02d}", display_name=f"Name {number:02d} 100%")
    jane = await connect().bootstrap("jane")
    page = await jane.relay(CONTACTS)
    names: list[str] = []
    while True:
        embedded, relays = page["_embedded"], page["_relays"]
        assert isinstance(embedded, dict) and isinstance(relays, dict)
        names += [user["name"] for user in embedded["users"]]
        if "next" not in relays:
            break
        page = await jane.relay(relays["next"])
    assert names == [f"user-{number:02d}" for number in range(60)]
    assert page["page"] == {"size": 25, "totalElements": 60, "totalElement": 60, "totalPages": 3, "number": 2}
    relays = page["_relays"]
    assert isinstance(relays, dict) and "prev" in relays
    assert await jane.relay("/application/v1/user/contacts.count.relay") == {"count": 60}
    for parameters, count in (
        ({"name": "user-07"}, 1),
        ({"displayName": "name 0"}, 10),
        ({"displayName": "100%"}, 60),
        ({"displayName": "0_"}, 0),
        ({"online": "true"}, 0),
        ({"online": "false", "unknown": "x", "name": "undefined"}, 60),
    ):
        assert await jane.relay("/application/v1/user/contacts.count.relay", **parameters) == {"count": count}
    largest = await jane.relay("/application/v1/user/contacts.relay.page.0.size.1000.sort.displayName,desc")
    embedded = largest["_embedded"]
    assert isinstance(embedded, dict) and embedded["users"][0]["name"] == "user-59"


async def test_blocked_users_neither_see_nor_hear_each_other(connect: Connect) -> None:
    jane, john = await connect().bootstrap("jane"), await connect().bootstrap("john")
    jane.skip()
    event = await act(jane, f"/application/v1/users/{john.user['id']}.block")
    assert event["type"] == "user.user.blocked"
    assert isinstance(event["resource"], dict) and event["resource"]["name"] == "john"
    jane.skip()
    records = await jane.relay("/application/v1/user/blocked_records.relay.page.0.size..sort.")
    embedded = records["_embedded"]
    assert isinstance(embedded, dict)
    (record,) = embedded["items"]
    assert record["user"]["name"] == "john"
    for one, other in ((jane, john), (john, jane)):
        assert await one.relay("/application/v1/user/contacts.count.relay") == {"count": 0}
        one.send("SUBSCRIBE", {"id": "x", "destination": f"/application/v1/users/{other.user['id']}.relay"})
        assert (await one.body())["error"] == "ResourceNotFoundError"
        assert (await act(other, other.action("update"), {"displayName": "New"}))["type"] == "user.self.updated"
        assert one.nothing_more()
    assert (await act(jane, record["_actions"]["delete"]))["type"] == "user.user.unblocked"
    assert (await act(jane, record["_actions"]["delete"]))["error"] == "ResourceNotFoundError"
    assert (await act(jane, f"/application/v1/users/{jane.user['id']}.block"))["error"] == "ClientError"
    jane.skip()
    await act(john, john.action("update"), {"displayName": "Johnny"})
    assert (await jane.body())["type"] == "contact.user.updated"


async def test_a_user_deletes_themselves_and_nobody_else(connect: Connect, core: Core) -> None:
    jane, john = await connect().bootstrap("jane"), await connect().bootstrap("john")
    jane.skip()
    denied = await act(jane, f"/application/v1/users/{john.user['id']}.delete")
    assert denied["error"] == "AccessDeniedError"
    event = await act(jane, jane.action("delete"))
    assert event["type"] == "user.self.deleted"
    assert json.loads((await jane.frame("ERROR")).body)["error"] == "AccessDeniedError"
    kinds = [(await john.body())["type"] for _ in range(2)]
    assert kinds == ["contact.presence.changed", "contact.user.deleted"]
    assert await john.relay("/application/v1/user/contacts.count.relay") == {"count": 0}


async def test_a_picture_that_lies_elsewhere(connect: Connect) -> None:
    jane = await connect().bootstrap("jane")
    picture = {"url": "https://img.example.test/j.png", "name": "j.png", "contentType": "image/png", "size": 5}
    event = await act(jane, jane.action("updateDisplayPicture"), picture)
    assert isinstance(event["resource"], dict)
    assert event["resource"]["displayPictureUrl"] == "https://img.example.test/j.png"
    assert (await act(jane, jane.action("updateDisplayPicture"), {}))["error"] == "ClientError"


async def test_grants_are_the_users_own(connect: Connect, core: Core) -> None:
    jane = await connect().bootstrap("jane")
    text = (await jane.relay("/application/v1/user.write_file_access_grant.relay"))["grant"]
    grant = Grant.decode(str(text), core.signer, core.clock.now())
    assert grant is not None and (grant.kind, grant.user_id) == ("w", jane.user["id"])
    assert Grant.decode(str(text)[:-1], core.signer, core.clock.now()) is None
    assert Grant.decode("", core.signer, core.clock.now()) is None


async def test_nobody_touches_a_picture_of_somebody_else(
    connect: Connect, core: Core, application: Application
) -> None:
    jane, mallory = await connect().bootstrap("jane"), await connect().bootstrap("mallory")
    png = b"\x89PNG\r\n\x1a\n" + b"x" * 20
    user = await core.pictures.upload(application, int(str(jane.user["id"])), png)
    assert user.picture is not None
    mallory.skip()
    for url in (user.picture, f"http://chat.example.test{user.picture}"):
        await act(mallory, mallory.action("update"), {"displayPictureUrl": url})
        mallory.skip()
        await act(mallory, mallory.action("update"), {"displayPictureUrl": "https://elsewhere.example.test/m.png"})
        mallory.skip()
        assert await core.pictures.stored(user.picture.rpartition("/")[2]) is not None
    again = await core.pictures.upload(application, user.id, png)
    assert await core.pictures.stored(user.picture.rpartition("/")[2]) is None
    assert again.picture is not None and await core.pictures.stored(again.picture.rpartition("/")[2]) is not None
