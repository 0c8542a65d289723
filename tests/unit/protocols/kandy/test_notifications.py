"""Notifications and keep-alives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.kandy import keepalive
from offhook.protocols.kandy.keepalive import Word
from offhook.protocols.kandy.notifications import (
    gone,
    link_message,
    overridden,
    presence,
    presence_head,
    presence_state,
    uc_message,
)
from offhook.protocols.kandy.presence import Activity, Status

NOW = 1_700_000_000_000
texts = st.text(st.characters(), max_size=40)
"""Lone surrogates included."""


def received(message: bytes) -> dict[str, object]:
    found = json.loads(message.decode())
    assert list(found) == ["notificationMessage"]
    assert isinstance(found["notificationMessage"], dict)
    return found["notificationMessage"]


def well_formed(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_presence() -> None:
    state = presence_state(Status.OPEN, Activity.BUSY, "in a call")
    assert presence(presence_head("e-9", NOW), "bob@example.com", state) == (
        b'{"notificationMessage":{"eventType":"presenceWatcher","eventId":"e-9","time":1700000000000,'
        b'"presenceWatcherNotificationParams":{"name":"bob@example.com","status":"open","activity":"busy",'
        b'"note":"in a call","type":1}}}'
    )


@given(texts, texts, st.sampled_from(Status), st.sampled_from(Activity), st.none() | texts)
def test_presence_with_any_text(event_id: str, name: str, status: Status, activity: Activity, note: str | None) -> None:
    found = received(presence(presence_head(event_id, NOW), name, presence_state(status, activity, note)))
    params = {"name": well_formed(name), "status": status.value, "activity": activity.value, "type": 1}
    if note is not None:
        params["note"] = well_formed(note)
    assert found == {
        "eventType": "presenceWatcher",
        "eventId": well_formed(event_id),
        "time": NOW,
        "presenceWatcherNotificationParams": params,
    }


def test_a_message_for_link() -> None:
    assert link_message("e-77", NOW, "alice@example.com", "hello") == (
        b'{"notificationMessage":{"eventType":"IM","eventId":"e-77","time":1700000000000,'
        b'"imnotificationParams":{"charset":"UTF-8","msgText":"hello","primaryContact":"sip:alice@example.com",'
        b'"type":"A2"}}}'
    )


@given(texts, texts, texts)
def test_a_message_for_link_with_any_text(event_id: str, sender: str, text: str) -> None:
    found = received(link_message(event_id, NOW, sender, text, charset=text, kind=sender))
    assert found["eventId"] == well_formed(event_id)
    assert found["imnotificationParams"] == {
        "charset": well_formed(text),
        "msgText": well_formed(text),
        "primaryContact": well_formed("sip:" + sender),
        "type": well_formed(sender),
    }


def test_a_message_for_uc() -> None:
    assert received(uc_message("e-91", NOW, "alice@example.com", "m-5", "hi bob")) == {
        "event": "im",
        "direction": "in",
        "type": "internal",
        "From": "alice@example.com",
        "id": "m-5",
        "eventId": "e-91",
        "time": NOW,
        "txt": "hi bob",
    }


def test_a_message_for_uc_whose_parts_are_to_be_fetched() -> None:
    found = received(uc_message("e-92", NOW, "+15550100", "m-6", None, sms=True))
    assert (found["Attach"], found["event"], found["type"]) == (1, "sms", "sms")
    assert "txt" not in found


@given(texts, texts, texts, texts)
def test_a_message_for_uc_with_any_text(event_id: str, sender: str, message_id: str, text: str) -> None:
    found = received(uc_message(event_id, NOW, sender, message_id, text))
    assert found["From"] == well_formed(sender)
    assert found["id"] == well_formed(message_id)
    assert found["txt"] == well_formed(text)


def test_a_lone_surrogate_is_replaced() -> None:
    assert b'"msgText":"a\xef\xbf\xbdb"' in link_message("e-1", NOW, "alice", "a\ud800b")
    assert presence(b"", "\udfff", b"") == b'"\xef\xbf\xbd"'


def test_the_end() -> None:
    assert gone("e-1", NOW) == b'{"notificationMessage":{"eventType":"gone","eventId":"e-1","time":1700000000000}}'
    assert received(gone("e-1", NOW, 30)) == {"eventType": "gone", "eventId": "e-1", "time": NOW, "retryAfter": 30}
    assert received(overridden("e-2", NOW)) == {"eventType": "websocketOverridden", "eventId": "e-2", "time": NOW}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b'{"message_type":"ping"}', Word.PING),
        (b' { "message_type" : "ping" } ', Word.PING),
        (b'{"message_type":"ping","time":1}', Word.PING),
        (b'{"connCheck":{"interval":30}}', Word.CHECK),
        (b'{"connCheck":{"interval":12.5}}', Word.CHECK),
        (b'{"connCheck":{}}', Word.CHECK),
        (b'{"connAck":{}}', Word.ACK),
        (b'{"connAck": {}}', Word.ACK),
        (b'{"message_type":"pong"}', Word.OTHER),
        (b'{"message_type":7}', Word.OTHER),
        (b'{"connCheck":null}', Word.OTHER),
        (b"{}", Word.OTHER),
        (b"[]", Word.OTHER),
        (b"ping", Word.OTHER),
        (b"", Word.OTHER),
        (b"\xff", Word.OTHER),
        (b"[" * 1000, Word.OTHER),
        (b'{"connCheck":' + b"[" * 1000, Word.OTHER),
        (b'{"message_type":"ping"}' + b" " * keepalive.MAX_WORD, Word.OTHER),
    ],
)
def test_words_of_clients(text: bytes, word: Word) -> None:
    assert keepalive.parse(text) is word


def test_words_of_the_server() -> None:
    assert keepalive.parse(keepalive.ACK) is Word.ACK
    assert keepalive.parse(keepalive.CHECK) is Word.CHECK
    assert json.loads(keepalive.CHECK) == {"connCheck": {"interval": 30}}


@given(st.binary(max_size=80))
def test_no_message_raises(text: bytes) -> None:
    assert keepalive.parse(text) in Word
