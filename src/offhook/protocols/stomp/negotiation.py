"""What CONNECT and CONNECTED agree on: the version and the heart-beats."""

from __future__ import annotations

from dataclasses import dataclass

from offhook.protocols.stomp.frames import StompError

VERSION = "1.2"
"""The only version spoken."""

_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class HeartBeat:
    """Who owes whom a sign of life. Milliseconds; 0 is none.

    Attributes:
        send_every_ms: the longest silence that the server may keep.
        expect_every_ms: the longest silence that the client promised to keep; allow it a generous tolerance.
    """

    send_every_ms: int
    expect_every_ms: int


def parse_heart_beat(value: str | None) -> tuple[int, int]:
    """Read a ``heart-beat`` header: what its sender can do, and what it wants, in milliseconds.

    Args:
        value: such as ``60000,10000``; None, an absent header, is ``0,0``.

    Raises:
        StompError: not two non-negative numbers.
    """
    if value is None:
        return 0, 0
    can, _, want = value.partition(",")
    for number in (can, want):
        if not (number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS):
            raise StompError("heart-beat is not two numbers of milliseconds")
    return int(can), int(want)


def negotiate(client: tuple[int, int], server: tuple[int, int]) -> HeartBeat:
    """Agree on the heart-beats (STOMP 1.2, "Heart-beating"): the slower of the two wishes, or none.

    Args:
        client: what the client's CONNECT says: it can send every so many ms, it wants one every so many ms.
        server: what CONNECTED says, in the same order.
    """
    return HeartBeat(_agree(server[0], client[1]), _agree(client[0], server[1]))


def negotiate_version(accept: str | None) -> str | None:
    """The version to speak, or None where there is no common one.

    Args:
        accept: the ``accept-version`` header; its absence means 1.0 (STOMP 1.2, "Protocol Negotiation").
    """
    if accept is not None and VERSION in [version.strip() for version in accept.split(",")]:
        return VERSION
    return None


def _agree(can: int, want: int) -> int:
    return max(can, want) if can and want else 0
