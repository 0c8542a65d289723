"""The background tasks of one client: none outlives it, and none fails in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Tasks:
    """Keeps the tasks that it started, and ends them."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Starts one. What it raises goes to the event loop's exception handler.

        Args:
            work: what it does.
            name: for debuggers.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancels all of them but the one that calls this, and waits until they are over."""
        current = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not current]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            report(f"The task {task.get_name()} failed", error)


def report(message: str, error: BaseException) -> None:
    """Hands an error that nobody waits for to the event loop's exception handler, which logs it by default."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
