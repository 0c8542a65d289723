"""Plain ``def`` functions run here: in daemon threads that may block without anybody else's waiting for them.

The standard library's pool will not do: it waits at the interpreter's exit for work that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from offhook.functions.calls import Call, CannotRun, Outcome
from offhook.ports import Profile

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[], Profile]
    call: Call
    withdrawn: bool = False


class ThreadPool:
    """As many threads as calls were ever under way at once; who starts calls bounds their number."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: dict[threading.Thread, asyncio.Event] = {}
        self._busy: set[_Job] = set()
        self._closed = False

    def start(self, work: Callable[[], Profile]) -> Call:
        """Runs ``work`` in a thread. It cannot be stopped: giving up only withdraws a call not begun."""
        call = Call()
        job = _Job(work, call)
        call.cancel = lambda: setattr(job, "withdrawn", True)
        self._busy.add(job)
        if len(self._busy) > len(self._threads):
            home, exited = asyncio.get_running_loop(), asyncio.Event()
            name = f"offhook-function-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._run, args=(home, exited), name=name, daemon=True)
            self._threads[thread] = exited
            thread.start()
        self._jobs.put(job)
        return call

    def _run(self, home: asyncio.AbstractEventLoop, exited: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the server's loop was closed while the function ran
            while (job := self._jobs.get()) is not None:
                home.call_soon_threadsafe(self._ended, job, _outcome(job))
                del job  # keep no credentials alive while idle
            home.call_soon_threadsafe(exited.set)

    def _ended(self, job: _Job, outcome: Outcome) -> None:
        self._busy.discard(job)
        job.call.end(outcome)

    async def close(self, grace: float) -> None:
        """Ends the idle threads, and gives the busy ones ``grace`` seconds. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for job in self._busy:
            job.withdrawn = True
            job.call.end(Outcome(error=CannotRun()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                for thread, exited in self._threads.items():
                    await exited.wait()
                    thread.join()
        if left := [thread.name for thread, exited in self._threads.items() if not exited.is_set()]:
            log.warning("function_threads_left_behind", threads=left)


def _outcome(job: _Job) -> Outcome:
    if job.withdrawn:
        return Outcome()
    try:
        return Outcome(profile=job.work())
    except BaseException as error:  # sys.exit() in a function must not end the thread either
        return Outcome(error=error)
