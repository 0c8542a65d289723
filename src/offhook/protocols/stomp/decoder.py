"""Bytes to STOMP 1.2 frames, whatever the cuts between the pieces in which they arrive."""

from __future__ import annotations

import re

from offhook.protocols.stomp.frames import (
    BODY_COMMANDS,
    COMMANDS,
    UNESCAPED_COMMANDS,
    ErrorKind,
    Frame,
    Limits,
    StompError,
    unescape,
)

_EOL = b"\r\n"
_EOLS = re.compile(rb"(?:\r?\n)*")
_MAX_LENGTH_DIGITS = 12


class Decoder:
    """Decodes one connection's stream of frames.

    Heart-beats (EOLs between frames) are consumed silently. LF and CRLF line ends are taken; a NUL or a lone
    CR in the command or a header is refused, although the grammar leaves the NUL open: a frame that lost its
    blank line would else swallow the next one. Memory is bounded by ``limits.max_frame`` plus the piece fed.

    Args:
        limits: what a frame may measure.
    """

    __slots__ = ("_failure", "_frame", "_length", "_limits", "_pending", "_scanned")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._pending: bytearray | None = None
        self._scanned = 0  # so many bytes at the start of pending hold no NUL
        self._frame: Frame | None = None  # its head is read, its body of _length bytes is not here yet
        self._length = 0
        self._failure: StompError | None = None

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not whole yet."""
        return len(self._pending or b"")

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next piece of the stream.

        Args:
            data: any number of bytes, cut anywhere.

        Returns:
            The frames that became whole, in order.

        Raises:
            StompError: the stream is broken; its ``frames`` came before. Every later call raises too.
        """
        if self._failure is not None:
            failure = self._failure
            raise StompError(failure.message, failure.kind, failure.receipt)
        frames: list[Frame] = []
        pending = self._pending
        if pending is not None:
            pending += data
        buffer = data if pending is None else pending
        try:
            position = self._scan(buffer, frames)
        except StompError as error:
            error.frames = tuple(frames)
            self._failure = error
            self._pending = self._frame = None
            raise
        if position == len(buffer):
            self._pending = None
        elif pending is None:
            self._pending = bytearray(data[position:])
        else:
            del pending[:position]
        return frames

    def _scan(self, buffer: bytes | bytearray, frames: list[Frame]) -> int:
        """Append the whole frames in the buffer to ``frames``; return how far they, and read heads, reach."""
        position, size = 0, len(buffer)
        while position < size:
            frame = self._frame
            if frame is None:
                first = buffer[position]
                if first in _EOL and (eols := _EOLS.match(buffer, position)):
                    position = eols.end()
                    if position == size:
                        break
                # Every frame ends in a NUL and none has one before its body: this bounds the search of each
                # head to its own frame, so that the cost of many frames in one buffer stays linear.
                nul = buffer.find(0, self._scanned or position)
                if nul < 0:
                    if size - position > self._limits.max_frame:
                        raise self._too_long(buffer, position)
                    self._scanned = size - position
                    break
                self._scanned = 0
                frame, start = self._read_head(buffer, position, nul)
                end = nul
                if nul > start or "content-length" in frame.headers:
                    end = self._end_of_body(frame, start, nul)
                if end - start > self._limits.max_body or end - position > self._limits.max_frame:
                    raise StompError("The frame is too large", ErrorKind.TOO_LARGE, frame.header("receipt"))
            else:
                start, end = position, position + self._length
            if end >= size:
                self._frame, self._length = frame, end - start
                return start
            if buffer[end]:
                raise StompError("The body is longer than its content-length", receipt=frame.header("receipt"))
            if end > start:
                frame.body = bytes(buffer[start:end])
            frames.append(frame)
            self._frame = None
            position = end + 1
        return position

    def _read_head(self, buffer: bytes | bytearray, position: int, limit: int) -> tuple[Frame, int]:
        """Read the command and the headers at ``position``; return them and where the body begins."""
        end = buffer.find(b"\n\n", position, limit)
        head, start = buffer[position : limit if end < 0 else end], end + 2
        if end < 0 or b"\r" in head:
            head, start = _split_crlf(buffer, position, limit, end)
        try:
            text = head.decode()
        except UnicodeDecodeError:
            raise StompError("The command or a header is not valid UTF-8") from None
        if "\r" in text:
            text = (text + "\n").replace("\r\n", "\n")[:-1]
        limits = self._limits
        lines = text.split("\n", limits.max_headers + 1)
        if len(lines) > limits.max_headers + 1:
            raise StompError("The frame has too many headers", ErrorKind.TOO_LARGE, _receipt(lines))
        if len(head) > limits.max_header_line:
            self._check_lines(head, lines)
        if "\r" in text:
            raise StompError("A carriage return in a header must be escaped", receipt=_receipt(lines))
        command = lines[0]
        escaped = "\\" in text and command not in UNESCAPED_COMMANDS
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name:
                raise StompError("A header has no name or no colon", receipt=_receipt(lines))
            if escaped:
                name, value = _unescape(name, lines), _unescape(value, lines)
            if name not in headers:
                headers[name] = value
        if command not in COMMANDS:
            raise StompError(f"Unknown command {command[:32]!r}", receipt=_receipt(lines))
        return Frame(command, headers), start

    def _check_lines(self, head: bytes | bytearray, lines: list[str]) -> None:
        limits = self._limits
        connecting = lines[0] in UNESCAPED_COMMANDS
        longest = limits.max_connect_header_line if connecting else limits.max_header_line
        if max(map(len, head.split(b"\n"))) > longest:
            raise StompError("A header is too long", ErrorKind.TOO_LARGE, _receipt(lines))

    def _end_of_body(self, frame: Frame, start: int, nul: int) -> int:
        """Where the frame's NUL is, or must come: by ``content-length``, else the first NUL."""
        end, text = nul, frame.headers.get("content-length")
        if text is not None:
            if not (text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS):
                raise StompError("content-length is not a number of octets", receipt=frame.header("receipt"))
            end = start + int(text)
        if end > start and frame.command not in BODY_COMMANDS:
            message = f"A {frame.command} frame cannot have a body"
            raise StompError(message, receipt=frame.header("receipt"))
        return end

    def _too_long(self, buffer: bytes | bytearray, position: int) -> StompError:
        """The error for a frame that is over the limit before its NUL has come."""
        receipt = None
        try:
            frame, _ = self._read_head(buffer, position, len(buffer))
            receipt = frame.header("receipt")
        except StompError as error:
            receipt = error.receipt
        return StompError("The frame is too large", ErrorKind.TOO_LARGE, receipt)


def _split_crlf(buffer: bytes | bytearray, position: int, limit: int, end: int) -> tuple[bytes | bytearray, int]:
    """The head and where the body begins, when the blank line may end in CRLF; ``end`` is the first LF LF."""
    crlf = buffer.find(b"\n\r\n", position, limit if end < 0 else end + 1)
    if crlf >= 0:
        return buffer[position:crlf], crlf + 3
    if end < 0:
        raise StompError("The frame has no blank line after its headers, or a NUL in them")
    return buffer[position:end], end + 2


def _unescape(text: str, lines: list[str]) -> str:
    try:
        return unescape(text) if "\\" in text else text
    except StompError as error:
        error.receipt = _receipt(lines)
        raise


def _receipt(lines: list[str]) -> str | None:
    """The receipt asked for by a frame whose headers cannot all be read."""
    for line in lines[1:]:
        if line.startswith("receipt:"):
            try:
                return Frame("", {"receipt": unescape(line[8:])}).header("receipt")
            except StompError:
                return None
    return None
