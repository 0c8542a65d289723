"""WebSocket frames: what the conformance cases leave out, and wsproto as a second opinion."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from offhook.protocols.websocket import (
    Close,
    Event,
    Message,
    Ping,
    Pong,
    ProtocolViolation,
    Receiver,
    encode_binary,
    encode_close,
    encode_ping,
    encode_pong,
    encode_text,
    text_header,
)

LIMIT = 1000


def receive(*pieces: bytes, limit: int = LIMIT) -> tuple[list[Event], int | None]:
    """The events of a stream, and the close code of the violation that ended it."""
    receiver = Receiver(limit)
    events: list[Event] = []
    for piece in pieces:
        try:
            events += receiver.feed(piece)
        except ProtocolViolation as violation:
            return [*events, *violation.events], violation.close_code
        assert receiver.buffered <= limit + 131
    return events, None


def test_several_messages_in_one_read() -> None:
    data = frame(TEXT, b"a") + frame(BINARY, b"\xff" * 200) + frame(PING, b"p") + frame(TEXT, "ä".encode())
    assert receive(data) == (
        [Message(b"a", True), Message(b"\xff" * 200, False), Ping(b"p"), Message("ä".encode(), True)],
        None,
    )


def test_an_idle_receiver_holds_nothing() -> None:
    receiver = Receiver(LIMIT)
    receiver.feed(frame(TEXT, b"x" * 500)[:300])
    assert receiver.buffered == 300 - 8
    receiver.feed(frame(TEXT, b"x" * 500)[300:])
    assert receiver.buffered == 0


@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01", b"\x01\0\0\0"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 125, 126, 257])
def test_every_masking_key_and_length(key: bytes, size: int) -> None:
    payload = bytes(at % 256 for at in range(size))
    data = frame(BINARY, payload, key=key)
    assert receive(data) == ([Message(payload, False)], None)
    assert receive(*[data[at : at + 1] for at in range(len(data))]) == ([Message(payload, False)], None)


def test_an_unmasked_frame_is_refused_at_its_second_byte() -> None:
    assert receive(frame(TEXT, key=None)) == ([], 1002)
    assert receive(b"\x81\x05") == ([], 1002)


@pytest.mark.parametrize(
    "header",
    [
        b"\x81\xfe\x00\x7d",  # 125 in two bytes
        b"\x82\xff" + (65535).to_bytes(8, "big"),
        b"\x82\xff" + (1 << 63).to_bytes(8, "big"),
    ],
)
def test_lengths_must_be_minimal_and_positive(header: bytes) -> None:
    assert receive(header + b"\0\0\0\0", limit=1 << 64) == ([], 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_limit_is_inclusive_and_counts_fragments_together(opcode: int) -> None:
    text = opcode == TEXT
    payload = b"x" * LIMIT
    assert receive(frame(opcode, payload)) == ([Message(payload, text)], None)
    assert receive(frame(opcode, payload + b"x")) == ([], 1009)
    halves = frame(opcode, payload[:600], fin=False) + frame(CONTINUATION, payload[600:])
    assert receive(halves) == ([Message(payload, text)], None)
    assert receive(frame(opcode, payload, fin=False) + frame(CONTINUATION, b"x")) == ([], 1009)
    assert receive(frame(opcode, payload, fin=False) + frame(PING, b"x" * 125)) == ([Ping(b"x" * 125)], None)


def test_a_message_announced_too_large_is_refused_before_it_comes() -> None:
    assert receive(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0") == ([], 1009)


def test_events_before_a_violation_are_kept() -> None:
    assert receive(frame(TEXT, b"a") + frame(3)) == ([Message(b"a", True)], 1002)


def test_nothing_comes_after_a_close_or_a_violation() -> None:
    receiver = Receiver(LIMIT)
    assert receiver.feed(frame(CLOSE, close_payload(1001, b"bye")) + frame(TEXT, b"a")) == [Close(1001, "bye")]
    assert receiver.feed(frame(TEXT, b"a")) == []
    receiver = Receiver(LIMIT)
    with pytest.raises(ProtocolViolation):
        receiver.feed(frame(3))
    assert receiver.feed(frame(TEXT, b"a")) == []


@pytest.mark.parametrize("code", [1012, 1013, 1014, 3000, 4999])
def test_registered_and_private_close_codes(code: int) -> None:
    assert receive(frame(CLOSE, close_payload(code))) == ([Close(code, "")], None)


@pytest.mark.parametrize(
    "start", [b"\xff", b"\xc0", b"\xe0\x80", b"\xed\xa0", b"\xf0\x8f", b"\xf4\x90", b"\xf5", b"a\xe2\x82a"]
)
def test_text_fails_at_the_first_byte_that_cannot_be_mended(start: bytes) -> None:
    whole = frame(TEXT, start + b"\x80\x80\x80")
    assert receive(whole[: 6 + len(start) - 1], b"")[1] is None
    assert receive(whole[: 6 + len(start)]) == ([], 1007)
    assert receive(frame(TEXT, start, fin=False)) == ([], 1007)


def test_text_that_ends_within_a_character_is_invalid() -> None:
    assert receive(frame(TEXT, b"\xe2\x82")) == ([], 1007)
    assert receive(frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION)) == ([], 1007)


def test_binary_is_not_validated() -> None:
    assert receive(frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xfe")) == (
        [Message(b"\xff\xfe", False)],
        None,
    )


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_what_is_sent_is_what_wsproto_reads(size: int) -> None:
    payload = b"x" * size
    assert text_header(size) + payload == encode_text(payload)
    for data, opcode in ((encode_text(payload), Opcode.TEXT), (encode_binary(payload), Opcode.BINARY)):
        assert wsproto_frames(data) == [(opcode, payload)]


def test_control_frames_are_what_wsproto_reads() -> None:
    data = encode_ping(b"a") + encode_ping() + encode_pong(b"b" * 125)
    assert wsproto_frames(data) == [(Opcode.PING, b"a"), (Opcode.PING, b""), (Opcode.PONG, b"b" * 125)]
    for encode in (encode_ping, encode_pong):
        with pytest.raises(ValueError, match="125"):
            encode(b"x" * 126)


def test_close_frames() -> None:
    assert encode_close(1005) == b"\x88\x00"
    assert encode_close(1000, "bye") == b"\x88\x05\x03\xe8bye"
    assert encode_close(4000, "€" * 50) == b"\x88\x7d\x0f\xa0" + "€".encode() * 41


def octets(payload: object) -> bytes:
    """What wsproto gives as text or any kind of bytes."""
    if isinstance(payload, str):
        return payload.encode()
    assert isinstance(payload, bytes | bytearray)
    return bytes(payload)


def wsproto_frames(data: bytes) -> list[tuple[Opcode, bytes]]:
    """Unfragmented frames of a server, as wsproto reads them."""
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(data)
    return [(received.opcode, octets(received.payload)) for received in protocol.received_frames()]


def wsproto_receive(data: bytes) -> tuple[list[Event], int | None]:
    """The same as :func:`receive`, by wsproto."""
    protocol = FrameProtocol(client=False, extensions=[])
    protocol.receive_bytes(data)
    events: list[Event] = []
    message = b""
    try:
        for received in protocol.received_frames():
            payload = received.payload
            if isinstance(payload, tuple):
                code, reason = payload
                return [*events, Close(int(code), reason or "")], None
            if received.opcode is Opcode.PING:
                events.append(Ping(octets(payload)))
            elif received.opcode is Opcode.PONG:
                events.append(Pong(octets(payload)))
            else:
                message += octets(payload)
                if received.message_finished:
                    events.append(Message(message, isinstance(payload, str)))
                    message = b""
    except ParseFailed as failure:
        return events, int(failure.code)
    return events, None


_PAYLOADS = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(lambda text: text.encode(errors="ignore")),
    st.sampled_from([b"", b"\xe2", b"\x82\xac", "€".encode(), b"\xf0\x9f", b"\x98\x80", b"x" * 130, b"\x03\xe8"]),
)
_GOOD_FRAMES = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG, CLOSE]),
    _PAYLOADS,
    fin=st.booleans(),
    key=st.binary(min_size=4, max_size=4),
)
_ODD_FRAMES = st.builds(
    frame,
    st.integers(0, 15),
    _PAYLOADS,
    fin=st.booleans(),
    rsv=st.integers(0, 7),
    key=st.none() | st.binary(min_size=4, max_size=4),
)
_MESSAGES = st.builds(
    lambda opcode, parts, between: b"".join(
        frame(CONTINUATION if at else opcode, part, fin=at == len(parts) - 1) + (between if at == 0 else b"")
        for at, part in enumerate(parts)
    ),
    st.sampled_from([TEXT, BINARY]),
    st.lists(st.text(max_size=10).map(lambda text: text.encode(errors="ignore")), min_size=1, max_size=4),
    st.sampled_from([b"", frame(PING, b"between")]),
)


@settings(max_examples=300)
@given(
    st.lists(st.one_of(_MESSAGES, _MESSAGES, _GOOD_FRAMES, _ODD_FRAMES), max_size=6).map(b"".join),
    st.lists(st.integers(0, 10_000), max_size=10),
)
def test_wsproto_agrees_whatever_the_cuts(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    expected = wsproto_receive(data)
    assert receive(data, limit=100_000) == expected
    assert receive(*pieces, limit=100_000) == expected


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_bytes_give_events_or_the_documented_error(pieces: list[bytes]) -> None:
    events, code = receive(*pieces, limit=64)
    assert code in (None, 1002, 1007, 1009)
    assert all(len(event.data) <= 64 for event in events if isinstance(event, Message))
