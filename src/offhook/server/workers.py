"""A worker as its supervisor sees it: a child process that serves on sockets which are not its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from offhook.errors import OffhookError
from offhook.server.binding import Slot
from offhook.server.control import MAX_LINE, Assignment, Failed, Ready, decode_report, encode_assignment
from offhook.server.notify import VARIABLE

EXIT_FAILED = 1
LAST_WORDS = 5.0
"""Seconds that a worker which fails to start has to end."""


class WorkerFailed(OffhookError):
    """A worker did not become ready.

    Args:
        message: why, in its own words where it had any.
        reason: stable name of the kind of failure.
        exit_code: what it exited with, or 1 where that would say nothing.
    """

    code = "worker_failed"

    def __init__(self, message: str, reason: str = "worker_failed", exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code


class Worker:
    """One worker process, from its start to its end. Needs a running event loop.

    Signals that a terminal sends to all of its processes do not come to it: its supervisor hands on what is meant.

    Args:
        slot: its place, with the sockets that it inherits.
        command: the program; the file descriptor of its control socket is added as the last argument.
        payload: what the program is told besides.

    Raises:
        WorkerFailed: no process can be made.
    """

    def __init__(self, slot: Slot, command: Sequence[str], payload: str) -> None:
        self.slot = slot
        self.ready_at = 0.0
        """Of ``time.monotonic``; 0 while it is not ready."""
        self.report: Ready | None = None
        """What it said when it was ready."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._told = False
        self._reading = False
        self._channel, theirs = socket.socketpair()
        descriptors = tuple((name, sock.fileno()) for name, sock in slot.sockets)
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *(descriptor for _, descriptor in descriptors)),
                    start_new_session=True,
                    env=_environment(os.environ),
                )
            except OSError as error:
                self._channel.close()
                raise WorkerFailed(f"No process can be made: {error.strerror or error}") from error
        # A thread, as there is no way to wait for a process in an event loop that every system has.
        threading.Thread(target=self._wait, name=f"worker-{self.pid}", daemon=True).start()
        with contextlib.suppress(OSError):
            self._channel.sendall(encode_assignment(Assignment(slot.number, descriptors, payload)))
        self._channel.setblocking(False)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it exited with, negative for a signal; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def ready(self, limit: float) -> Ready:
        """Waits until it is ready. Call once.

        Args:
            limit: seconds that it has; then it is killed.

        Raises:
            WorkerFailed: it ended before, or took too long.
        """
        self._reading = True
        try:
            async with asyncio.timeout(limit):
                line = await self._line()
        except TimeoutError:
            self.kill()
            await self.ended()
            raise WorkerFailed(f"Worker {self.slot.number} was not ready within {limit:g} seconds") from None
        finally:
            self._reading = False
            self._release()
        try:
            report = decode_report(line)
        except ValueError:
            code = await self._last_words()
            message = f"Worker {self.slot.number} ended before it was ready, {describe(code)}; see what it wrote"
            raise WorkerFailed(message, exit_code=code if code > 0 else EXIT_FAILED) from None
        if isinstance(report, Failed):
            await self._last_words()
            raise WorkerFailed(report.message, report.code, report.exit_code)
        self.report, self.ready_at = report, time.monotonic()
        return report

    async def ended(self) -> int:
        """Waits for its end. Returns what it exited with, negative for a signal."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """Asks it, once, to send its clients away and to end."""
        if not self._told:
            self._told = True
            self._signal(signal.SIGTERM)

    def hurry(self) -> None:
        """Asks it to end at once."""
        self.terminate()
        # Another signal than the first one: two that are the same may arrive as one.
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it without asking."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _line(self) -> bytes:
        line = bytearray()
        with contextlib.suppress(ConnectionError):
            while not line.endswith(b"\n") and len(line) < MAX_LINE:
                more = await self._loop.sock_recv(self._channel, 65536)
                if not more:
                    break
                line += more
        return bytes(line)

    async def _last_words(self) -> int:
        """Waits for the end of one that fails: it ends by itself, and may have something to write before."""
        await asyncio.wait([self._ended], timeout=LAST_WORDS)
        self.kill()
        return await self.ended()

    def _wait(self) -> None:
        code = self._process.wait()
        # A supervisor whose loop has ended does not want to know.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, code)

    def _end(self, code: int) -> None:
        self._ended.set_result(code)
        self._release()

    def _release(self) -> None:
        """Closes the channel once nobody needs it: as long as it is open, the worker knows that it is wanted."""
        if self._ended.done() and not self._reading:
            self._channel.close()


def describe(code: int) -> str:
    """An exit code, or the signal that a negative one stands for, in words."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """What a worker's environment is. systemd hears from the supervisor alone."""
    return {name: value for name, value in given.items() if name != VARIABLE}
