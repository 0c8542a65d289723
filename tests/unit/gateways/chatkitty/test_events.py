"""Events as messages: their names, what is shared between receivers, and what an ACK may name."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain.accounts import User
from offhook.domain.events import (
    EVENT_TYPES,
    MessageSent,
    Origin,
    Position,
    PresenceChanged,
    UserBlocked,
    UserDeleted,
    UserEvent,
    UserUnblocked,
    UserUpdated,
    application_topic,
    user_topic,
)
from offhook.gateways.chatkitty.events import (
    ABOUT_OTHERS,
    ABOUT_SELF,
    View,
    ack_id,
    encode_answer,
    encode_event,
    parse_ack,
)
from offhook.ports import Publication
from offhook.protocols import stomp

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
USER = User(7, 1, "jane:doe", "Jane \N{SNOWMAN}", NOW, online=True, status="BUSY", properties={"a": [1]})
BASE = "http://chat.example.test"
EVENTS: dict[type[UserEvent], UserEvent] = {
    PresenceChanged: PresenceChanged(USER),
    UserUpdated: UserUpdated(USER),
    UserDeleted: UserDeleted(USER),
    UserBlocked: UserBlocked(USER, NOW.isoformat()),
    UserUnblocked: UserUnblocked(USER),
}


def published(event: UserEvent, *, to_self: bool, origin: Origin | None = None) -> Publication:
    topic = user_topic(USER.id) if to_self else application_topic(1)
    return Publication(topic, Position("epoch", 12), event, origin)


def read(data: bytes) -> stomp.Frame:
    """What is the same for everybody, as one client gets it."""
    (frame,) = stomp.Decoder().feed(stomp.message_prefix("sub-1", "/topic/x") + data)
    return frame


CASES = [(False, kind, views) for kind, views in ABOUT_OTHERS.items()]
CASES += [(True, kind, views) for kind, views in ABOUT_SELF.items()]


@pytest.mark.parametrize(("to_self", "kind", "views"), CASES)
def test_every_event_gives_whole_messages(to_self: bool, kind: type[UserEvent], views: tuple[View, ...]) -> None:
    messages = encode_event(published(EVENTS[kind], to_self=to_self), BASE)
    assert [key for key, _ in messages] == [view.key for view in views]
    for (_, data), view in zip(messages, views, strict=True):
        frame = read(data)
        assert frame.command == "MESSAGE"
        assert frame.headers["message-id"] == frame.headers["ack"]
        assert frame.headers["content-type"] == "application/json"
        assert int(frame.headers["content-length"]) == len(frame.body)
        body = json.loads(frame.body)
        assert (body["type"], body["version"]) == (view.kind, "v1")
        resource = body["resource"]
        assert (resource.get("user") or resource)["displayName"] == "Jane \N{SNOWMAN}"


def test_what_is_about_one_user_alone_is_nobody_elses() -> None:
    for kind in (UserBlocked, UserUnblocked):
        assert encode_event(published(EVENTS[kind], to_self=False), BASE) == ()
    # One's own arrival and departure are no news on one's own topic.
    assert encode_event(published(EVENTS[PresenceChanged], to_self=True), BASE) == ()


def test_every_event_reaches_somebody() -> None:
    # Messages between two users are for Kandy's clients alone.
    assert set(EVENT_TYPES) - {MessageSent} == set(ABOUT_OTHERS) | set(ABOUT_SELF) == set(EVENTS)
    # One answer for each action, else a client would be answered twice or never.
    for kind, views in ABOUT_SELF.items():
        assert [view.answers for view in views] == [True] + [False] * (len(views) - 1), kind


def test_the_two_messages_of_a_block_have_names_of_their_own_and_acknowledge_the_same() -> None:
    messages = encode_event(published(EVENTS[UserBlocked], to_self=True), BASE)
    names = [read(data).headers["ack"] for _, data in messages]
    assert names == ["u-12", "u-12.1"]
    assert [parse_ack(name) for name in names] == [("u", 12), ("u", 12)]


def test_what_is_the_same_for_all_is_kept_with_the_event() -> None:
    publication = published(EVENTS[UserUpdated], to_self=False)
    made = encode_event(publication, BASE)
    assert publication.encoded == {BASE: made}
    # Another name for the server makes other URLs, so it is another text.
    ((_, other),) = encode_event(publication, "https://other.example.test")
    assert b"https://other.example.test/v1/picture/" in other and BASE.encode() not in other
    assert publication.encoded[BASE] is made


@pytest.mark.parametrize("kind", [UserUpdated, UserDeleted, UserBlocked, UserUnblocked])
def test_an_answer_is_marked_once_and_the_mark_is_nobody_elses(kind: type[UserEvent]) -> None:
    publication = published(EVENTS[kind], to_self=True, origin=Origin(5, "my receipt: 1\n"))
    marks = [read(data).headers.get("receipt-id") for _, data in encode_answer(publication, BASE)]
    assert marks == ["my receipt: 1\n"] + [None] * (len(ABOUT_SELF[kind]) - 1)
    assert publication.encoded == {}
    assert all("receipt-id" not in read(data).headers for _, data in encode_event(publication, BASE))
    # In all else the answer is the event.
    for (_, answer), (_, event) in zip(encode_answer(publication, BASE), publication.encoded[BASE], strict=True):
        assert read(answer).body == read(event).body


def test_ids_tell_the_kind_of_topic_and_the_place() -> None:
    event = EVENTS[UserUpdated]
    assert ack_id(Publication(user_topic(7), Position("e", 3), event)) == "u-3"
    assert ack_id(Publication(application_topic(7), Position("e", 4), event)) == "a-4"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "a",
        "a-",
        "a-x",
        "b-1",
        "aa-1",
        "-1",
        "a--1",
        "a-1x",
        "a-.1",
        "a-١",
        "a-²",
        "a-" + "9" * 17,
        "undefined",
    ],
    ids=ascii,
)
def test_names_that_are_none_of_ours(text: str) -> None:
    assert parse_ack(text) is None


@given(st.text(max_size=40))
def test_no_name_makes_reading_fail(text: str) -> None:
    found = parse_ack(text)
    assert found is None or (found[0] in ("a", "u") and 0 <= found[1] < 10**16)
