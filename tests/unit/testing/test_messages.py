"""Messages of a server are doubled or dropped whole, however their bytes are cut."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols import websocket
from offhook.testing.messages import Fate, ServerMessages

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def frame(first: int, payload: bytes) -> bytes:
    """An unmasked frame."""
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    if len(payload) < 65536:
        return bytes((first, 126)) + len(payload).to_bytes(2, "big") + payload
    return bytes((first, 127)) + len(payload).to_bytes(8, "big") + payload


def through(messages: ServerMessages, data: bytes, cuts: list[int] | None = None) -> bytes:
    """What comes out when the data is fed in pieces of these sizes, then whole."""
    out, at = b"", 0
    for size in cuts or []:
        out += messages.feed(data[at : at + size])
        at += size
    return out + messages.feed(data[at:])


def passing(fate: Fate) -> ServerMessages:
    messages = ServerMessages()
    messages.fate = fate
    return messages


SIZES = st.sampled_from([0, 1, 125, 126, 300, 65535, 65536])


@given(sizes=st.lists(SIZES, max_size=4), cuts=st.lists(st.integers(1, 200), max_size=60))
def test_text_is_doubled_wherever_it_is_cut(sizes: list[int], cuts: list[int]) -> None:
    texts = [frame(0x81, os.urandom(size)) for size in sizes]
    ping = frame(0x89, b"alive")
    binary = frame(0x82, b"\x00\x01")
    out = through(passing(Fate.DOUBLE), HEAD + ping + b"".join(texts) + binary, cuts)
    assert out == HEAD + ping + b"".join(text * 2 for text in texts) + binary


@given(sizes=st.lists(SIZES, max_size=4), cuts=st.lists(st.integers(1, 200), max_size=60))
def test_text_is_dropped_wherever_it_is_cut(sizes: list[int], cuts: list[int]) -> None:
    ping = frame(0x89, b"alive")
    data = HEAD + b"".join(frame(0x81, os.urandom(size)) + ping for size in sizes)
    assert through(passing(Fate.DROP), data, cuts) == HEAD + ping * len(sizes)


@given(cuts=st.lists(st.integers(1, 9), max_size=60), fate=st.sampled_from(Fate))
def test_bytes_pass_as_they_come(cuts: list[int], fate: Fate) -> None:
    """Nothing is held back that is not dropped: what has come of a frame beyond its header has left, too."""
    messages = passing(Fate.PASS if fate is Fate.DROP else fate)
    data = HEAD + frame(0x81, b"x" * 1000)
    at, came = 0, 0
    for size in cuts:
        came += len(messages.feed(data[at : at + size]))
        at += size
        assert at - came < 4


def test_fragments_are_doubled_as_one_message() -> None:
    first, middle, last = frame(0x01, b"one "), frame(0x00, b"two "), frame(0x80, b"three")
    ping = frame(0x89, b"")
    out = through(passing(Fate.DOUBLE), HEAD + first + ping + middle + last + ping)
    assert out == HEAD + first + ping + middle + last + first + middle + last + ping


def test_fragments_are_dropped_and_control_frames_between_them_are_not() -> None:
    fragments = frame(0x01, b"one") + frame(0x8A, b"pong") + frame(0x80, b"two")
    assert through(passing(Fate.DROP), HEAD + fragments) == HEAD + frame(0x8A, b"pong")


def test_a_message_that_has_begun_keeps_its_fate() -> None:
    messages = passing(Fate.PASS)
    begin, end, text = frame(0x01, b"one"), frame(0x80, b"two"), frame(0x81, b"three")
    assert messages.feed(HEAD + begin) == HEAD + begin
    messages.fate = Fate.DOUBLE
    assert messages.feed(end + text) == end + text + text
    messages.fate = Fate.PASS
    assert messages.feed(text) == text


def test_compressed_text_passes_once() -> None:
    assert through(passing(Fate.DOUBLE), HEAD + frame(0xC1, b"deflated")) == HEAD + frame(0xC1, b"deflated")


def test_what_is_no_websocket_passes() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + frame(0x81, b"no")
    for fate in Fate:
        assert through(passing(fate), answer, [1] * len(answer)) == answer


def test_an_endless_head_passes_and_is_not_kept() -> None:
    messages = passing(Fate.DROP)
    data = b"HTTP/1.1 101 " + b"x" * 100_000
    assert messages.feed(data) == data
    assert messages.feed(b"\r\n\r\n" + frame(0x81, b"no")) == b"\r\n\r\n" + frame(0x81, b"no")


def test_frames_of_the_server_itself_are_understood() -> None:
    said = [websocket.encode_text(b"hello"), websocket.encode_ping(b"p"), websocket.encode_text(b"y" * 70_000)]
    out = through(passing(Fate.DOUBLE), HEAD + b"".join(said))
    assert out == HEAD + said[0] * 2 + said[1] + said[2] * 2
