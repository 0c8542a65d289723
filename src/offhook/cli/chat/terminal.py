"""Lines in and lines out: at a terminal with a prompt beneath what is shown, through pipes as they come."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Protocol

import typer

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

CHUNK = 65536
"""Bytes read at once."""
MAX_LINE = 65536
"""Bytes of one line; a longer one is cut into several."""


class Lines(Protocol):
    """Where lines come from."""

    async def next(self) -> str | None:
        """The next line without its end; None at the end of all."""
        ...


class PipedLines:
    """Lines of a pipe or a file.

    They are read in a thread that never keeps the process from ending, with no buffer in between that could hold back
    what follows a password.

    Args:
        stream: what to read; its file is read itself if it has one.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._read = _reader(stream)
        self._rest = b""
        self._ended = False
        self._queue: asyncio.Queue[str | None] | None = None

    def first(self) -> str | None:
        """The first line, waiting for it in this thread; before any other is asked for. None if there is none.

        Raises:
            UnicodeDecodeError: it is not UTF-8: what it says must not be guessed.
        """
        line = self._line()
        return None if line is None else line.decode()

    async def next(self) -> str | None:
        """The next line; None at the end."""
        if self._queue is None:
            self._queue = asyncio.Queue()
            arguments = (asyncio.get_running_loop(), self._queue)
            threading.Thread(target=self._feed, args=arguments, name="standard input", daemon=True).start()
        return await self._queue.get()

    def _feed(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[str | None]) -> None:
        line: bytes | None = b""
        # The loop may be gone when at last a line comes.
        with suppress(RuntimeError):
            while line is not None:
                line = self._line()
                loop.call_soon_threadsafe(queue.put_nowait, None if line is None else line.decode(errors="replace"))

    def _line(self) -> bytes | None:
        while not self._ended and b"\n" not in self._rest and len(self._rest) < MAX_LINE:
            try:
                chunk = self._read()
            except OSError:
                chunk = b""
            self._rest += chunk
            self._ended = not chunk
        if not self._rest:
            return None
        line, end, rest = self._rest.partition(b"\n")
        if not end:
            line, rest = self._rest[:MAX_LINE], self._rest[MAX_LINE:]
        self._rest = rest
        return line.removesuffix(b"\r")


class TypedLines:
    """Lines typed at a terminal, below what is shown."""

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession

        self._session: PromptSession[str] = PromptSession()
        self._prompt = ""

    def prompt(self, text: str) -> None:
        """Changes what stands before the line that is typed."""
        self._prompt = text

    async def next(self) -> str | None:
        """The next line; None after Ctrl-D or Ctrl-C."""
        try:
            return await self._session.prompt_async(lambda: f"{self._prompt}> ", handle_sigint=False)
        except (EOFError, KeyboardInterrupt):
            return None


def at_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def showing(typed: bool) -> Iterator[Callable[[str], None]]:
    """How to show lines while others may be typed.

    Args:
        typed: whether they are typed at a terminal, where the prompt must stay below.
    """
    if not typed:
        yield typer.echo
        return
    from prompt_toolkit.patch_stdout import patch_stdout

    with patch_stdout():
        yield lambda line: print(line, flush=True)  # noqa: T201 - to the patched output


async def each(lines: Lines, take: Callable[[str], Awaitable[bool]], ended: asyncio.Event) -> None:
    """Hands over line after line.

    Args:
        lines: where they come from.
        take: does what one says; returns whether to go on.
        ended: when it is set, no further line is waited for.
    """
    ending = asyncio.create_task(ended.wait(), name="end of the chat")
    try:
        while True:
            coming = asyncio.create_task(lines.next(), name="next line")
            try:
                await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    return
                line = coming.result()
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait((coming,))
            if line is None or not await take(line):
                return
    finally:
        ending.cancel()
        await asyncio.wait((ending,))


def _reader(stream: BinaryIO) -> Callable[[], bytes]:
    try:
        number = stream.fileno()
    except OSError:
        # Held in memory.
        return lambda: stream.read(CHUNK)
    return lambda: os.read(number, CHUNK)
