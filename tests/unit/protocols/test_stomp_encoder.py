"""The STOMP encoders and what CONNECT and CONNECTED negotiate."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.stomp import (
    Decoder,
    Frame,
    HeartBeat,
    StompError,
    encode,
    encode_connected,
    encode_error,
    encode_receipt,
    message_prefix,
    message_tail,
    negotiate,
    negotiate_version,
    parse_heart_beat,
)


def test_connected() -> None:
    assert encode_connected("s-1", (10000, 10000), user_name="jane:doe") == (
        b"CONNECTED\nversion:1.2\nsession:s-1\nheart-beat:10000,10000\nserver:offhook\nuser-name:jane:doe\n\n\0"
    )


@pytest.mark.parametrize("session", ["a\nb", "a\rb", "a\0b"])
def test_connected_refuses_what_it_cannot_say(session: str) -> None:
    with pytest.raises(ValueError, match="unescaped"):
        encode_connected(session)


def test_receipt_repeats_the_escaped_id() -> None:
    assert encode_receipt("a:b\n") == b"RECEIPT\nreceipt-id:a\\cb\\n\n\n\0"


def test_error_has_the_receipt_id_and_a_counted_body() -> None:
    body = json.dumps({"error": "AccessDeniedError", "message": "ä"}, ensure_ascii=False).encode()
    data = encode_error("Access denied", body, "r-1", {"version": "1.2"})
    assert Decoder().feed(data) == [
        Frame(
            "ERROR",
            {
                "message": "Access denied",
                "content-type": "application/json",
                "receipt-id": "r-1",
                "version": "1.2",
                "content-length": str(len(body)),
            },
            body,
        )
    ]


def test_a_header_cannot_hold_a_nul() -> None:
    with pytest.raises(ValueError, match="NUL"):
        encode("SEND", {"a": "\0"})


def test_a_message_of_prefix_and_tail() -> None:
    tail = message_tail("m-1", b'{"a":"\0"}', "ack-1", {"receipt-id": "r:1"})
    assert message_prefix("s:1", "/topic/a") + tail == (
        b"MESSAGE\nsubscription:s\\c1\ndestination:/topic/a\nmessage-id:m-1\nack:ack-1\nreceipt-id:r\\c1\n"
        b'content-type:application/json\ncontent-length:9\n\n{"a":"\0"}\0'
    )


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(_TEXT, _TEXT, _TEXT, st.binary(max_size=50), st.none() | _TEXT)
def test_prefix_and_tail_are_one_frame(
    subscription: str, destination: str, message_id: str, body: bytes, ack: str | None
) -> None:
    data = message_prefix(subscription, destination) + message_tail(message_id, body, ack)
    headers = {"subscription": subscription, "destination": destination, "message-id": message_id}
    if ack is not None:
        headers["ack"] = ack
    headers |= {"content-type": "application/json", "content-length": str(len(body))}
    assert Decoder().feed(data) == [Frame("MESSAGE", headers, body)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, (0, 0)), ("0,0", (0, 0)), ("60000,10000", (60000, 10000)), ("999999999,1", (999999999, 1))],
)
def test_heart_beat_header(value: str | None, expected: tuple[int, int]) -> None:
    assert parse_heart_beat(value) == expected


@pytest.mark.parametrize(
    "value", ["", "1", "1,", ",1", "1,2,3", "-1,0", "1.5,0", "a,b", " 1,2", "1, 2", "٤,1", "9" * 10 + ",0"]
)
def test_a_bad_heart_beat_header_is_refused(value: str) -> None:
    with pytest.raises(StompError):
        parse_heart_beat(value)


@pytest.mark.parametrize(
    ("client", "server", "agreed"),
    [
        ((60000, 10000), (10000, 10000), HeartBeat(10000, 60000)),
        ((300000, 10000), (8000, 10000), HeartBeat(10000, 300000)),
        ((5000, 5000), (10000, 10000), HeartBeat(10000, 10000)),
        ((0, 10000), (10000, 10000), HeartBeat(10000, 0)),
        ((60000, 0), (10000, 10000), HeartBeat(0, 60000)),
        ((60000, 10000), (0, 0), HeartBeat(0, 0)),
        ((0, 0), (10000, 10000), HeartBeat(0, 0)),
    ],
)
def test_heart_beats_are_the_slower_wish_and_zero_is_none(
    client: tuple[int, int], server: tuple[int, int], agreed: HeartBeat
) -> None:
    assert negotiate(client, server) == agreed


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        ("1.2", "1.2"),
        ("1.0,1.1,1.2", "1.2"),
        ("1.1, 1.2", "1.2"),
        ("1.1", None),
        ("", None),
        ("11.2", None),
        (None, None),
    ],
)
def test_version_negotiation(accept: str | None, version: str | None) -> None:
    assert negotiate_version(accept) == version
