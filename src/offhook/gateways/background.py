"""Work that must be finished although the connection that began it may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import structlog

log = structlog.get_logger(__name__)

_tasks: set[asyncio.Task[None]] = set()


def in_background(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    """Runs it; if it fails, that is logged."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[None]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_work_failed", exc_info=error)


async def settle() -> None:
    """Waits until all of it is finished."""
    while _tasks:
        await asyncio.gather(*_tasks, return_exceptions=True)
