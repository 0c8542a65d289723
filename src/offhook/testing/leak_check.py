"""Whether a program leaves anything behind: tasks of asyncio, and open sockets and files."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import socket
import stat
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

TIMEOUT = 5.0
"""Seconds for tasks and sockets to end, unless told otherwise."""
POLL = 0.01
_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")
_KINDS = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFREG: "file", stat.S_IFCHR: "device"}

_Identity = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open socket, pipe or file of this process.

    Attributes:
        number: of the file descriptor.
        description: what it is and, of a socket, whom it connects.
    """

    number: int
    description: str


class Leaked(AssertionError):
    """Something is left that was not there before.

    Attributes:
        tasks: those of asyncio that are not done.
        descriptors: open sockets and files.
    """

    def __init__(self, tasks: tuple[asyncio.Task[object], ...], descriptors: tuple[Descriptor, ...]) -> None:
        parts = [*map(_story, tasks), *(f"{each.description} (descriptor {each.number})" for each in descriptors)]
        super().__init__(f"{len(tasks)} tasks and {len(descriptors)} descriptors are left:\n" + "\n".join(parts))
        self.tasks = tasks
        self.descriptors = descriptors


class LeakCheck:
    """What :func:`leaks` gives: a context, asynchronous or not."""

    __slots__ = ("_descriptors", "_tasks", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._tasks: set[asyncio.Task[object]] = set()
        self._descriptors: Counter[_Identity] = Counter()

    async def __aenter__(self) -> LeakCheck:
        self._begin(asyncio.all_tasks())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        deadline = time.monotonic() + self._timeout
        while (left := self._left(asyncio.all_tasks())).any:
            if time.monotonic() > deadline:
                raise left.leaked()
            await asyncio.sleep(POLL)

    def __enter__(self) -> LeakCheck:
        if _current_task() is not None:
            raise RuntimeError("In a coroutine, use async with leaks()")
        self._begin(_all_tasks())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        deadline = time.monotonic() + self._timeout
        while (left := self._left(_all_tasks())).any:
            if time.monotonic() > deadline:
                raise left.leaked()
            time.sleep(POLL)

    def _begin(self, tasks: set[asyncio.Task[object]]) -> None:
        self._tasks = tasks
        self._descriptors = Counter(_descriptors().values())

    def _left(self, tasks: set[asyncio.Task[object]]) -> _Left:
        # Whoever leaves the context may be a task that did not enter it, as with fixtures.
        new = sorted(tasks - self._tasks - {_current_task()}, key=lambda task: task.get_name())
        known = Counter(self._descriptors)
        numbers = []
        for number, identity in sorted(_descriptors().items()):
            if known[identity] > 0:
                known[identity] -= 1
            else:
                numbers.append(number)
        return _Left(tuple(new), tuple(numbers))


def leaks(timeout: float = TIMEOUT) -> LeakCheck:
    """Checks that what runs within a context leaves nothing behind.

    ::

        async with leaks():
            async with ChatKitty(...) as kitty:
                await kitty.start_session("jane")

    Everything may take its time to end, but not longer than ``timeout``. What was there before the context does not
    count. If the context is left by an exception, nothing is checked: that exception tells more.

    In ``async with`` the tasks are those of the running event loop. In ``with``, which is for programs that are not
    asynchronous, they are those of every event loop of the process. Descriptors are always the whole process's, so
    other threads should be at rest. Where the system does not list descriptors, as on Windows, only tasks are checked.

    Args:
        timeout: seconds.

    Returns:
        The context. Leaving it raises :class:`Leaked` if something is left, with names and stacks; start
        :mod:`tracemalloc` with some frames to be told where a socket was made, too. Entering it by ``with`` in a
        coroutine raises RuntimeError: waiting there would keep everything from ending.
    """
    return LeakCheck(timeout)


@dataclass(frozen=True, slots=True)
class _Left:
    tasks: tuple[asyncio.Task[object], ...]
    numbers: tuple[int, ...]

    @property
    def any(self) -> bool:
        return bool(self.tasks or self.numbers)

    def leaked(self) -> Leaked:
        return Leaked(self.tasks, tuple(_describe(number) for number in self.numbers))


def _all_tasks() -> set[asyncio.Task[object]]:
    """The tasks of every event loop that are not done. The loops themselves cannot be listed; their tasks can."""
    # By type(), since isinstance() would ask objects that only pretend to be something.
    return {each for each in gc.get_objects() if issubclass(type(each), asyncio.Task) and not each.done()}


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _descriptors() -> dict[int, _Identity]:
    """Number → what is behind it. Numbers are used again, so what is behind them tells what is new."""
    for folder in _DESCRIPTORS:
        if os.path.isdir(folder):
            break
    else:
        return {}
    found: dict[int, _Identity] = {}
    for number in map(int, os.listdir(folder)):
        try:
            status = os.fstat(number)
        except OSError:
            continue  # that of the listing itself, or one that was closed meanwhile
        found[number] = (status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode))
    return found


def _describe(number: int) -> Descriptor:
    try:
        mode = stat.S_IFMT(os.fstat(number).st_mode)
    except OSError:
        return Descriptor(number, "something that is closed by now")
    if mode != stat.S_IFSOCK:
        return Descriptor(number, f"{_KINDS.get(mode, 'descriptor')} {_target(number)}".rstrip())
    with socket.socket(fileno=os.dup(number)) as copy:
        here, peer = _address(copy.getsockname), _address(copy.getpeername)
    description = " ".join(filter(None, ("socket", here, peer and f"connected to {peer}")))
    return Descriptor(number, description + _origin(number))


def _address(ask: Callable[[], object]) -> str:
    try:
        address = ask()
    except OSError:
        return ""
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return address.decode(errors="replace") if isinstance(address, bytes) else str(address)


def _target(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def _origin(number: int) -> str:
    """Where a socket was made, if tracemalloc was told to remember that."""
    if not tracemalloc.is_tracing():
        return ""
    for each in gc.get_objects():
        if issubclass(type(each), socket.socket) and each.fileno() == number:
            trace = tracemalloc.get_object_traceback(each)
            return "" if trace is None else "\n" + "\n".join(trace.format())
    return ""


def _story(task: asyncio.Task[object]) -> str:
    """The name of a task, and where it waits."""
    stack = io.StringIO()
    task.print_stack(file=stack)
    return f"task {task.get_name()}\n{stack.getvalue()}".rstrip()
