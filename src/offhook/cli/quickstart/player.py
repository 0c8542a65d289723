"""Plays steps within time limits, tells what happens as it happens, and keeps count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from offhook.errors import OffhookError

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject, JsonValue

STEP_SECONDS = 30.0
"""The most that a step may take; nothing on a healthy server takes a second."""

Kind = Literal["step", "event", "value", "passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Line:
    """Something that happened.

    Attributes:
        offset: seconds since the beginning.
        quickstart: which one was played.
        kind: ``step`` begins one, ``passed``, ``failed`` or ``skipped`` ends it; ``event`` came from the SDK; ``value``
            is what a getter returned.
        name: of the step, the event or the getter.
        text: for people.
        data: for programs, if there is more to say than the text.
    """

    offset: float
    quickstart: str
    kind: Kind
    name: str
    text: str = ""
    data: JsonValue = None

    def json(self) -> JsonObject:
        """The line as one JSON object."""
        said: JsonObject = {
            "offset": round(self.offset, 6),
            "quickstart": self.quickstart,
            "kind": self.kind,
            "name": self.name,
        }
        if self.text:
            said["text"] = self.text
        if self.data is not None:
            said["data"] = self.data
        return said


@dataclass(slots=True)
class Tally:
    """How a quickstart went.

    Attributes:
        quickstart: its name.
        passed: steps that did what the quickstart says.
        failed: why those that did not failed, by step.
        skipped: steps that were not played, because one before them failed or the server does not allow them.
        events: how many were told.
        seconds: that it took.
    """

    quickstart: str
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    events: int = 0
    seconds: float = 0.0


class Wrong(Exception):
    """A step did something else than its quickstart says.

    Args:
        message: what was expected and what came, for people.
    """


class _Stopped(Exception):
    """A step failed: what follows it in its quickstart would only fail because of it."""


class Player:
    """Plays one quickstart.

    Args:
        quickstart: its name.
        write: takes each line as it comes.
        start: the clock's value at offset 0.
        limit: seconds that a step may take.
    """

    def __init__(
        self, quickstart: str, write: Callable[[Line], None], start: float, limit: float = STEP_SECONDS
    ) -> None:
        self.tally = Tally(quickstart)
        self._write = write
        self._start = start
        self._limit = limit
        self._news = asyncio.Event()

    async def play(self, steps: Awaitable[None]) -> Tally:
        """Plays the whole quickstart: a coroutine that goes through its steps.

        Returns:
            How it went. A step that fails ends the quickstart, not the program.
        """
        began = time.monotonic()
        try:
            await steps
        except _Stopped:
            pass
        except (OffhookError, TimeoutError) as error:
            # Between two steps: while a client was closed.
            self._fail("clean up", _words(error))
        self.tally.seconds = time.monotonic() - began
        return self.tally

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[None]:
        """A step: everything in the ``async with`` block, within the time limit.

        Errors of the SDK, :class:`Wrong` and the end of the time make it fail, and with it what comes after.

        Args:
            title: what the quickstart does in it.
        """
        self._tell("step", title)
        try:
            async with asyncio.timeout(self._limit):
                yield
        except Wrong as wrong:
            self._fail(title, str(wrong))
            raise _Stopped from None
        except TimeoutError:
            self._fail(title, f"It did not happen within {self._limit:g} s")
            raise _Stopped from None
        except OffhookError as error:
            self._fail(title, _words(error))
            raise _Stopped from None
        self.tally.passed += 1
        self._tell("passed", title)

    def skip(self, title: str, why: str) -> None:
        """A step that is not played."""
        self.tally.skipped += 1
        self._tell("skipped", title, why)

    def event(self, name: str, text: str, data: JsonValue = None) -> None:
        """An event came from the SDK."""
        self.tally.events += 1
        # If nobody reads any more, the next line that is a step's ends it: whoever calls this can end nothing.
        with suppress(BrokenPipeError):
            self._tell("event", name, text, data)
        self._news.set()

    def value(self, name: str, text: str, data: JsonValue = None) -> None:
        """A getter was asked."""
        self._tell("value", name, text, data)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds; it is looked at again after each event. The step's limit bounds the wait."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    def _fail(self, title: str, why: str) -> None:
        self.tally.failed[title] = why
        self._tell("failed", title, why)

    def _tell(self, kind: Kind, name: str, text: str = "", data: JsonValue = None) -> None:
        offset = time.monotonic() - self._start
        self._write(Line(offset, self.tally.quickstart, kind, name, text, data))


def expect(what: str, expected: object, got: object) -> None:
    """Compares what a quickstart says with what came.

    Raises:
        Wrong: they differ.
    """
    if expected != got:
        raise Wrong(f"{what} should be {expected!r} and is {got!r}")


def _words(error: BaseException) -> str:
    code = getattr(error, "code", None)
    text = str(error) or type(error).__name__
    return f"{text} ({code})" if isinstance(code, str) else text
