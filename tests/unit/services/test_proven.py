"""What is remembered of good credentials, and work done once for several callers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.unit.services.support import until

from offhook.errors import AccessDenied
from offhook.services.proven import Flights, Proven

PARTS = st.lists(st.integers() | st.text() | st.none() | st.binary(max_size=8), max_size=4)


@given(PARTS, PARTS)
def test_a_digest_stands_for_its_parts_alone(parts: list[object], others: list[object]) -> None:
    proven = Proven(lambda: 0.0)
    assert proven.digest(*parts) == proven.digest(*parts)
    assert proven.digest(*parts) != Proven(lambda: 0.0).digest(*parts), "each process has its own key"
    assume(parts != others)
    assert proven.digest(*parts) != proven.digest(*others)


def test_digests_of_any_text() -> None:
    proven = Proven(lambda: 0.0)
    assert proven.digest("\ud800") != proven.digest("\\ud800") != proven.digest("?")
    assert proven.digest("a", "b") != proven.digest("a', 'b")


def test_what_has_a_time_is_forgotten_after_it() -> None:
    now = [0.0]
    proven = Proven(lambda: now[0])
    short, long = proven.digest("short"), proven.digest("long")
    assert short not in proven
    proven.add(short, 10.0)
    proven.add(long)
    now[0] = 9.9
    assert short in proven and long in proven
    now[0] = 10.0
    assert short not in proven and len(proven) == 1
    now[0] = 1e12
    assert long in proven


def test_the_least_recently_used_goes_first() -> None:
    proven = Proven(lambda: 0.0, capacity=3)
    digests = [proven.digest(number) for number in range(5)]
    for digest in digests[:3]:
        proven.add(digest)
    assert digests[0] in proven
    proven.add(digests[3])
    assert digests[1] not in proven
    proven.add(digests[2])
    proven.add(digests[4])
    assert [digest in proven for digest in digests] == [False, False, True, True, True] and len(proven) == 3


class Work:
    """Work that waits until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.done = 0
        self.may_go = asyncio.Event()
        self._error = error

    async def __call__(self) -> None:
        await self.may_go.wait()
        self.done += 1
        if self._error is not None:
            raise self._error


async def test_what_is_wanted_at_the_same_time_is_done_once() -> None:
    flights, work = Flights(), Work()
    waiting = [asyncio.create_task(flights.join(b"key", work)) for _ in range(5)]
    other = asyncio.create_task(flights.join(b"other", work))
    await until(lambda: len(flights) == 2)
    work.may_go.set()
    await asyncio.gather(*waiting, other)
    assert work.done == 2 and len(flights) == 0
    await flights.join(b"key", work)
    assert work.done == 3


async def test_all_who_wait_are_told_of_a_failure() -> None:
    flights, work = Flights(), Work(AccessDenied("no"))
    waiting = [asyncio.create_task(flights.join(b"key", work)) for _ in range(3)]
    await until(lambda: len(flights) == 1)
    work.may_go.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, AccessDenied) for result in results) and work.done == 1
    assert len(flights) == 0


@pytest.mark.parametrize("error", [None, AccessDenied("no")])
async def test_work_goes_on_for_the_others_if_its_first_caller_goes(error: Exception | None) -> None:
    flights, work = Flights(), Work(error)
    first = asyncio.create_task(flights.join(b"key", work))
    await until(lambda: len(flights) == 1)
    second = asyncio.create_task(flights.join(b"key", work))
    for task in (first, second):
        # Both get to wait before one is cancelled.
        await asyncio.wait([task], timeout=0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.may_go.set()
    (result,) = await asyncio.gather(second, return_exceptions=True)
    assert result is error and work.done == 1


async def test_work_that_nobody_waits_for_any_more_ends_quietly() -> None:
    flights, work = Flights(), Work(AccessDenied("no"))
    only = asyncio.create_task(flights.join(b"key", work))
    await until(lambda: len(flights) == 1)
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    work.may_go.set()
    await until(lambda: len(flights) == 0)
    assert work.done == 1
