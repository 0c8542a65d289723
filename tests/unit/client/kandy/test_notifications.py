"""What a client makes of what it hears (Kandy protocol notes, 4.2, 4.3, 5.3 and 6)."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook import kandy
from offhook.client.kandy.client import Client
from offhook.client.kandy.notifications import Inbox
from offhook.protocols.kandy import incoming, notifications
from offhook.protocols.kandy.presence import Activity, Status


class Listener:
    """A client without a network that is handed notifications.

    Attributes:
        client: the client.
        told: its events, in order.
    """

    def __init__(self, product: kandy.Product = "link", cache: int = 100) -> None:
        self.client: Client = kandy.create({"notifications": {"idCacheLength": cache}}, product=product)
        self.told: list[kandy.Event] = []
        for name in kandy.EVENTS:
            self.client.on(name, self.told.append)
        presence, conversation = self.client.presence, self.client.conversation
        self.inbox = Inbox(
            self.client._core,
            {"presenceWatcher": presence.take, "IM": conversation.take_link, "im": conversation.take_uc},
        )

    def hear(self, *messages: bytes) -> None:
        """Hands over what a server wrote."""
        for message in messages:
            notification = incoming.decode(message.decode())
            assert isinstance(notification, incoming.Notification)
            self.inbox.take(notification)

    @property
    def names(self) -> list[str]:
        """The names of its events."""
        return [event.name for event in self.told]

    @property
    def texts(self) -> list[str]:
        """The texts of the messages told."""
        return [e.message.text for e in self.told if isinstance(e, kandy.MessagesChange) and e.message is not None]


def text(number: int) -> bytes:
    """A message of Link."""
    return notifications.link_message(f"e-{number}", 1_700_000_000_000 + number, "bob@example.com", str(number))


def test_the_first_message_of_a_conversation() -> None:
    listener = Listener()
    listener.hear(text(1), text(2))
    heard = "notification:received"
    assert listener.names == [heard, "conversations:change", "messages:change", heard, "messages:change"]
    talk = listener.client.conversation.get("sip:bob@example.com")
    assert talk is not None and [message.id for message in talk.messages] == ["e-1", "e-2"]
    assert talk.messages[0].timestamp.timestamp() == 1_700_000_000.001


def test_repeated_notifications_are_dropped() -> None:
    listener = Listener(cache=3)
    listener.hear(*map(text, (1, 2, 3, 1, 2, 3, 4, 2, 3, 1)))
    assert listener.texts == ["1", "2", "3", "4", "1"]


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 6))
def test_only_what_is_remembered_is_dropped(numbers: list[int], cache: int) -> None:
    listener = Listener(cache=cache)
    listener.hear(*map(text, numbers))
    remembered: list[int] = []
    expected: list[str] = []
    for number in numbers:
        if number not in remembered:
            expected.append(str(number))
            remembered = [*remembered, number][-cache:] if cache else []
    assert listener.texts == expected


def test_uc_knows_messages_by_their_own_id() -> None:
    listener = Listener("uc")
    for event in ("e-1", "e-2"):
        listener.hear(notifications.uc_message(event, 0, "bob@example.com", "m-1", "hello"))
    assert listener.texts == ["hello"]
    outgoing = {"event": "im", "direction": "out", "From": "x", "id": "m-2", "txt": "sent by me"}
    listener.hear(json.dumps({"notificationMessage": outgoing}).encode())
    listener.hear(notifications.uc_message("e-3", 0, "bob@example.com", "m-3", None))
    assert listener.texts == ["hello", ""]


def test_presence_that_nobody_asked_for_is_left_alone() -> None:
    listener = Listener()
    message = notifications.presence(
        notifications.presence_head("e-1", 0),
        "bob@example.com",
        notifications.presence_state(Status.OPEN, Activity.BUSY),
    )
    listener.hear(message)
    assert listener.names == ["notification:received"] and listener.client.presence.get_all() == []


@pytest.mark.parametrize(
    "message",
    [
        {"eventType": "IM", "eventId": "e-1"},
        {"eventType": "IM", "eventId": "e-1", "imnotificationParams": {"msgText": 1, "primaryContact": "sip:x"}},
        {"eventType": "IM", "eventId": "e-1", "imnotificationParams": {"msgText": "x", "primaryContact": "sip:"}},
        {"eventType": "presenceWatcher", "eventId": "e-1", "presenceWatcherNotificationParams": {"name": "x"}},
        {"event": "im", "direction": "in", "txt": "x"},
    ],
)
def test_malformed_notifications_are_logged(message: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener()
    with caplog.at_level(logging.WARNING, "offhook.kandy"):
        listener.hear(json.dumps({"notificationMessage": message}).encode())
    assert listener.names == ["notification:received"] and len(caplog.records) == 1
    listener.hear(text(2))
    assert listener.texts == ["2"]


@pytest.mark.parametrize(
    "data", [b"\x00", "", "nonsense", "[]", "1", '{"a":1}', '{"notificationMessage":null}', "[" * 9999]
)
def test_what_is_no_notification(data: str | bytes) -> None:
    with pytest.raises(incoming.IncomingError):
        incoming.decode(data)


def test_words_of_the_keep_alive() -> None:
    assert incoming.decode('{"connCheck":{"interval":30}}') == incoming.Check()
    for word in ('{"connAck":{}}', '{"message_type":"pong"}'):
        assert incoming.decode(word) == incoming.Nothing()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_nothing_breaks_the_reader(value: object) -> None:
    listener = Listener()
    for kind in ("IM", "presenceWatcher", "unknown"):
        params = {"imnotificationParams": value, "presenceWatcherNotificationParams": value, "id": value, "time": value}
        listener.hear(json.dumps({"notificationMessage": {"eventType": kind, "eventId": value, **params}}).encode())
    listener.hear(text(1))
    assert listener.texts[-1:] == ["1"]


def test_ends_tell_when_to_come_back() -> None:
    ends = [incoming.decode(notifications.gone("e-1", 0, wait).decode()) for wait in (None, 7)]
    assert [incoming.retry_after(end) for end in ends if isinstance(end, incoming.Notification)] == [None, 7.0]
