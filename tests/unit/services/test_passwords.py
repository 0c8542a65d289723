from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher, extract_parameters
from structlog.testing import capture_logs

from offhook.errors import InvalidInput, Unavailable
from offhook.services.passwords import MAX_PASSWORD, NICENESS, Passwords, default_hasher, prepare

CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    made = Passwords(hasher=CHEAP)
    yield made
    await made.close()


async def test_a_password_fits_its_own_hash_only(passwords: Passwords) -> None:
    hashed = await passwords.hash("correct horse")
    assert hashed != await passwords.hash("correct horse"), "hashes are salted"
    assert await passwords.verify("correct horse", hashed)
    for wrong in ("", "Correct horse", "correct horse ", "correct  horse", "\0", "\ud800", "x" * 5000):
        assert not await passwords.verify(wrong, hashed)


async def test_the_costs_are_at_least_owasps_and_old_hashes_are_told(passwords: Passwords) -> None:
    parameters = extract_parameters(default_hasher().hash("x"))
    assert parameters.type.name == "ID"
    assert parameters.memory_cost >= 19 * 1024
    assert parameters.time_cost >= 2
    cheap = await passwords.hash("x")
    assert not passwords.needs_rehash(cheap)
    dear = Passwords()
    assert dear.needs_rehash(cheap)
    assert dear.needs_rehash("not a hash")
    assert await dear.verify("x", cheap), "an old hash still works"
    await dear.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [("Zoë", "Zoe\u0308"), ("Å", "\u212b"), ("pass word", "pass\u00a0word"), ("a b", "a\u3000b")],
)
async def test_a_password_is_the_same_however_it_is_typed(passwords: Passwords, one: str, other: str) -> None:
    assert prepare(one) == prepare(other)
    assert await passwords.verify(other, await passwords.hash(one))


@pytest.mark.parametrize("password", ["", "x" * (MAX_PASSWORD + 1), "é" * (MAX_PASSWORD // 2 + 1), "\ud800"])
async def test_unusable_passwords(passwords: Passwords, password: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await passwords.hash(password)
    assert caught.value.field == "password"


async def test_the_longest_password(passwords: Passwords) -> None:
    longest = "é" * (MAX_PASSWORD // 2)
    assert await passwords.verify(longest, await passwords.hash(longest))
    assert not await passwords.verify("é" * 510, await passwords.hash(longest))


async def test_an_unusable_hash_refuses_and_is_logged(passwords: Passwords) -> None:
    with capture_logs() as logs:
        assert not await passwords.verify("x", "not a hash")
        assert not await passwords.verify("x", (await passwords.hash("x"))[:-30] + "!" * 30)
    assert [entry["event"] for entry in logs] == ["password_hash_unusable"] * 2


async def test_an_unknown_user_takes_as_long_as_a_known_one() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("x")

    async def quickest(stored: str | None) -> float:
        # The time of the processor, in all threads: other work on the machine makes no difference to it.
        took = []
        for _ in range(5):
            began = time.process_time()
            assert not await passwords.verify("wrong", stored)
            took.append(time.process_time() - began)
        return min(took)

    known, unknown = await quickest(hashed), await quickest(None)
    await passwords.close()
    assert 0.5 < unknown / known < 2


async def test_the_loop_stays_responsive_while_passwords_are_checked() -> None:
    passwords = Passwords(workers=1)
    hashed = await passwords.hash("x")
    gathered = asyncio.gather(*(passwords.verify("x", hashed) for _ in range(50)))
    lags: list[float] = []
    while not gathered.done():
        began = time.perf_counter()
        await asyncio.sleep(0.002)
        lags.append(time.perf_counter() - began - 0.002)
    assert all(await gathered)
    await passwords.close()
    assert len(lags) > 50
    assert sorted(lags)[int(len(lags) * 0.95)] < 0.05, "checking passwords holds the loop up"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
async def test_the_hashing_threads_step_back(passwords: Passwords) -> None:
    await passwords.hash("x")
    [thread] = [thread for thread in threading.enumerate() if thread.name.startswith("offhook-passwords")]
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert thread.native_id is not None
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == min(19, own + NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


async def test_waiting_is_bounded_and_those_who_leave_make_room() -> None:
    passwords = Passwords(max_waiting=2)
    hashed = await passwords.hash("x")
    tasks = [asyncio.create_task(passwords.verify("x", hashed)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await passwords.verify("x", hashed)
    with pytest.raises(Unavailable):
        await passwords.hash("x")
    tasks[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[2]
    assert await passwords.verify("x", hashed)
    assert [await task for task in tasks[:2]] == [True, True]
    await passwords.close()


async def test_close_ends_the_threads_and_fails_what_waits() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("x")
    tasks = [asyncio.create_task(passwords.verify("x", hashed)) for _ in range(20)]
    await asyncio.sleep(0)
    await passwords.close()
    await passwords.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is True or isinstance(result, Unavailable) for result in results)
    assert isinstance(results[-1], Unavailable)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("offhook-passwords")]
    with pytest.raises(Unavailable):
        await passwords.verify("x", hashed)
