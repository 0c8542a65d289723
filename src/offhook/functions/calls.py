"""A function's call, as the server's event loop sees it, whichever thread it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from offhook.ports import Profile


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: with a profile, or with what was raised.

    The error is a value because not every exception can be put into a future (``StopIteration``) or may reach
    an event loop (``SystemExit``).
    """

    profile: Profile | None = None
    error: BaseException | None = None


class CannotRun(Exception):
    """The call could not be run: the server ends, or too many functions block their event loops."""


class Call:
    """A call under way. Used on the server's event loop only.

    Attributes:
        outcome: how it ended. Cancelled once nobody waits for it.
        cancel: asks the running function to end; set by who runs it.
    """

    __slots__ = ("_on_end", "cancel", "ended", "outcome")

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.cancel: Callable[[], None] = _nothing
        self.ended = False
        self._on_end: Callable[[], None] = _nothing

    def when_ended(self, callback: Callable[[], None]) -> None:
        """``callback`` is called once the function has really ended, be it long after everybody gave up."""
        if self.ended:
            callback()
        else:
            self._on_end = callback

    def give_up(self) -> None:
        """Nobody waits any more: the function is asked to end. Does nothing after the end."""
        if not self.ended:
            self.outcome.cancel()
            self.cancel()

    def end(self, outcome: Outcome) -> None:
        """The function has ended."""
        if not self.ended:
            self.ended = True
            self.cancel = _nothing
            if not self.outcome.done():
                self.outcome.set_result(outcome)
            self._on_end()


def _nothing() -> None:
    pass
