"""The STOMP decoder: the points of STOMP 1.2 by name, limits, and what holds for every stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.stomp import (
    BODY_COMMANDS,
    COMMANDS,
    UNESCAPED_COMMANDS,
    Decoder,
    ErrorKind,
    Frame,
    Limits,
    StompError,
    encode,
    escape,
    unescape,
)

SUBSCRIBE = b"SUBSCRIBE\nid:s-1\ndestination:/topic/v1.channels.7.messages\n\n\0"


def decode(data: bytes, limits: Limits | None = None) -> list[Frame]:
    return Decoder(limits).feed(data)


def fail(data: bytes, limits: Limits | None = None) -> StompError:
    with pytest.raises(StompError) as caught:
        decode(data, limits)
    return caught.value


def test_a_frame() -> None:
    destination = "/topic/v1.channels.7.messages"
    assert decode(SUBSCRIBE) == [Frame("SUBSCRIBE", {"id": "s-1", "destination": destination})]


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [(r"\\", "\\"), (r"\c", ":"), (r"\n", "\n"), (r"\r", "\r"), (r"a\\nb\cc", "a\\nb:c")],
)
def test_escape_table(escaped: str, plain: str) -> None:
    assert decode(f"SEND\nx{escaped}:{escaped}\n\n\0".encode()) == [Frame("SEND", {f"x{plain}": plain})]
    assert escape(plain) == escaped
    assert unescape(escaped) == plain


@pytest.mark.parametrize("escape_sequence", [r"\t", r"\x", r"\C", "\\", r"a\\\b"])
def test_an_undefined_escape_is_fatal(escape_sequence: str) -> None:
    error = fail(f"SEND\nreceipt:r\\c1\nx:{escape_sequence}\n\n\0".encode())
    assert (error.kind, error.receipt) == (ErrorKind.MALFORMED, "r:1")


@pytest.mark.parametrize("command", sorted(UNESCAPED_COMMANDS))
def test_no_escaping_in_connect_and_connected(command: str) -> None:
    frames = decode(f"{command}\nStompX-User:a:b\\c\\x\n\n\0".encode())
    assert frames == [Frame(command, {"StompX-User": "a:b\\c\\x"})]


def test_a_colon_in_a_value_is_taken_everywhere() -> None:
    assert decode(b"SEND\ndestination:a:b\n\n\0") == [Frame("SEND", {"destination": "a:b"})]


def test_headers_are_never_trimmed() -> None:
    assert decode(b"SEND\n a : b \n\n\0") == [Frame("SEND", {" a ": " b "})]


def test_an_empty_value_is_a_value() -> None:
    assert decode(b"SEND\na:\n\n\0") == [Frame("SEND", {"a": ""})]


def test_the_first_repeated_header_wins() -> None:
    assert decode(b"SEND\na:1\nb:2\na:3\n\n\0") == [Frame("SEND", {"a": "1", "b": "2"})]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_only_send_message_and_error_have_bodies(command: str) -> None:
    for data in (f"{command}\nreceipt:r\n\nbody\0", f"{command}\nreceipt:r\ncontent-length:4\n\nbody\0"):
        if command in BODY_COMMANDS:
            assert decode(data.encode())[0].body == b"body"
        else:
            error = fail(data.encode())
            assert (error.kind, error.receipt) == (ErrorKind.MALFORMED, "r")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_content_length_of_zero_is_no_body(command: str) -> None:
    assert decode(f"{command}\ncontent-length:0\n\n\0".encode())[0].body == b""


def test_content_length_counts_octets_and_admits_nul() -> None:
    body = "ä\0\n\n\0b".encode()
    frame = f"SEND\ncontent-length:{len(body)}\n\n".encode() + body + b"\0"
    assert [found.body for found in decode(frame * 2)] == [body, body]


def test_without_content_length_the_body_ends_at_the_first_nul() -> None:
    assert [frame.body for frame in decode(b"SEND\n\n{}\n\n\0SEND\n\nb\0")] == [b"{}\n\n", b"b"]


@pytest.mark.parametrize("length", ["", "-1", "+1", " 4", "4 ", "0x4", "1_0", "four", "٤", "1" * 13])
def test_a_bad_content_length_is_malformed(length: str) -> None:
    error = fail(f"SEND\nreceipt:r\ncontent-length:{length}\n\nbody\0".encode())
    assert (error.kind, error.receipt) == (ErrorKind.MALFORMED, "r")


def test_a_body_longer_than_its_content_length_is_malformed() -> None:
    assert fail(b"SEND\nreceipt:r\ncontent-length:2\n\nbody\0").receipt == "r"


def test_headers_are_utf8() -> None:
    assert decode("SEND\nnäme:välue €\n\n\0".encode())[0].headers == {"näme": "välue €"}


@pytest.mark.parametrize("octets", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"])
def test_invalid_utf8_is_malformed(octets: bytes) -> None:
    assert fail(b"SEND\na:" + octets + b"\n\n\0").kind is ErrorKind.MALFORMED


def test_stomp_is_connect() -> None:
    assert [frame.command for frame in decode(b"STOMP\naccept-version:1.2\n\n\0")] == ["STOMP"]


def test_heart_beats_between_frames_are_consumed() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"\r\n\n" + SUBSCRIBE + b"\n\r\n" + SUBSCRIBE + b"\n") == decode(SUBSCRIBE) * 2
    assert decoder.buffered == 0


def test_line_ends_may_be_crlf_or_mixed() -> None:
    assert decode(b"SEND\r\na:1\r\nb:2\r\n\r\nx\n\ny\0") == [Frame("SEND", {"a": "1", "b": "2"}, b"x\n\ny")]
    assert decode(b"SEND\r\na:1\nb:2\r\n\nx\r\n\r\n\0") == [Frame("SEND", {"a": "1", "b": "2"}, b"x\r\n\r\n")]
    assert decode(b"SEND\na:1\n\r\n\nx\0") == [Frame("SEND", {"a": "1"}, b"\nx")]
    assert decode(b"SEND\na:1\n\r\nx\n\n\0") == [Frame("SEND", {"a": "1"}, b"x\n\n")]


def test_a_lone_carriage_return_is_malformed() -> None:
    for data in (b"\rSEND\n\n\0", b"SEND\na:\rb\n\n\0", b"SEND\na:b\r\r\n\n\0", b"\r\r\nSEND\n\n\0"):
        assert fail(data).kind is ErrorKind.MALFORMED


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"SEND\0",
        b"SEND\na:b\0\n\n\0",
        b"SEND\nno colon\n\n\0",
        b"SEND\n:no name\n\n\0",
        b"\0\0\n\n\0",
        b"send\n\n\0",
        b" SEND\n\n\0",
        b"SEND \n\n\0",
        b"HELLO\n\n\0",
        b'{"type":"json"}\n\n\0',
    ],
)
def test_malformed_frames(data: bytes) -> None:
    assert fail(data).kind is ErrorKind.MALFORMED


def test_an_error_names_the_receipt_wherever_it_stands() -> None:
    assert fail(b"SEND\nreceipt:r-1\nno colon\n\n\0").receipt == "r-1"
    assert fail(b"SEND\nno colon\nreceipt:r-1\n\n\0").receipt == "r-1"
    assert fail(b"HELLO\nreceipt:r-1\n\n\0").receipt == "r-1"
    assert fail(b"HELLO\nreceipt:undefined\n\n\0").receipt is None
    assert fail(b"HELLO\nreceipt:\\x\n\n\0").receipt is None


def test_an_error_carries_the_frames_before_it_and_the_decoder_stays_broken() -> None:
    decoder = Decoder()
    with pytest.raises(StompError) as caught:
        decoder.feed(SUBSCRIBE + b"HELLO\nreceipt:r\n\n\0" + SUBSCRIBE)
    assert caught.value.frames == tuple(decode(SUBSCRIBE))
    with pytest.raises(StompError) as again:
        decoder.feed(SUBSCRIBE)
    assert again.value.frames == ()
    assert (again.value.message, again.value.receipt) == (caught.value.message, "r")


@pytest.mark.parametrize("nothing", ["undefined", "null"])
def test_a_javascript_nothing_reads_as_absent(nothing: str) -> None:
    frame = decode(f"SUBSCRIBE\nid:1\ndestination:{nothing}\n\n\0".encode())[0]
    assert frame.header("destination") is None
    assert frame.header("missing") is None
    assert frame.header("id") == "1"
    assert frame.headers["destination"] == nothing


def test_limits_are_inclusive() -> None:
    limits = Limits(max_frame=60, max_headers=3, max_header_line=12, max_connect_header_line=20, max_body=8)
    fitting = [
        b"SEND\na:1\na:2\nc:3\n\n\0",
        b"SEND\na:" + b"x" * 10 + b"\n\n\0",
        b"CONNECT\na:" + b"x" * 18 + b"\n\n\0",
        b"SEND\n\n" + b"x" * 8 + b"\0",
    ]
    for data in fitting:
        assert len(decode(data, limits)) == 1
    passing = [
        b"SEND\na:1\na:2\nc:3\nd:4\n\n\0",
        b"SEND\na:" + b"x" * 11 + b"\n\n\0",
        b"CONNECT\na:" + b"x" * 19 + b"\n\n\0",
        b"SEND\n\n" + b"x" * 9 + b"\0",
        b"x" * 61,
    ]
    for data in passing:
        assert fail(data, limits).kind is ErrorKind.TOO_LARGE


def test_a_body_announced_too_large_is_refused_before_it_comes() -> None:
    error = fail(b"SEND\nreceipt:r\ncontent-length:9\n\n\0", Limits(max_body=8))
    assert (error.kind, error.receipt) == (ErrorKind.TOO_LARGE, "r")


def test_a_frame_that_grows_too_large_names_its_receipt() -> None:
    decoder = Decoder(Limits(max_frame=64))
    decoder.feed(b"SEND\nreceipt:r\n\n")
    with pytest.raises(StompError) as caught:
        for _ in range(8):
            decoder.feed(b"x" * 8)
    assert (caught.value.kind, caught.value.receipt) == (ErrorKind.TOO_LARGE, "r")


def test_connect_takes_auth_params_of_16_kib() -> None:
    value = "a" * 16 * 1024
    assert decode(f"CONNECT\nStompX-Auth-Params:{value}\n\n\0".encode())[0].headers == {"StompX-Auth-Params": value}
    assert fail(f"SEND\nStompX-Auth-Params:{value}\n\n\0".encode()).kind is ErrorKind.TOO_LARGE


def test_memory_is_bounded_while_a_frame_drips_in() -> None:
    limits = Limits(max_frame=1000, max_body=1000)
    for endless in (b"x", b"a:b\n", b"SEND\n\nx"):
        decoder = Decoder(limits)
        with pytest.raises(StompError) as caught:
            for _ in range(2000):
                decoder.feed(endless)
                assert decoder.buffered <= limits.max_frame
        assert caught.value.kind is ErrorKind.TOO_LARGE
        assert decoder.buffered == 0


def test_a_large_body_in_small_pieces_costs_linear_time() -> None:
    decoder = Decoder()
    body = bytes(range(1, 256)) * 4000
    data = f"SEND\ncontent-length:{len(body)}\n\n".encode() + body + b"\0"
    frames = [frame for at in range(0, len(data), 16) for frame in decoder.feed(data[at : at + 16])]
    assert [frame.body for frame in frames] == [body]


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_FRAMES = st.builds(
    lambda command, headers, body: (command, headers, body if command in BODY_COMMANDS else b""),
    st.sampled_from(sorted(COMMANDS - UNESCAPED_COMMANDS)),
    st.dictionaries(_TEXT.filter(bool).filter(lambda name: name != "content-length"), _TEXT, max_size=6),
    st.binary(max_size=60),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut at the given places."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


_CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(
    st.lists(_FRAMES, max_size=5),
    _CUTS,
    st.lists(st.sampled_from([b"", b"\n", b"\r\n"]), min_size=5, max_size=5),
)
def test_what_is_encoded_decodes_whatever_the_cuts(
    frames: list[tuple[str, dict[str, str], bytes]], cuts: list[int], between: list[bytes]
) -> None:
    data = b"".join(gap + encode(*frame) for gap, frame in zip(between, frames, strict=False))
    decoder = Decoder()
    decoded = [frame for piece in pieces(data, cuts) for frame in decoder.feed(piece)]
    assert len(decoded) == len(frames)
    for frame, (command, headers, body) in zip(decoded, frames, strict=True):
        frame.headers.pop("content-length", None)
        assert frame == Frame(command, headers, body)


def outcome(data: list[bytes], limits: Limits) -> tuple[list[Frame], bool]:
    decoder, frames = Decoder(limits), []
    try:
        for piece in data:
            frames += decoder.feed(piece)
            assert decoder.buffered <= limits.max_frame
    except StompError as error:
        return [*frames, *error.frames], True
    return frames, False


_WORDS = [b"SEND", b"CONNECT", b"ACK", b"\n", b"\n", b"\n\n", b"\r", b"\r\n", b"\0", b"\0", b":", b"\\", b"a", b"a:b"]
_WORDS += [b"content-length:", b"receipt:r", b"3", b"\xff", b"\xc3\xa4", b"SEND\n\n\0", b"x" * 40]
_NOISE = st.lists(st.sampled_from(_WORDS), max_size=40).map(b"".join)


@given(st.one_of(_NOISE, st.binary(max_size=200)), _CUTS)
def test_any_bytes_give_the_same_frames_or_the_documented_error_whatever_the_cuts(data: bytes, cuts: list[int]) -> None:
    limits = Limits(max_frame=120, max_headers=4, max_header_line=50, max_connect_header_line=60, max_body=60)
    assert outcome(pieces(data, cuts), limits) == outcome([data], limits)
