"""What travels between nodes comes back as it was, and what is not understood is no crash."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.contract.systems import START, a_user

from offhook.broker import codec
from offhook.codes import EndReason
from offhook.domain.events import (
    Event,
    MessageSent,
    Origin,
    Position,
    PresenceChanged,
    Topic,
    UserBlocked,
    UserDeleted,
    UserUnblocked,
    UserUpdated,
)
from offhook.domain.messages import Message
from offhook.domain.subscriptions import Owed, Product, Subscription
from offhook.ports import (
    Answer,
    ApplicationChanged,
    BlocksChanged,
    EndSession,
    FenceSession,
    Publication,
    Question,
    SubscriptionChanged,
)

TOPIC = Topic("user.1")
USER = a_user(1, "josé ☎", id=3, properties={"a": [None, 1.5, {"b": True}]})
EVENTS: list[Event] = [
    UserUpdated(USER),
    PresenceChanged(USER),
    UserDeleted(USER),
    UserBlocked(USER, "2026-03-01T00:00:00+00:00"),
    UserUnblocked(USER),
]
WORDS: list[codec.Word] = [
    EndSession(2**60, EndReason.OPERATOR, "bye ☎"),
    FenceSession(1, 7),
    ApplicationChanged(3, closed=True),
    BlocksChanged(((1, frozenset({2, 3})), (2, frozenset()))),
    SubscriptionChanged(
        Subscription(
            9,
            Product.UC,
            ("call", "IM"),
            60.0,
            correlator=None,
            watched=("bob@example.com", "é"),
            owed=(Owed("bob@example.com", 2),),
            watched_since=4,
        )
    ),
    Question("node-ü", 2**53, bytes(range(256))),
    Answer(1, None),
    Answer(2, b""),
    codec.Resync(),
]


def there_and_back(publication: Publication, node: str) -> Publication:
    data = codec.encode_publication(publication, node)
    header = codec.decode_header(data)
    assert header.node == node
    return codec.decode_publication(publication.topic, header, data)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("origin", [None, Origin(2**62, "récépissé"), Origin(1, "")])
def test_publications_come_back_as_they_were(event: Event, origin: Origin | None) -> None:
    publication = Publication(TOPIC, Position("épöque", 2**40), event, origin)
    again = there_and_back(publication, "node-ü")
    assert (again.topic, again.position, again.event, again.origin) == (TOPIC, publication.position, event, origin)
    assert again.subject == publication.subject


def test_messages_come_back_as_they_were() -> None:
    event = MessageSent(Message(2**60, 1, 2, 3, "alice", 4, "bob", "line\n☎", START))
    assert there_and_back(Publication(TOPIC, Position("e", 1), event), "n").event == event


def test_a_receipt_that_is_too_long_to_travel_stays_at_home() -> None:
    publication = Publication(TOPIC, Position("e", 1), EVENTS[0], Origin(1, "x" * 70_000))
    assert there_and_back(publication, "n").origin is None


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_commands_come_back_as_they_were(word: codec.Word) -> None:
    again = codec.decode_command(codec.encode_command(word))
    assert again == word and type(again) is type(word)


@given(st.binary(max_size=200))
def test_what_is_no_message_is_undecodable(data: bytes) -> None:
    assume(data[:1] != bytes([codec.VERSION]))
    with pytest.raises(codec.Undecodable):
        codec.decode_command(data)
    try:
        header = codec.decode_header(data)
    except codec.Undecodable:
        return
    with pytest.raises(codec.Undecodable):
        codec.decode_publication(TOPIC, header, data)


@given(st.binary(max_size=30))
def test_a_question_is_never_read_as_anything_else(rest: bytes) -> None:
    data = bytes([codec.VERSION]) + rest
    try:
        word = codec.decode_command(data)
    except codec.Undecodable:
        return
    assert isinstance(word, Question | Answer) and codec.encode_command(word)[:10] == data[:10]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_messages_cut_short_or_of_another_version_are_undecodable(cut: int) -> None:
    data = codec.encode_publication(Publication(TOPIC, Position("epoch", 5), EVENTS[0], Origin(1, "r")), "node")
    with pytest.raises(codec.Undecodable):
        codec.decode_publication(TOPIC, codec.decode_header(data[:cut]), data[:cut])
    with pytest.raises(codec.Undecodable):
        codec.decode_header(b"\x02" + data[1:])
    with pytest.raises(codec.Undecodable):
        codec.decode_command(codec.encode_command(WORDS[1]).replace(b'"version":1', b'"version":2'))
    with pytest.raises(codec.Undecodable):
        codec.decode_command(codec.encode_command(WORDS[1]).replace(b"fence_session", b"sing_a_song"))


def test_an_unknown_event_tells_its_offset() -> None:
    data = codec.encode_publication(Publication(TOPIC, Position("e", 5), EVENTS[0]), "n")
    data = data.replace(b"user_updated", b"user_exalted")
    with pytest.raises(codec.Undecodable) as caught:
        codec.decode_publication(TOPIC, codec.decode_header(data), data)
    assert caught.value.offset == 5
