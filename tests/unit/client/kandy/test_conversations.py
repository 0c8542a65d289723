"""What a client remembers of what users write to each other (Kandy protocol notes, 6)."""

from __future__ import annotations

import json

import pytest
from tests.unit.client.kandy.scripted import ALICE, BOB, LINK, UC, Platform, play, sign_in

from offhook import kandy
from offhook.client.kandy import conversations
from offhook.protocols.kandy import notifications, uc

PART = uc.Attachment("image/png", "https://rest.example/v2.0/rm/file/h-1/", "cat.png")


def rows(*found: uc.MessageRow) -> tuple[int, dict[str, str], bytes]:
    """An answer with messages."""
    return 200, {}, uc.messages(found)


def told_of(message: dict[str, object]) -> str:
    """A notification."""
    return json.dumps({"notificationMessage": message})


def test_a_message_with_parts() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        stream = client.events("messages:change", "messages:error")
        known = {"event": "im", "direction": "in", "type": "internal", "From": BOB}
        platform.sockets[0].tell(told_of({**known, "id": "m-1", "eventId": "e-1", "Attach": 1}))
        event = await anext(stream)
        assert isinstance(event, kandy.MessagesChange) and event.message is not None
        message = event.message
        assert message.text == "" and message.has_attachments and message.attachments == ()
        talk = client.conversation.create(BOB)
        platform.script["thread"] = [
            rows(uc.MessageRow("m-1", "", True, BOB, 1000, (PART,))),
            rows(uc.MessageRow("m-0", "plain", True, BOB, 500), uc.MessageRow("m-1", "", True, BOB, 1000, (PART,))),
            rows(),
        ]
        whole = await talk.fetch_attachments(message)
        assert whole.attachments == (kandy.Attachment(PART.mime, PART.url, PART.name),)
        assert talk.messages == [whole] and await anext(stream) == kandy.MessagesChange(BOB, whole)
        talk.id = "7"
        plain, again = await talk.fetch_messages()
        assert (plain.has_attachments, again.attachments) == (False, whole.attachments)
        with pytest.raises(kandy.KandyError) as failed:
            await talk.fetch_attachments(message)
        assert failed.value.code == "messaging:6"

    play(UC, act)


def test_messages_without_a_name_are_all_there() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        stream = client.events("messages:change")
        for text in ("one", "two"):
            content = {"msgText": text, "primaryContact": f"sip:{BOB}"}
            platform.sockets[0].tell(told_of({"eventType": "IM", "imnotificationParams": content}))
            await anext(stream)
        assert [message.text for message in client.conversation.create(BOB).messages] == ["one", "two"]

    play(LINK, act)


def test_only_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "KEPT", 3)

    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        stream = client.events("messages:change")
        for number in range(10):
            platform.sockets[0].tell(notifications.link_message(f"e-{number}", number + 1, BOB, str(number)).decode())
            await anext(stream)
        assert [message.text for message in client.conversation.create(BOB).messages] == ["7", "8", "9"]

    play(LINK, act)


def test_a_flood_costs_no_more_per_message(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    class Counting(conversations.Conversation):
        @property
        def messages(self) -> list[kandy.Message]:
            nonlocal looked
            looked += 1
            return super().messages

    monkeypatch.setattr(conversations, "Conversation", Counting)

    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        stream = client.events("messages:change")
        for number in range(50):
            platform.sockets[0].tell(notifications.link_message(f"e-{number}", 1, BOB, "x").decode())
            await anext(stream)
        # Sorting all of them for each would make long conversations slow.
        assert looked == 0 and len(client.conversation.create(BOB).messages) == 50

    told = play(LINK, act)
    assert client_names(told).count("conversations:change") == 1


def client_names(told: list[kandy.Event]) -> list[str]:
    """The names of events."""
    return [event.name for event in told]


def test_what_was_sent_is_of_the_user() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        message = await client.conversation.create(BOB).send("hello")
        assert (message.sender, message.incoming, message.has_attachments) == (ALICE, False, False)

    play(UC, act)
