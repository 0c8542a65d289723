"""What the parts of one client share: configuration, requests, events, and the keeping of what is under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from offhook.client.emitter import Emitter
from offhook.client.errors import ClientClosed, ClientError
from offhook.client.kandy.config import Config
from offhook.client.kandy.errors import KandyError
from offhook.client.kandy.events import Event, RequestError
from offhook.client.kandy.rest import Rest
from offhook.client.reconnect import Reconnect
from offhook.client.tasks import Tasks
from offhook.client.transport import Transport

T = TypeVar("T")

GRACE = 3.0
"""Seconds that a call which was cancelled, or a client that is destroyed, takes for each request that tidies up."""
LONGEST_WAIT = 120.0
"""Seconds for which a server may ask a client to wait before it subscribes; asked for longer, it fails at once."""


class Core:
    """The inside of a client.

    Args:
        config: as read.
        transport: carries everything.
        reconnect: when to come back.

    Attributes:
        config: as given.
        transport: as given.
        reconnect: as given.
        rest: sends requests.
        emitter: tells events.
        tasks: what goes on in the background.
        closed: whether the client was destroyed; nothing can be called any more.
    """

    def __init__(self, config: Config, transport: Transport, reconnect: Reconnect) -> None:
        self.config = config
        self.transport = transport
        self.reconnect = reconnect
        self.emitter: Emitter[Event] = Emitter()
        self.tasks = Tasks()
        self.rest = Rest(transport, config, self._refused)
        self.closed = False
        self._calls: set[asyncio.Task[object]] = set()

    @property
    def uc(self) -> bool:
        """Whether it speaks UC's protocol."""
        return self.config.product == "uc"

    def emit(self, event: Event) -> None:
        """Tells an event."""
        self.emitter.emit(event.name, event)

    def check_open(self) -> None:
        """Raises ClientClosed if the client was destroyed."""
        if self.closed:
            raise ClientClosed("The client was destroyed")

    async def run(self, work: Coroutine[object, object, T], undo: Callable[[T], Awaitable[object]] | None = None) -> T:
        """Does what a caller waits for, in a task of its own, so that it can tidy up after itself in peace.

        A caller that is cancelled waits until that is done, which takes at most some times GRACE.

        Args:
            work: what to do.
            undo: takes back what was done, should the caller be cancelled at the very moment when it was.

        Raises:
            ClientClosed: the client was destroyed, before or meanwhile.
        """
        if self.closed:
            work.close()
            self.check_open()
        task = asyncio.create_task(work, name="call of a Kandy client")
        self._calls.add(task)
        task.add_done_callback(self._over)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # One that is being ended already tidies up.
            if not task.cancelling():
                task.cancel()
            await asyncio.wait({task})
            if undo is not None and not task.cancelled() and task.exception() is None:
                # A client that is destroyed meanwhile takes everything back itself.
                with contextlib.suppress(ClientError):
                    await undo(task.result())
            raise
        if task.cancelled():
            raise ClientClosed("The client was destroyed while the call was under way")
        return task.result()

    async def end_calls(self) -> None:
        """Ends what callers wait for, and waits until it has tidied up."""
        for task in self._calls:
            # One that is being ended already tidies up, which a second cancellation would break.
            if not task.cancelling():
                task.cancel()
        if self._calls:
            await asyncio.wait(set(self._calls))

    def _over(self, task: asyncio.Task[T]) -> None:
        self._calls.discard(task)
        # Of a call whose caller has gone nobody else asks.
        if not task.cancelled():
            task.exception()

    def _refused(self, error: KandyError) -> None:
        self.emit(RequestError(error))


async def settle(work: Coroutine[object, object, T]) -> tuple[asyncio.Task[T], bool]:
    """Does something that must come to an end even if whoever waits for it is cancelled, be it again and again.

    Returns:
        The task, which is over: with its outcome, or cancelled as it took longer than GRACE after the cancellation;
        and whether there was one, which the caller has to raise again once it has dealt with the outcome.
    """
    task = asyncio.create_task(work, name="request of a Kandy client")
    loop = asyncio.get_running_loop()
    limit: asyncio.TimerHandle | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if limit is None:
                limit = loop.call_later(GRACE, task.cancel)
    if limit is not None:
        limit.cancel()
    return task, limit is not None
