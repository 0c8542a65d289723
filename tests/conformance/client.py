"""A WebSocket client for tests that says exactly what it is told, right or wrong, and reads what comes back."""

from __future__ import annotations

import base64
import socket
import ssl
import struct
from dataclasses import dataclass
from types import TracebackType

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = b"\x37\xfa\x21\x3d"
"""Every frame is masked with the example key of RFC 6455 section 5.7, so that a failure repeats."""

TIMEOUT = 20.0
"""Seconds until a server that does not answer fails the test."""


@dataclass(frozen=True, slots=True)
class Received:
    """A frame from the server."""

    opcode: int
    payload: bytes


def mask(payload: bytes, key: bytes = KEY) -> bytes:
    """XOR with the repeated key."""
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes | None = KEY) -> bytes:
    """A client's frame; ``key`` None leaves it unmasked, which is wrong."""
    size = len(payload)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    masked = 0x80 if key else 0
    if size < 126:
        head = bytes((first, masked | size))
    elif size < 65536:
        head = bytes((first, masked | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, masked | 127)) + size.to_bytes(8, "big")
    return head + key + mask(payload, key) if key else head + payload


def fragments(opcode: int, payload: bytes, size: int) -> bytes:
    """One message in frames of ``size`` bytes; as in Autobahn, the last of them is never empty."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    last = len(pieces) - 1
    return b"".join([frame(CONTINUATION if at else opcode, piece, fin=at == last) for at, piece in enumerate(pieces)])


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close frame."""
    return code.to_bytes(2, "big") + reason


class Client:
    """One connection over a blocking loopback socket. Use as a context manager.

    Args:
        port: the server's on 127.0.0.1.
        path: the request target.
        headers: further header lines.
        tls: speaks TLS if given, to the host ``localhost``.
    """

    def __init__(
        self, port: int, path: str = "/", headers: tuple[str, ...] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._buffer = bytearray()
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(bytes(range(16))).decode()}",
            "Sec-WebSocket-Version: 13",
            *headers,
        )
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.response = self._read_head()
        """The head of the server's answer."""

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes, chop: int = 0) -> None:
        """Write bytes, in pieces of ``chop`` bytes if it is given.

        A server that has failed the connection may have dropped it: what cannot be written is lost then, and the
        reading side tells what the server said.
        """
        try:
            if not chop:
                self._socket.sendall(data)
                return
            for at in range(0, len(data), chop):
                self._socket.sendall(data[at : at + chop])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self) -> Received | None:
        """The server's next frame, or None at the end of the stream.

        Raises:
            AssertionError: the frame is masked, fragmented, or has a reserved bit.
            ConnectionResetError: the server reset the connection.
            TimeoutError: nothing came.
        """
        head = self._read(2)
        if not head:
            return None
        first, size = head[0], head[1]
        assert first & 0x80, "the server fragmented a message"
        assert not first & 0x70, "the server set a reserved bit"
        assert size < 0x80, "the server masked a frame"
        if size == 126:
            size = int.from_bytes(self._read(2), "big")
        elif size == 127:
            size = int.from_bytes(self._read(8), "big")
        return Received(first & 0x0F, self._read(size))

    def reset(self) -> None:
        """Drop the connection by a TCP reset, as a crashed or vanished peer would."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def finish(self) -> None:
        """End the stream without a close frame."""
        self._socket.shutdown(socket.SHUT_WR)

    def expect_silence(self, seconds: float) -> None:
        """Assert that nothing comes for so long."""
        assert not self._buffer
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(4096)
        except TimeoutError:
            return
        finally:
            self._socket.settimeout(TIMEOUT)
        raise AssertionError(f"the server answered too early: {data!r}")

    def _read_head(self) -> str:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            data = self._socket.recv(4096)
            assert data, f"the connection ended after {bytes(self._buffer)!r}"
            self._buffer += data
        head = bytes(self._buffer[:end]).decode("latin-1")
        del self._buffer[: end + 4]
        return head

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self._socket.recv(max(65536, size - len(self._buffer)))
            if not data:
                assert not self._buffer, "the stream ended within a frame"
                return b""
            self._buffer += data
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data
