"""The cases of the Autobahn WebSocket test-suite, groups 1 to 7, 9 and 10, as scripts for a client.

A script says what to send and what must come back, in order. See README.md for where the list comes from and where
this transcription is stricter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.conformance.client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Received,
    close_payload,
    fragments,
    frame,
)
from tests.conformance.utf8 import GROUPS, KOSME

NORMAL, PROTOCOL_ERROR, NO_STATUS, INVALID_DATA = 1000, 1002, 1005, 1007

KIB, MIB = 1024, 1024 * 1024
MAX_MESSAGE = 16 * MIB

HELLO = b"Hello, world!"
NOT_UTF8 = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes, in pieces of ``chop`` bytes if given; 1 is Autobahn's "octet-wise"."""

    data: bytes
    chop: int = 0


@dataclass(frozen=True, slots=True)
class Expect:
    """The server's next frame."""

    opcode: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Silence:
    """The server is content and says nothing, where it cannot be asked with a ping."""


Step = Send | Expect | Silence


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        number: Autobahn's.
        script: makes the steps.
        closed_with: the close codes of which the server must use one, after the script.
        by_client: whether the client, satisfied, closes with 1000 first. If not, the server must fail the
            connection, or the script has a close frame.
    """

    number: str
    script: Callable[[], Iterator[Step]] = field(repr=False)
    closed_with: frozenset[int] = frozenset({NORMAL})
    by_client: bool = True


def all_cases() -> list[Case]:
    """Every case, in Autobahn's order."""
    return [
        *_echoes(),
        *_pings(),
        *_reserved_bits(),
        *_opcodes(),
        *_fragmentation(),
        *_utf8(),
        *_closes(),
        *_volumes(),
        _good("10.1.1", [Send(fragments(TEXT, b"*" * 65536, 1300)), Expect(TEXT, b"*" * 65536)]),
    ]


def _good(number: str, steps: list[Step]) -> Case:
    return Case(number, partial(iter, steps))


def _bad(number: str, steps: list[Step], *codes: int) -> Case:
    return Case(number, partial(iter, steps), frozenset(codes or {PROTOCOL_ERROR}), by_client=False)


def _echoes() -> Iterator[Case]:
    for group, opcode, octet in (("1.1", TEXT, b"*"), ("1.2", BINARY, b"\xfe")):
        sizes = ((0, 0), (125, 0), (126, 0), (127, 0), (128, 0), (65535, 0), (65536, 0), (65536, 997))
        for at, (size, chop) in enumerate(sizes, 1):
            payload = octet * size
            yield _good(f"{group}.{at}", [Send(frame(opcode, payload), chop), Expect(opcode, payload)])


def _pings() -> Iterator[Case]:
    longest = b"\xfe" * 125
    for at, payload in enumerate((b"", HELLO, NOT_UTF8, longest), 1):
        yield _good(f"2.{at}", [Send(frame(PING, payload)), Expect(PONG, payload)])
    yield _bad("2.5", [Send(frame(PING, b"\xfe" * 126))])
    yield _good("2.6", [Send(frame(PING, longest), 1), Expect(PONG, longest)])
    yield _good("2.7", [Send(frame(PONG))])
    unsolicited = frame(PONG, b"unsolicited pong payload")
    yield _good("2.8", [Send(unsolicited)])
    ping = b"ping payload"
    yield _good("2.9", [Send(unsolicited), Send(frame(PING, ping)), Expect(PONG, ping)])
    ten = [b"payload-%d" % at for at in range(10)]
    for number, chop in (("2.10", 0), ("2.11", 1)):
        asked: list[Step] = [Send(frame(PING, payload), chop) for payload in ten]
        yield _good(number, [*asked, *[Expect(PONG, payload) for payload in ten]])


def _reserved_bits() -> Iterator[Case]:
    hello, echo, ping = frame(TEXT, HELLO), Expect(TEXT, HELLO), frame(PING)
    yield _bad("3.1", [Send(frame(TEXT, HELLO, rsv=1))])
    yield _bad("3.2", [Send(hello + frame(TEXT, HELLO, rsv=2) + ping), echo])
    yield _bad("3.3", [Send(hello), Send(frame(TEXT, HELLO, rsv=3)), Send(ping), echo])
    yield _bad("3.4", [Send(hello + frame(TEXT, HELLO, rsv=4) + ping, 1), echo])
    yield _bad("3.5", [Send(frame(BINARY, NOT_UTF8, rsv=5))])
    yield _bad("3.6", [Send(frame(BINARY, HELLO, rsv=6))])
    yield _bad("3.7", [Send(frame(CLOSE, rsv=7))])


def _opcodes() -> Iterator[Case]:
    hello, echo, ping = frame(TEXT, HELLO), Expect(TEXT, HELLO), frame(PING)
    for group, first in (("4.1", 3), ("4.2", 11)):
        yield _bad(f"{group}.1", [Send(frame(first))])
        yield _bad(f"{group}.2", [Send(frame(first + 1, b"reserved opcode payload"))])
        yield _bad(f"{group}.3", [Send(hello + frame(first + 2) + ping), echo])
        yield _bad(f"{group}.4", [Send(hello + frame(first + 3, HELLO) + ping), echo])
        yield _bad(f"{group}.5", [Send(hello + frame(first + 4, HELLO) + ping, 1), echo])


def _sent_in_three_ways(frames: list[bytes]) -> list[list[Step]]:
    """In one piece, frame by frame, and octet by octet."""
    whole = b"".join(frames)
    return [[Send(whole)], [Send(piece) for piece in frames], [Send(whole, 1)]]


def _fragmentation() -> Iterator[Case]:
    one, two = b"fragment1", b"fragment2"
    start, end = frame(TEXT, one, fin=False), frame(CONTINUATION, two)
    ping = frame(PING, b"ping payload")
    yield _bad("5.1", [Send(frame(PING, one, fin=False) + end)])
    yield _bad("5.2", [Send(frame(PONG, one, fin=False) + end)])
    for at, steps in enumerate(_sent_in_three_ways([start, end]), 3):
        yield _good(f"5.{at}", [*steps, Expect(TEXT, one + two)])
    for at, steps in enumerate(_sent_in_three_ways([start, ping, end]), 6):
        yield _good(f"5.{at}", [*steps, Expect(PONG, b"ping payload"), Expect(TEXT, one + two)])
    for first, fin in ((9, True), (12, False)):
        stray = frame(CONTINUATION, b"non-continuation payload", fin=fin)
        for at, steps in enumerate(_sent_in_three_ways([stray, frame(TEXT, HELLO)]), first):
            yield _bad(f"5.{at}", steps)
    rest = frame(CONTINUATION, b"fragment3", fin=False) + frame(TEXT, b"fragment4")
    yield _bad("5.15", [Send(start + end + rest), Expect(TEXT, one + two)])
    message = frame(TEXT, two, fin=False) + frame(CONTINUATION, b"fragment3")
    yield _bad("5.16", [Send((frame(CONTINUATION, one, fin=False) + message) * 2)])
    yield _bad("5.17", [Send((frame(CONTINUATION, one) + message) * 2)])
    yield _bad("5.18", [Send(start + frame(TEXT, two))])
    pieces = [b"fragment%d" % at for at in range(1, 6)]
    middle = [frame(CONTINUATION, piece, fin=False) for piece in pieces[1:4]]
    before = [start, middle[0], frame(PING, b"pongme 1!")]
    after = [middle[1], middle[2], frame(PING, b"pongme 2!"), frame(CONTINUATION, pieces[4])]
    answers: list[Step] = [Expect(PONG, b"pongme 2!"), Expect(TEXT, b"".join(pieces))]
    joined: list[Step] = [Send(b"".join(before)), Expect(PONG, b"pongme 1!"), Send(b"".join(after))]
    single: list[Step] = [*map(Send, before), Expect(PONG, b"pongme 1!"), *map(Send, after)]
    yield _good("5.19", [*joined, *answers])
    yield _good("5.20", [*single, *answers])


def _utf8() -> Iterator[Case]:
    empty = frame(CONTINUATION, fin=False)
    yield _good("6.1.1", [Send(frame(TEXT)), Expect(TEXT, b"")])
    nothing = frame(TEXT, fin=False) + empty + frame(CONTINUATION)
    yield _good("6.1.2", [Send(nothing), Expect(TEXT, b"")])
    payload = b"middle frame payload"
    middle = frame(TEXT, fin=False) + frame(CONTINUATION, payload, fin=False) + frame(CONTINUATION)
    yield _good("6.1.3", [Send(middle), Expect(TEXT, payload)])

    first, second = "Hello-µ@ßöä".encode(), "üàá-UTF-8!!".encode()
    text = first + second
    yield _good("6.2.1", [Send(frame(TEXT, text)), Expect(TEXT, text)])
    halves = frame(TEXT, first, fin=False) + frame(CONTINUATION, second)
    yield _good("6.2.2", [Send(halves), Expect(TEXT, text)])
    yield _good("6.2.3", [Send(fragments(TEXT, text, 1)), Expect(TEXT, text)])
    yield _good("6.2.4", [Send(fragments(TEXT, KOSME, 1)), Expect(TEXT, KOSME)])

    surrogate = KOSME + b"\xed\xa0\x80" + b"edited"
    yield _bad("6.3.1", [Send(frame(TEXT, surrogate))], INVALID_DATA)
    yield _bad("6.3.2", [Send(fragments(TEXT, surrogate, 1))], INVALID_DATA)

    beyond = KOSME + b"\xf4\x90\x80\x80" + b"edited"
    content: list[Step] = [Send(frame(PING, b"content?")), Expect(PONG, b"content?")]
    for number, good, bad in (("6.4.1", beyond[:11], beyond[11:15]), ("6.4.2", beyond[:12], beyond[12:13])):
        opening = Send(frame(TEXT, good, fin=False))
        # The last part, which would make it whole, is never sent: the failure must not wait for it.
        yield _bad(number, [opening, *content, Send(frame(CONTINUATION, bad, fin=False))], INVALID_DATA)
    whole = frame(TEXT, beyond)
    head = len(whole) - len(beyond)
    for number, good_end, bad_end in (("6.4.3", 11, 15), ("6.4.4", 12, 13)):
        opening, fatal = Send(whole[: head + good_end]), Send(whole[head + good_end : head + bad_end])
        yield _bad(number, [opening, Silence(), fatal], INVALID_DATA)

    for group, sequences in GROUPS:
        for at, (valid, sequence) in enumerate(sequences, 1):
            sent = Send(frame(TEXT, sequence))
            if valid:
                yield _good(f"{group}.{at}", [sent, Expect(TEXT, sequence)])
            else:
                yield _bad(f"{group}.{at}", [sent], INVALID_DATA)


def _closes() -> Iterator[Case]:
    hello, echo = frame(TEXT, b"Hello World!"), Expect(TEXT, b"Hello World!")
    normal = frame(CLOSE, close_payload(NORMAL))
    yield _good("7.1.1", [Send(hello), echo])
    yield _bad("7.1.2", [Send(normal + frame(CLOSE))], NORMAL)
    yield _bad("7.1.3", [Send(normal + frame(PING))], NORMAL)
    yield _bad("7.1.4", [Send(normal + hello)], NORMAL)
    start, end = frame(TEXT, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")
    yield _bad("7.1.5", [Send(start + normal + end)], NORMAL)
    large = _repeat(b"BAsd7&jh23", 256 * KIB)
    all_at_once = frame(TEXT, large) + hello + normal + frame(PING)
    yield _bad("7.1.6", [Send(all_at_once), Expect(TEXT, large), echo], NORMAL)

    def closing(number: str, payload: bytes, *codes: int) -> Case:
        return _bad(number, [Send(frame(CLOSE, payload))], *codes)

    yield closing("7.3.1", b"", NO_STATUS)
    yield closing("7.3.2", b"a", PROTOCOL_ERROR)
    yield closing("7.3.3", close_payload(NORMAL), NORMAL)
    yield closing("7.3.4", close_payload(NORMAL, b"Hello World!"), NORMAL)
    yield closing("7.3.5", close_payload(NORMAL, b"*" * 123), NORMAL)
    yield closing("7.3.6", close_payload(NORMAL, b"*" * 124), PROTOCOL_ERROR)
    yield closing("7.5.1", close_payload(NORMAL, KOSME + b"\xed\xa0\x80edited"), INVALID_DATA)
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for at, code in enumerate(valid, 1):
        yield closing(f"7.7.{at}", close_payload(code), code)
    for at, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield closing(f"7.9.{at}", close_payload(code), PROTOCOL_ERROR)
    yield closing("7.13.1", close_payload(5000), PROTOCOL_ERROR)
    yield closing("7.13.2", close_payload(65535), PROTOCOL_ERROR)


def _volumes() -> Iterator[Case]:
    text, binary = (TEXT, b"BAsd7&jh23"), (BINARY, b"\x00\xfe\x23\xfa\xf0")
    whole = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB)
    for group, (opcode, pattern) in (("9.1", text), ("9.2", binary)):
        for at, size in enumerate(whole, 1):
            yield Case(f"{group}.{at}", partial(_volume, opcode, pattern, size))
    pieces = (64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB)
    for group, opcode, octet in (("9.3", TEXT, b"*"), ("9.4", BINARY, b"\xfe")):
        for at, piece in enumerate(pieces, 1):
            yield Case(f"{group}.{at}", partial(_volume, opcode, octet, 4 * MIB, piece=piece))
    for group, (opcode, pattern) in (("9.5", text), ("9.6", binary)):
        for at, chop in enumerate((64, 128, 256, 512, 1024, 2048), 1):
            yield Case(f"{group}.{at}", partial(_volume, opcode, pattern, MIB, chop=chop))
    for group, opcode, octet in (("9.7", TEXT, b"*"), ("9.8", BINARY, b"\xfe")):
        for at, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            yield Case(f"{group}.{at}", partial(_round_trips, opcode, octet * size))


def _volume(opcode: int, pattern: bytes, size: int, piece: int = 0, chop: int = 0) -> Iterator[Step]:
    """One large message: in one frame, in frames of ``piece`` bytes, or written in pieces of ``chop`` bytes."""
    payload = _repeat(pattern, size)
    yield Send(fragments(opcode, payload, piece) if piece else frame(opcode, payload), chop)
    yield Expect(opcode, payload)


def _round_trips(opcode: int, payload: bytes) -> Iterator[Step]:
    """A thousand messages, each sent when the one before has come back."""
    sent, echo = Send(frame(opcode, payload)), Expect(opcode, payload)
    for _ in range(1000):
        yield sent
        yield echo


def _repeat(pattern: bytes, size: int) -> bytes:
    return (pattern * (size // len(pattern) + 1))[:size]


def expected(step: Expect) -> Received:
    """The frame that a step waits for."""
    return Received(step.opcode, step.payload)
