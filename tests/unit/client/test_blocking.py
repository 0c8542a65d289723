"""The SDK in synchronous programs."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import CancelledError

import pytest

from offhook.client.blocking import Blocking
from offhook.client.emitter import Emitter


class Manager:
    """Notes what becomes of it."""

    def __init__(self, story: list[str], name: str) -> None:
        self.story = story
        self.name = name

    async def __aenter__(self) -> Manager:
        self.story.append(f"{self.name} in")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self.story.append(f"{self.name} out")


async def add(one: int, two: int) -> int:
    await asyncio.sleep(0)
    return one + two


async def broken() -> None:
    raise ValueError("broken")


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_runs_and_raises_and_leaves_no_thread() -> None:
    before = _threads()
    with Blocking() as blocking:
        assert blocking.run(add(1, 2)) == 3
        with pytest.raises(ValueError, match="broken"):
            blocking.run(broken())
        assert blocking.run(add(3, 4)) == 7
        # The loop's helper threads end as well.
        blocking.run(asyncio.to_thread(int))
        assert _threads() > before
    assert _threads() == before


def test_what_was_entered_is_left_in_reverse() -> None:
    story: list[str] = []
    with pytest.raises(LookupError), Blocking() as blocking:
        assert blocking.enter(Manager(story, "one")).name == "one"
        blocking.enter(Manager(story, "two"))
        raise LookupError
    assert story == ["one in", "two in", "two out", "one out"]


def test_a_failing_exit_leaves_no_thread() -> None:
    class Stubborn(Manager):
        async def __aexit__(self, *_: object) -> None:
            raise ValueError("cannot leave")

    before = _threads()
    with pytest.raises(ValueError, match="cannot leave"), Blocking() as blocking:
        blocking.enter(Stubborn([], "one"))
    assert _threads() == before


def test_iterates() -> None:
    with Blocking() as blocking:
        assert list(blocking.iterate(numbers(3))) == [0, 1, 2]
        assert list(blocking.iterate(numbers(0))) == []


def test_iterates_over_events_as_they_come() -> None:
    emitter: Emitter[int] = Emitter()

    async def emit(*events: int) -> None:
        for event in events:
            emitter.emit("a", event)

    with Blocking() as blocking:
        events = emitter.stream()
        blocking.run(emit(1, 2))
        got = []
        for event in blocking.iterate(events):
            got.append(event)
            if event == 2:
                blocking.run(emit(3))
            if event == 3:
                blocking.run(emitter.close())
        assert got == [1, 2, 3]


def test_errors_of_an_iterator_come_through() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    with Blocking() as blocking:
        items = blocking.iterate(failing())
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_tasks_go_on_between_calls_and_end_with_it() -> None:
    story: list[str] = []
    ticked = threading.Event()

    async def living() -> None:
        try:
            await asyncio.sleep(0)
            ticked.set()
            await asyncio.Event().wait()
        finally:
            story.append("ended")

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(living())

    with Blocking() as blocking:
        task = blocking.run(start())
        assert ticked.wait(5)
    assert story == ["ended"]
    assert task.cancelled()


def test_interrupting_cancels_the_work() -> None:
    began, ended = threading.Event(), threading.Event()

    async def waiting() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    main = threading.get_ident()

    def interrupt() -> None:
        began.wait(5)
        # A signal that comes just before the interpreter waits for a lock is noticed with the next one only.
        for _ in range(10):
            signal.pthread_kill(main, signal.SIGINT)
            if ended.wait(3):
                return

    helper = threading.Thread(target=interrupt)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Blocking() as blocking:
            helper.start()
            with pytest.raises(KeyboardInterrupt):
                blocking.run(waiting())
            assert ended.wait(5)
            assert blocking.run(add(1, 1)) == 2
    finally:
        signal.signal(signal.SIGINT, previous)
        helper.join()


def test_whoever_waits_in_another_thread_is_told_of_the_end() -> None:
    began, outcome = threading.Event(), list[BaseException]()

    async def waiting() -> None:
        began.set()
        await asyncio.Event().wait()

    def other(blocking: Blocking) -> None:
        try:
            blocking.run(waiting())
        except BaseException as error:
            outcome.append(error)

    with Blocking() as blocking:
        thread = threading.Thread(target=other, args=(blocking,))
        thread.start()
        assert began.wait(5)
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(outcome[0], CancelledError)


def test_calls_come_from_any_thread() -> None:
    results: list[int] = []
    with Blocking() as blocking:
        threads = [
            threading.Thread(target=lambda number=number: results.append(blocking.run(add(number, 0))))
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
    assert sorted(results) == list(range(20))


def test_a_handler_cannot_wait_for_its_own_thread() -> None:
    with Blocking() as blocking:

        async def handler() -> None:
            blocking.run(add(1, 2))

        with pytest.raises(RuntimeError, match="Handlers of events cannot wait"):
            blocking.run(handler())


@pytest.mark.parametrize("when", ["before", "after"])
def test_outside_of_the_statement_nothing_runs(when: str) -> None:
    blocking = Blocking()
    if when == "after":
        with blocking:
            pass
    work: Coroutine[object, object, int] = add(1, 2)
    with pytest.raises(RuntimeError, match="must be entered"):
        blocking.run(work)
    with pytest.raises(RuntimeError, match="must be entered"):
        blocking.enter(Manager([], "one"))
    with pytest.raises(RuntimeError, match="must be entered"):
        next(blocking.iterate(numbers(1)))
    with pytest.raises(RuntimeError, match="was not entered"):
        blocking.__exit__(None, None, None)


def test_enters_once_at_a_time() -> None:
    blocking = Blocking()
    with blocking:
        with pytest.raises(RuntimeError, match="entered already"), blocking:
            raise AssertionError("entered twice")
        assert blocking.run(add(1, 2)) == 3
    with blocking:
        assert blocking.run(add(2, 2)) == 4
