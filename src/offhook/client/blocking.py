"""The SDK in programs that are not asynchronous: a thread with an event loop, and calls into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Runs clients for a synchronous program.

    ::

        with Blocking() as blocking:
            kitty = blocking.enter(ChatKitty(api_key="...", host="127.0.0.1:8686", is_secure=False))
            result = blocking.run(kitty.start_session("jane"))
            for event in blocking.iterate(kitty.events()):
                print(event)

    The loop runs in a thread of its own for as long as the ``with`` statement, so that heart-beats and reconnects go
    on between calls; handlers of events are called in that thread. Calls may come from any thread.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Runs a coroutine to its end, and returns or raises what it does. Interrupting the wait cancels it.

        Raises:
            RuntimeError: outside of the ``with`` statement; or from a handler of events, which would wait for itself.
            concurrent.futures.CancelledError: the ``with`` statement was left meanwhile, in another thread.
        """
        loop = self._loop
        if loop is None or threading.current_thread() is self._thread:
            work.close()
            if loop is None:
                raise RuntimeError("Blocking must be entered before it can run anything")
            raise RuntimeError("Handlers of events cannot wait in the thread that calls them; let them be coroutines")
        return _result(work, loop)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a plain function where the clients live, and returns or raises what it does.

        It is for what tells events without being a coroutine, such as ``set_credentials`` of Kandy's clients: handlers
        and streams expect their events in that thread.

        Raises:
            RuntimeError: as for ``run``.
        """

        async def calling() -> T:
            return function(*args, **kwargs)

        return self.run(calling())

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enters an asynchronous context manager, such as a client; it is left with the ``with`` statement.

        Raises:
            RuntimeError: as for ``run``.
        """
        return self.run(self._stack.enter_async_context(manager))

    def iterate(self, source: AsyncIterable[T]) -> Iterator[T]:
        """The items of an asynchronous iterator, such as a stream of events, one after the other.

        Raises:
            RuntimeError: as for ``run``, when the first is asked for.
        """
        iterator = aiter(source)

        async def following() -> tuple[T] | None:
            try:
                return (await anext(iterator),)
            except StopAsyncIteration:
                return None

        while (item := self.run(following())) is not None:
            yield item[0]

    def __enter__(self) -> Blocking:
        if self._thread is not None:
            raise RuntimeError("Blocking is entered already")
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_live, args=(loop,), name="offhook", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            raise RuntimeError("Blocking was not entered")
        # Nothing new begins, whatever other threads still want.
        self._loop = None
        try:
            _result(self._stack.aclose(), loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            self._thread = None


def _live(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: runs the loop until it is stopped, then ends what is left, as asyncio.run does."""
    try:
        loop.run_forever()
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def _result(work: Coroutine[object, object, T], loop: asyncio.AbstractEventLoop) -> T:
    """Runs a coroutine in the loop's thread, and waits for it in this one."""
    running: list[asyncio.Task[object] | None] = []
    given_up = threading.Event()

    async def working() -> T:
        running.append(asyncio.current_task())
        if given_up.is_set():
            work.close()
            raise asyncio.CancelledError
        return await work

    def cancel() -> None:
        for task in running:
            if task is not None:
                task.cancel()

    try:
        return asyncio.run_coroutine_threadsafe(working(), loop).result()
    except Exception:
        raise
    except BaseException:
        # An interrupt may come as soon as the work has begun, before there is a future by which to cancel it.
        given_up.set()
        loop.call_soon_threadsafe(cancel)
        raise
