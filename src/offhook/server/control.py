"""What a supervisor and its workers tell each other, over a pair of sockets that each worker inherits one end of.

A line of JSON each: the supervisor begins with the worker's assignment, and the worker says once that it is ready, or
that it cannot be. After that nothing is said; but the end of the one is seen by the other, however it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from offhook.server.binding import Bound, listen_soon

_T = TypeVar("_T")

MAX_LINE: Final = 1024 * 1024
"""Bytes of one message."""


class Assignment(msgspec.Struct, frozen=True):
    """What a worker is to do.

    Attributes:
        slot: its place.
        sockets: what each inherited listening socket serves, and its file descriptor.
        payload: whatever else the program needs, such as its settings.
    """

    slot: int
    sockets: tuple[tuple[str, int], ...]
    payload: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker serves.

    Attributes:
        node: its name among the nodes of the system.
        urls: where it serves.
        announcement: what to tell whoever started all this.
    """

    node: str
    urls: tuple[str, ...]
    announcement: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot serve, and ends.

    Attributes:
        code: stable name of the kind of failure.
        message: one sentence for people.
        exit_code: what the process exits with.
    """

    code: str
    message: str
    exit_code: int


_encode = msgspec.json.Encoder().encode
_assignment = msgspec.json.Decoder(Assignment)
_report: msgspec.json.Decoder[Ready | Failed] = msgspec.json.Decoder(Ready | Failed)


def encode_assignment(assignment: Assignment) -> bytes:
    """As a line."""
    return _encode(assignment) + b"\n"


def decode_report(line: bytes) -> Ready | Failed:
    """Reads what a worker says.

    Raises:
        ValueError: it is nothing that workers say.
    """
    return _decode(_report, line)


class Link:
    """A worker's end.

    Args:
        descriptor: the inherited file descriptor.

    Raises:
        OSError: it is no socket.
        ValueError: what came is no assignment.
        EOFError: the supervisor ended before it said what to do.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        # Programs that the worker itself starts are not to keep anything open.
        self._socket.set_inheritable(False)
        self._socket.setblocking(True)
        line = bytearray()
        while not line.endswith(b"\n"):
            more = self._socket.recv(65536)
            if not more:
                raise EOFError("the supervisor is gone")
            line += more
        self.assignment = _decode(_assignment, bytes(line))

    def sockets(self) -> Sequence[Bound]:
        """The inherited listening sockets. Call once."""
        bound: list[Bound] = []
        for name, descriptor in self.assignment.sockets:
            sock = socket.socket(fileno=descriptor)
            sock.set_inheritable(False)
            sock.setblocking(False)
            listen_soon(sock)
            bound.append((name, sock))
        return tuple(bound)

    def report(self, report: Ready | Failed) -> None:
        """Tells the supervisor, if it is still there."""
        with contextlib.suppress(OSError):
            self._socket.sendall(_encode(report) + b"\n")

    async def lost(self) -> None:
        """Returns once the supervisor is gone."""
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(self._socket, 4096):
                pass


def _decode(decoder: msgspec.json.Decoder[_T], line: bytes) -> _T:
    try:
        return decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
