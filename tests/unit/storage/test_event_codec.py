"""Events as the journal stores them."""

from __future__ import annotations

import json
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain.accounts import User
from offhook.domain.events import (
    EVENT_TYPES,
    Event,
    MessageSent,
    PresenceChanged,
    UserBlocked,
    UserDeleted,
    UserUnblocked,
    UserUpdated,
)
from offhook.domain.messages import Message
from offhook.storage.event_codec import UnknownEvent, decode, encode

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
IDS = st.integers(1, 2**53)
USERS = st.builds(
    User,
    id=IDS,
    application_id=IDS,
    name=TEXT,
    display_name=TEXT,
    created_at=st.datetimes(timezones=st.just(UTC)),
    picture=st.none() | TEXT,
    guest=st.booleans(),
    enabled=st.booleans(),
    status=st.none() | TEXT,
    online=st.booleans(),
    properties=st.dictionaries(TEXT, JSON, max_size=3),
    has_password=st.booleans(),
    closed=st.booleans(),
    note=TEXT,
)
MESSAGES = st.builds(
    Message,
    id=IDS,
    application_id=IDS,
    conversation_id=IDS,
    sender_id=IDS,
    sender=TEXT,
    recipient_id=IDS,
    recipient=TEXT,
    text=TEXT,
    sent_at=st.datetimes(timezones=st.just(UTC)),
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(UserUpdated, USERS),
    st.builds(PresenceChanged, USERS),
    st.builds(UserDeleted, USERS),
    st.builds(UserBlocked, USERS, TEXT),
    st.builds(UserUnblocked, USERS),
    st.builds(MessageSent, MESSAGES),
)


@given(EVENTS)
def test_every_event_comes_back_as_it_was(event: Event) -> None:
    assert decode(encode(event)) == event


def test_every_type_of_event_is_tried_above() -> None:
    tried = {UserUpdated, PresenceChanged, UserDeleted, UserBlocked, UserUnblocked, MessageSent}
    assert set(EVENT_TYPES) == tried


STORED = b"""{"type": "user_blocked", "blocked_at": "2026-03-01T00:00:00+00:00", "user": {
    "id": 3, "application_id": 1, "name": "alice", "display_name": "Alice",
    "created_at": "2026-02-01T10:00:00.000001Z"}}"""


def test_fields_that_an_older_version_did_not_write_take_their_defaults() -> None:
    event = decode(STORED)
    assert isinstance(event, UserBlocked)
    assert (event.user.id, event.user.enabled, event.user.properties) == (3, True, {})
    assert (event.user.closed, event.user.note) == (False, "")
    assert event.user.created_at.isoformat() == "2026-02-01T10:00:00.000001+00:00"


def test_fields_that_this_version_does_not_know_are_skipped() -> None:
    stored = json.loads(STORED)
    stored["extra"] = {"user": 1}
    stored["user"]["extra"] = []
    assert decode(json.dumps(stored).encode()) == decode(STORED)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", b'{"type": "user_teleported", "user": {}}', b'{"type": "user_updated"}', STORED[:-1]]
)
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownEvent):
        decode(data)
