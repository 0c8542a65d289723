"""``async def`` functions run here: on an event loop in its own thread, replaced when a function blocks it.

The server's loop probes the functions' loop while calls are under way. A loop that leaves a probe unanswered
for ``stuck_after`` seconds is retired: the call that blocks it stays there, all others start again on a new
loop, so that nobody waits for it. The number of retired loops is bounded; beyond it calls fail at once until
one comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable

import structlog

from offhook.functions.calls import Call, CannotRun, Outcome
from offhook.ports import Profile

log = structlog.get_logger(__name__)

MAX_MOVES = 2
"""How often a call starts again. One that needs it more often is likely what blocks, in a task of its own."""

Make = Callable[[], Awaitable[Profile]]


class _Run:
    """One start of a call on one loop."""

    __slots__ = ("call", "make", "moved", "moves", "task", "withdrawn")

    def __init__(self, call: Call, make: Make, moves: int) -> None:
        self.call = call
        self.make = make
        self.moves = moves
        self.task: asyncio.Task[None] | None = None
        self.withdrawn = False
        self.moved = False


class LoopThread:
    """A daemon thread with an event loop. Methods named ``_on…`` run in it, all others on the server."""

    def __init__(self, name: str, on_end: Callable[[LoopThread, _Run, Outcome], None]) -> None:
        self._home = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._on_end = on_end
        self._probed = 0.0
        self._answered = True
        self.runs: set[_Run] = set()
        self.exited = asyncio.Event()
        self.thread = threading.Thread(target=self._on_main, name=name, daemon=True)
        self.thread.start()

    def begin(self, run: _Run) -> None:
        """Starts a run."""
        self.runs.add(run)
        self._loop.call_soon_threadsafe(self._on_begin, run)

    def withdraw(self, run: _Run) -> None:
        """Cancels a run, as soon as the loop is able to."""
        run.withdrawn = True
        self._tell(self._on_withdraw, run)

    def silent_for(self) -> float:
        """Seconds since the oldest unanswered probe; sends a new probe if there is none."""
        now = time.monotonic()
        if self._answered:
            self._answered = False
            self._probed = now
            self._tell(self._on_probe)
        return now - self._probed

    def blocking_run(self) -> _Run | None:
        """The run that holds the loop at this moment, if it is one of ours."""
        task = asyncio.current_task(self._loop)
        return next((run for run in self.runs if task is not None and run.task is task), None)

    def stack(self) -> str:
        """Where the thread is now: source lines, no values."""
        frame = sys._current_frames().get(self.thread.ident or 0)
        return "".join(traceback.format_stack(frame)).rstrip() if frame else "(ended)"

    def stop(self) -> None:
        """Ends the loop and the thread, as soon as it is able to. ``exited`` tells when."""
        self._tell(self._loop.stop)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to tell
            self._loop.call_soon_threadsafe(callback, *args)

    def _on_main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=0.5))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            with contextlib.suppress(RuntimeError):
                self._home.call_soon_threadsafe(self.exited.set)

    def _on_begin(self, run: _Run) -> None:
        if run.withdrawn:
            self._on_report(run, Outcome())
        else:
            run.task = self._loop.create_task(self._on_run(run))

    async def _on_run(self, run: _Run) -> None:
        if run.withdrawn:  # between the task's creation and its first step the loop was blocked
            self._on_report(run, Outcome())
            return
        try:
            outcome = Outcome(profile=await run.make())
        except BaseException as error:  # SystemExit must not end the loop; a cancellation is ours, or a failure
            outcome = Outcome(error=error)
        self._on_report(run, outcome)

    def _on_report(self, run: _Run, outcome: Outcome) -> None:
        with contextlib.suppress(RuntimeError):  # the server's loop is closed
            self._home.call_soon_threadsafe(self._ended, run, outcome)

    def _ended(self, run: _Run, outcome: Outcome) -> None:
        self.runs.discard(run)
        self._on_end(self, run, outcome)

    def _on_withdraw(self, run: _Run) -> None:
        if run.task is not None:
            run.task.cancel()

    def _on_probe(self) -> None:
        self._answered = True


class Loops:
    """The loop in use, and the retired ones.

    Args:
        stuck_after: seconds without an answer after which a loop counts as blocked.
        max_retired: blocked loops (and threads) kept at once.
    """

    def __init__(self, stuck_after: float, max_retired: int) -> None:
        self._stuck_after = stuck_after
        self._max_retired = max_retired
        self._current: LoopThread | None = None
        self._retired: set[LoopThread] = set()
        self._jammed = False
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = itertools.count(1)
        self._closed = False

    @property
    def retired(self) -> int:
        """How many loops are blocked and left behind."""
        return len(self._retired)

    def start(self, make: Make) -> Call:
        """Runs what ``make`` makes on the functions' loop; the call ends with `CannotRun` if it cannot."""
        call = Call()
        if self._jammed:
            call.end(Outcome(error=CannotRun()))
            return call
        if self._current is None:
            self._current = self._new_thread()
        self._place(_Run(call, make, 0), self._current)
        if self._timer is None:
            self._watch_later()
        return call

    def _new_thread(self) -> LoopThread:
        return LoopThread(f"offhook-functions-{next(self._numbers)}", self._ended)

    def _place(self, run: _Run, thread: LoopThread) -> None:
        run.call.cancel = lambda: thread.withdraw(run)
        thread.begin(run)

    def _ended(self, thread: LoopThread, run: _Run, outcome: Outcome) -> None:
        if not run.moved:
            run.call.end(outcome)
        if thread in self._retired and not thread.runs:
            self._retired.discard(thread)
            thread.stop()

    def _watch_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._stuck_after / 4, self._watch)

    def _watch(self) -> None:
        self._timer = None
        thread = self._current
        if thread is None or self._closed:
            return
        if thread.silent_for() < self._stuck_after:
            self._jammed = False
        elif len(self._retired) < self._max_retired:
            self._replace(thread)
        else:
            self._jam(thread)
        if self._jammed or self._current is not thread or thread.runs:
            self._watch_later()

    def _replace(self, stuck: LoopThread) -> None:
        self._jammed = False
        blocking = stuck.blocking_run()
        log.error(
            "function_blocks_loop",
            advice="await what does not block, or declare the function with plain def",
            other_calls=len(stuck.runs) - (blocking is not None),
            stack=stuck.stack(),
        )
        self._current = self._new_thread()
        self._retired.add(stuck)
        for run in [run for run in stuck.runs if run is not blocking]:
            if run.withdrawn:
                continue
            stuck.withdraw(run)
            run.moved = True
            if run.moves < MAX_MOVES:
                self._place(_Run(run.call, run.make, run.moves + 1), self._current)
            else:
                run.call.end(Outcome(error=CannotRun()))
        if not stuck.runs:
            self._retired.discard(stuck)
            stuck.stop()

    def _jam(self, stuck: LoopThread) -> None:
        blocking = stuck.blocking_run()
        if not self._jammed:
            log.error(
                "functions_block_every_loop",
                loops=len(self._retired) + 1,
                stack=stuck.stack(),
            )
        self._jammed = True
        self._fail(stuck, stuck.runs - {blocking})

    def _fail(self, thread: LoopThread, runs: Iterable[_Run | None]) -> None:
        for run in list(runs):
            if run is not None:
                thread.withdraw(run)
                run.moved = True
                run.call.end(Outcome(error=CannotRun()))

    async def close(self, grace: float) -> None:
        """Cancels what is under way and ends the threads; after ``grace`` seconds they are left behind."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        threads = [*self._retired, *([self._current] if self._current else [])]
        for thread in threads:
            self._fail(thread, thread.runs)
            thread.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                for thread in threads:
                    await thread.exited.wait()
                    thread.thread.join()
        if left := [thread.thread.name for thread in threads if not thread.exited.is_set()]:
            log.warning("function_loops_left_behind", threads=left)
