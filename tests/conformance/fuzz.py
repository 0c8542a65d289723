"""Fuzzing of the codecs: whatever comes in, they answer it or refuse it with their documented exception.

``python -m tests.conformance.fuzz --seconds 120`` runs each target for so long; the test-suite runs each for a few
seconds. A failure prints the seed and the round that repeat it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable

from tests.conformance.client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame

from offhook.protocols import sockjs, stomp, websocket

SLOWEST = 2.0
"""Seconds that one input of at most some hundred kilobytes may take; it takes milliseconds."""

STOMP_LIMITS = stomp.Limits(
    max_frame=4096, max_headers=16, max_header_line=256, max_connect_header_line=512, max_body=2048
)
SOCKJS_LIMITS = sockjs.Limits(max_body=4096, max_messages=64)
MAX_MESSAGE = 4096
MAX_CONTROL_FRAME = 131

_STOMP_WORDS = [
    *[command.encode() for command in sorted(stomp.COMMANDS)],
    *[b"\n", b"\r\n", b"\r", b"\0", b":", b"\\", b"\\c", b"\\n", b"\\x", b"\n\n", b"\n\n\0", b"\xff", "ä€".encode()],
    *[b"content-length:", b"content-length:5\n", b"content-length:99999999999999\n", b"receipt:r-1\n"],
    *[b"destination:/topic/a\n", b"id:1\n", b"x" * 300, b'{"type":"a"}', b"undefined"],
]
_SOCKJS_WORDS = [
    b"[",
    b"]",
    b",",
    b'"',
    b"\\",
    b'"a"',
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"{",
    b"}",
    b"null",
    b"1e999",
]
_SOCKJS_WORDS += [b" ", b"\xff", "ä€".encode(), b"a" * 200, b'["a","b"]', b"true", b"-", b"[" * 500]


def fuzz_stomp(rng: random.Random) -> None:
    """One random stream of frames and noise, randomly cut."""
    data = _mutate(rng, b"".join(_stomp_parts(rng)))
    decoder = stomp.Decoder(STOMP_LIMITS)
    try:
        for piece in _cut(rng, data):
            for found in decoder.feed(piece):
                assert found.command in stomp.COMMANDS
                assert len(found.body) <= STOMP_LIMITS.max_body
                assert len(found.headers) <= STOMP_LIMITS.max_headers
            assert decoder.buffered <= STOMP_LIMITS.max_frame
    except stomp.StompError as error:
        assert error.message
        assert decoder.buffered == 0


def fuzz_sockjs(rng: random.Random) -> None:
    """One random request body and one random path."""
    body = _mutate(rng, b"".join(rng.choices(_SOCKJS_WORDS, k=rng.randrange(30))))
    try:
        messages = sockjs.decode_messages(body, SOCKJS_LIMITS)
        assert len(messages) <= SOCKJS_LIMITS.max_messages
        assert sum(map(len, messages)) <= SOCKJS_LIMITS.max_body
        assert sockjs.decode_messages(sockjs.encode_messages(messages)[1:]) == messages
    except sockjs.SockJSError as error:
        assert error.message
    path = "".join(rng.choices(["/", "a", ".", "..", "xhr", "xhr_send", "websocket", "%2f", "\0"], k=rng.randrange(9)))
    try:
        address = sockjs.parse_path(path)
        assert path.removeprefix("/") == f"{address.server}/{address.session}/{address.transport}"
    except sockjs.SockJSError as error:
        assert error.message


def fuzz_websocket(rng: random.Random) -> None:
    """One random stream of frames and noise, randomly cut; and one random upgrade request."""
    data = _mutate(rng, b"".join(_websocket_parts(rng)))
    receiver = websocket.Receiver(MAX_MESSAGE)
    try:
        for piece in _cut(rng, data):
            for event in receiver.feed(piece):
                if isinstance(event, websocket.Message):
                    assert len(event.data) <= MAX_MESSAGE
                    assert not event.text or event.data.decode() is not None
            assert receiver.buffered <= MAX_MESSAGE + MAX_CONTROL_FRAME
    except websocket.ProtocolViolation as violation:
        assert violation.close_code in (1002, 1007, 1009)
        assert receiver.buffered == 0
    try:
        assert websocket.parse_request(_mutate(rng, _REQUEST)).version == 13
    except websocket.HandshakeError as error:
        assert error.status in (400, 405, 426, 505)


TARGETS: dict[str, Callable[[random.Random], None]] = {
    "stomp": fuzz_stomp,
    "sockjs": fuzz_sockjs,
    "websocket": fuzz_websocket,
}

_REQUEST = (
    b"GET /rtm?api-key=k HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def run(target: str, seconds: float, seed: int) -> int:
    """Fuzz one target.

    Args:
        target: a key of :data:`TARGETS`.
        seconds: when to stop.
        seed: round ``n`` depends on it and on ``n`` alone.

    Returns:
        The number of rounds.

    Raises:
        AssertionError: a round failed; the message tells how to repeat it.
    """
    fuzz, end, rounds = TARGETS[target], time.monotonic() + seconds, 0
    while (start := time.monotonic()) < end:
        try:
            fuzz(random.Random(f"{seed}-{rounds}"))
        except Exception as error:
            raise AssertionError(f"{target} failed: seed {seed}, round {rounds}") from error
        if (took := time.monotonic() - start) > SLOWEST:
            raise AssertionError(f"{target} took {took:.1f} s: seed {seed}, round {rounds}")
        rounds += 1
    return rounds


def _stomp_parts(rng: random.Random) -> Iterable[bytes]:
    for _ in range(rng.randrange(1, 12)):
        if rng.random() < 0.5:
            body = rng.randbytes(rng.choice((0, 3, 60, 2048, 3000))) if rng.random() < 0.5 else b""
            headers = {f"h{at}": "value:\n\\" * rng.randrange(4) for at in range(rng.choice((0, 3, 18)))}
            yield stomp.encode(rng.choice(("SEND", "SUBSCRIBE", "MESSAGE", "ACK")), headers, body)
        else:
            yield b"".join(rng.choices(_STOMP_WORDS, k=rng.randrange(12)))


def _websocket_parts(rng: random.Random) -> Iterable[bytes]:
    for _ in range(rng.randrange(1, 12)):
        opcode = rng.choice((TEXT, TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG, rng.randrange(16)))
        size = rng.choice((0, 1, 5, 125, 126, 300, 4096, 5000))
        payload = rng.choice((b"a" * size, rng.randbytes(size), "€".encode() * (size // 3), "ä€".encode()[: size % 5]))
        key = None if rng.random() < 0.02 else rng.randbytes(4)
        yield frame(opcode, payload, fin=rng.random() < 0.6, rsv=int(rng.random() < 0.02), key=key)
        if rng.random() < 0.05:
            yield frame(CLOSE, close_payload(rng.randrange(900, 5100), payload[:123]))


def _mutate(rng: random.Random, data: bytes) -> bytes:
    """Change nothing, or a few bytes."""
    if not data or rng.random() < 0.4:
        return data
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> Iterable[bytes]:
    """The data whole, octet by octet, or in random pieces."""
    if not data:
        return
    longest = rng.choice((1, 7, 200, len(data)))
    at = 0
    while at < len(data):
        size = rng.randrange(1, longest + 1)
        yield data[at : at + size]
        at += size


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fuzz the codecs.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="default: all")
    options = parser.parse_args()
    for target in options.target or sorted(TARGETS):
        rounds = run(target, options.seconds, options.seed)
        print(f"{target}: {rounds} rounds in {options.seconds:g} s, seed {options.seed}, nothing found")


if __name__ == "__main__":
    main()
