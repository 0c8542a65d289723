"""Several worker processes on the same ports, one in each slot, and what keeps the slots filled.

The supervisor keeps the listening sockets, so a connection that comes while a slot's worker is replaced waits and is
not refused. It serves nothing itself and knows nothing of what its workers do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from offhook.errors import OffhookError
from offhook.server.binding import Slot
from offhook.server.lifecycle import Signals
from offhook.server.logs import get_logger
from offhook.server.notify import notify_ready, notify_reloading, notify_stopping
from offhook.server.workers import Worker, WorkerFailed, describe

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a supervisor waits for what, in seconds, and how often it tries.

    Attributes:
        start: until a worker is ready.
        stop: until one that was asked to end has; then it is killed.
        hurry: the same for one that was asked to end at once.
        first_pause: between two attempts to fill a slot; it doubles with each.
        longest_pause: the longest of these.
        stable: a worker that served for this long and dies is replaced without a pause.
        attempts: failures in a row of one slot after which all is given up, if no other slot is filled either.
    """

    start: float = 120.0
    stop: float = 30.0
    hurry: float = 5.0
    first_pause: float = 0.25
    longest_pause: float = 5.0
    stable: float = 30.0
    attempts: int = 10


class Supervisor:
    """Keeps a worker in every slot.

    SIGTERM and SIGINT end all of them in their orderly way, a second one at once. SIGHUP replaces one after the
    other: the new one is ready before the old one is asked to end.

    Args:
        slots: with their sockets bound; the supervisor closes them.
        command: the program that a worker is, see ``Worker``.
        payload: what workers are told besides.
        reload: asked on SIGHUP for what they are told from then on. May raise OffhookError: then nothing is replaced.
        started: called once, when all slots are filled for the first time.
        changed: called with the workers that serve whenever those are others.
        patience: how long to wait for what.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        command: Sequence[str],
        payload: str,
        *,
        reload: Callable[[], str],
        started: Callable[[Sequence[Worker]], None],
        changed: Callable[[Sequence[Worker]], None],
        patience: Patience | None = None,
    ) -> None:
        self._slots = slots
        self._command = command
        self._payload = payload
        self._reload = reload
        self._tell_started = started
        self._tell_changed = changed
        self._patience = patience or Patience()
        self._serving: dict[int, Worker] = {}
        self._alive: set[Worker] = set()
        """Also those that are not ready yet, or on their way out."""
        self._failures = dict.fromkeys((slot.number for slot in slots), 0)
        self._locks = {slot.number: asyncio.Lock() for slot in slots}
        """Whoever fills a slot holds its lock."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._hopeless = asyncio.Event()
        self._error: WorkerFailed | None = None
        """Why it is hopeless."""
        self._started = False
        self._stopping = False
        self._rolling = False
        self._roll_again = False

    async def run(self) -> None:
        """Starts the workers and keeps them until a signal says otherwise.

        The first slot is filled before the others, so that what is made at the very first start is made once.

        Raises:
            WorkerFailed: a worker could not be started at first, or no slot could be filled any more.
        """
        signals = Signals(self._hang_up)
        with signals.installed():
            ends = [
                asyncio.create_task(event.wait(), name=name)
                for event, name in ((signals.stop, "stop"), (self._hopeless, "hopeless"))
            ]
            try:
                start = self._spawn(self._start(), "start")
                await asyncio.wait([start, *ends], return_when=asyncio.FIRST_COMPLETED)
                if start.done():
                    self._begin()
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if self._error is not None:
                    raise self._error
            finally:
                for end in ends:
                    end.cancel()
                await self._stop(signals.kill)

    async def _start(self) -> None:
        first, *others = self._slots
        try:
            await self._fill(first, self._payload)
            async with asyncio.TaskGroup() as group:
                for slot in others:
                    group.create_task(self._fill(slot, self._payload))
        except* WorkerFailed as failures:
            self._give_up(_first(failures))

    def _begin(self) -> None:
        """All slots are filled, or that has failed."""
        if self._error is not None:
            return
        self._started = True
        notify_ready()
        self._tell_started(self._workers())
        if self._roll_again:
            self._hang_up()

    async def _fill(self, slot: Slot, payload: str) -> Worker | None:
        """Puts a new worker into a slot once it is ready. Returns the one that was there. Raises WorkerFailed."""
        async with self._locks[slot.number]:
            return await self._replace(slot, payload)

    async def _replace(self, slot: Slot, payload: str) -> Worker | None:
        """As ``_fill``, for who holds the lock."""
        worker = Worker(slot, self._command, payload)
        self._alive.add(worker)
        self._spawn(self._attend(worker), f"attend {worker.pid}")
        report = await worker.ready(self._patience.start)
        old = self._serving.get(slot.number)
        self._serving[slot.number] = worker
        logger.info("worker is ready", worker=slot.number, pid=worker.pid, node=report.node)
        self._changed()
        if worker not in self._alive:
            self._crashed(worker)
        return old

    async def _attend(self, worker: Worker) -> None:
        """Waits for a worker's end, and sees to its slot if it was not meant to end."""
        code = await worker.ended()
        self._alive.discard(worker)
        if self._serving.get(worker.slot.number) is worker:
            self._crashed(worker)
        else:
            logger.info("worker ended", worker=worker.slot.number, pid=worker.pid, how=describe(code))

    def _crashed(self, worker: Worker) -> None:
        number = worker.slot.number
        del self._serving[number]
        if self._stopping:
            return
        code = worker.exit_code
        logger.error("worker died", worker=number, pid=worker.pid, how="" if code is None else describe(code))
        stable = time.monotonic() - worker.ready_at >= self._patience.stable
        self._failures[number] = 0 if stable else self._failures[number] + 1
        self._changed()
        self._spawn(self._revive(worker.slot), f"revive {number}")

    async def _revive(self, slot: Slot) -> None:
        """Fills an empty slot, however often that has to be tried."""
        patience, number = self._patience, slot.number
        while True:
            if failures := self._failures[number]:
                await asyncio.sleep(min(patience.first_pause * 2 ** (failures - 1), patience.longest_pause))
            async with self._locks[number]:
                if number in self._serving:
                    return
                try:
                    await self._replace(slot, self._payload)
                except WorkerFailed as error:
                    self._failures[number] += 1
                    logger.error("worker cannot be started", worker=number, reason=error.message)
                    self._turn_away(slot)
                    if self._failures[number] >= patience.attempts and not self._serving:
                        self._give_up(error)
                        return
                else:
                    return

    def _turn_away(self, slot: Slot) -> None:
        """The kernel would go on sending a slot's share of the clients there, to wait for nobody knows how long."""
        try:
            slot.turn_away()
        except OSError as error:
            logger.error("connections wait in an empty slot", worker=slot.number, reason=str(error))

    def _give_up(self, error: WorkerFailed) -> None:
        if self._error is None:
            self._error = error
            self._hopeless.set()

    def _hang_up(self) -> None:
        if self._rolling or not self._started:
            self._roll_again = True
        elif not self._stopping:
            self._rolling = True
            self._spawn(self._roll(), "roll")

    async def _roll(self) -> None:
        try:
            again = True
            while again:
                self._roll_again = False
                notify_reloading()
                try:
                    await self._replace_all()
                except OffhookError as error:
                    logger.error("workers are not replaced any further", reason=error.message)
                notify_ready()
                again = self._roll_again
        finally:
            self._rolling = False

    async def _replace_all(self) -> None:
        payload = self._reload()
        for slot in self._slots:
            old = await self._fill(slot, payload)
            # What a worker has started with is good for those that come after a crash, too.
            self._payload = payload
            self._failures[slot.number] = 0
            if old is not None:
                old.terminate()
                await self._gone([old], self._patience.stop)
        logger.info("all workers are replaced")

    async def _stop(self, kill: asyncio.Event) -> None:
        """Ends everything. ``kill``, once set, has it done at once."""
        self._stopping = True
        notify_stopping()
        for slot in self._slots:
            # Now nobody can come any more who would wait for workers that end.
            slot.close()
        busy = [task for task in self._tasks if not task.get_name().startswith("attend")]
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        for worker in self._alive:
            worker.terminate()
        gone = asyncio.create_task(self._gone(list(self._alive), self._patience.stop), name="gone")
        hurry = asyncio.create_task(kill.wait(), name="hurry")
        await asyncio.wait({gone, hurry}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        hurry.cancel()
        await asyncio.gather(gone, hurry, return_exceptions=True)
        for worker in self._alive:
            worker.hurry()
        await self._gone(list(self._alive), self._patience.hurry)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _gone(self, workers: Sequence[Worker], limit: float) -> None:
        """Waits for the end of workers; those that take longer are killed."""
        if not workers:
            return
        waits = [asyncio.create_task(worker.ended()) for worker in workers]
        try:
            _, late = await asyncio.wait(waits, timeout=limit)
            if late:
                for worker in workers:
                    if worker.exit_code is None:
                        logger.error("worker does not end and is killed", worker=worker.slot.number, pid=worker.pid)
                        worker.kill()
                await asyncio.wait(late)
        finally:
            for wait in waits:
                wait.cancel()

    def _workers(self) -> Sequence[Worker]:
        return [worker for _, worker in sorted(self._serving.items())]

    def _changed(self) -> None:
        try:
            self._tell_changed(self._workers())
        except Exception:
            logger.exception("what serves cannot be told")

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # Without this task a slot may stay empty for ever; whoever runs the service starts it again.
            logger.error("supervisor failed", task=task.get_name(), exc_info=error)
            self._give_up(WorkerFailed(f"The supervisor failed: {type(error).__name__}: {error}", "internal"))


def _first(failures: BaseExceptionGroup[WorkerFailed]) -> WorkerFailed:
    """One failure of several at once."""
    error = failures.exceptions[0]
    return error if isinstance(error, WorkerFailed) else _first(error)
