"""Events to whoever listens: handlers and asynchronous iterators. The one emitter of both protocols."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from types import TracebackType
from typing import Generic, TypeVar, cast

from offhook.client.errors import EventsLost
from offhook.client.tasks import Tasks, report

E = TypeVar("E")

Handler = Callable[[E], object]
"""Takes an event. A coroutine function's events are handled one after the other, in order, in the background."""

STREAM_SIZE = 1000
"""Events that wait for a reader, unless it asks for more."""
PENDING = 10_000
"""Events that wait for one coroutine handler."""


class Emitter(Generic[E]):
    """Hands events to their listeners, each in the order in which they were emitted.

    A handler that raises costs nobody else anything: its error goes to the event loop's exception handler. So does
    an :class:`~offhook.client.errors.EventsLost` for a coroutine handler that falls behind by more than PENDING.
    """

    __slots__ = ("_busy", "_closed", "_listeners", "_streams", "_tasks")

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[_Listener[E], ...]] = {}
        self._busy: set[_Listener[E]] = set()
        self._streams: list[EventStream[E]] = []
        self._tasks = Tasks()
        self._closed = False

    def on(self, name: str, handler: Handler[E]) -> Callable[[], None]:
        """Calls a handler for every event of a name. The same handler is called once, however often it is added.

        One that is added while an event is handed out hears the next. One that is added after the end hears nothing.

        Args:
            name: of the events.
            handler: a function or a coroutine function.

        Returns:
            What takes the handler off again.
        """
        listeners = self._listeners.get(name, ())
        if not self._closed and not any(listener.handler == handler for listener in listeners):
            # Never changed in place: an event may be on its way through them.
            self._listeners[name] = (*listeners, _Listener(handler, self._tasks, self._busy))
        return lambda: self.off(name, handler)

    def off(self, name: str, handler: Handler[E]) -> None:
        """Takes a handler off; nothing happens if it is not there. What it was called for already, it finishes."""
        kept = []
        for listener in self._listeners.get(name, ()):
            if listener.handler == handler:
                listener.off = True
            else:
                kept.append(listener)
        if kept:
            self._listeners[name] = tuple(kept)
        else:
            self._listeners.pop(name, None)

    def stream(self, *names: str, size: int = STREAM_SIZE) -> EventStream[E]:
        """Begins to gather events for an asynchronous iterator; it misses none that is emitted from now on.

        Args:
            names: of the events; all if none is given.
            size: how many may wait to be taken.
        """
        stream: EventStream[E] = EventStream(frozenset(names), size, self._streams)
        if self._closed:
            stream.end()
        else:
            self._streams.append(stream)
        return stream

    def emit(self, name: str, event: E) -> None:
        """Hands an event out. Plain handlers have been called when this returns. After the end it is dropped."""
        for listener in self._listeners.get(name, ()):
            # An earlier handler of this event may have taken it off.
            if not listener.off:
                listener.take(event)
        if self._streams:
            # A stream may be closed by whoever it wakes.
            for stream in tuple(self._streams):
                stream.take(name, event)

    async def close(self) -> None:
        """Ends all iterators, once they have given out what they hold, and the handlers that still run."""
        self._closed = True
        self._listeners.clear()
        for stream in self._streams:
            stream.end()
        self._streams.clear()
        # Dropped first: one of the handlers may be what calls this, and goes on to its end.
        for listener in tuple(self._busy):
            listener.drop()
        await self._tasks.close()


class _Listener(Generic[E]):
    """One handler, and what it has not handled yet."""

    __slots__ = ("_busy", "_lost", "_pending", "_tasks", "handler", "off")

    def __init__(self, handler: Handler[E], tasks: Tasks, busy: set[_Listener[E]]) -> None:
        self.handler = handler
        self.off = False
        self._tasks = tasks
        self._busy = busy
        self._pending: deque[Awaitable[object]] | None = None
        self._lost = 0

    def take(self, event: E) -> None:
        pending = self._pending
        if pending is not None and len(pending) >= PENDING:
            self._lost += 1
            return
        try:
            outcome = self.handler(event)
        except (Exception, asyncio.CancelledError) as error:
            # It asked for the result of something that was cancelled. Whoever emits was not: nothing is awaited here.
            report("A handler of events failed", error)
            return
        # The check is not cheap, and most handlers return nothing.
        if outcome is not None and isawaitable(outcome):
            if pending is not None:
                pending.append(outcome)
                return
            self._pending = deque((outcome,))
            self._busy.add(self)
            self._tasks.start(self._drain(self._pending), "handler of events").add_done_callback(self._drained)

    def drop(self) -> None:
        """Forgets what is not handled, without a warning about coroutines that nobody awaited."""
        while self._pending:
            waiting = self._pending.popleft()
            if asyncio.iscoroutine(waiting):
                cast(Coroutine[object, object, object], waiting).close()

    async def _drain(self, pending: deque[Awaitable[object]]) -> None:
        task = asyncio.current_task()
        while pending:
            try:
                await pending.popleft()
            except asyncio.CancelledError as error:
                # What a handler waited for may have been cancelled, which is no reason to stop.
                if task is None or task.cancelling():
                    raise
                report("A handler of events was cancelled", error)
            except Exception as error:
                report("A handler of events failed", error)
            if self._lost and not pending:
                lost, self._lost = self._lost, 0
                report("A handler of events was too slow", EventsLost(lost))
        # Here and not when the task is done, which is later: what comes between the two must start another one.
        self._pending = None

    def _drained(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # Perhaps before it began.
            self.drop()
            self._pending = None
        if self._pending is None:
            self._busy.discard(self)


class EventStream(Generic[E]):
    """Events in order, as an asynchronous iterator. It ends when its client is closed.

    ::

        async with client.events("presence:change") as events:
            async for event in events:
                ...

    Iterating raises :class:`~offhook.client.errors.EventsLost` at the place where events were dropped because more
    than ``size`` waited to be taken; iterating can go on after that.
    """

    __slots__ = ("_ended", "_events", "_lost", "_names", "_registry", "_size", "_waiter")

    def __init__(self, names: frozenset[str], size: int, registry: list[EventStream[E]]) -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self._names = names
        self._size = size
        self._registry = registry
        self._events: deque[E] = deque()
        self._lost = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def take(self, name: str, event: E) -> None:
        """Takes an event, if it is one of those asked for."""
        if self._ended or (self._names and name not in self._names):
            return
        if self._lost or len(self._events) >= self._size:
            self._lost += 1
            return
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Stops gathering. Whoever iterates comes to the end of what is there."""
        if self in self._registry:
            self._registry.remove(self)
        self.end()

    async def __aenter__(self) -> EventStream[E]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> EventStream[E]:
        return self

    async def __anext__(self) -> E:
        # One that is cancelled while it waits has taken nothing yet, so that nothing is lost.
        while not self._events:
            if self._lost:
                lost, self._lost = self._lost, 0
                raise EventsLost(lost)
            if self._ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("Two tasks cannot iterate over one stream of events")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
