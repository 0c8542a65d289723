"""The leak check finds what is left, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from offhook.client.blocking import Blocking
from offhook.testing import Leaked, leaks

SOON = 0.1

linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="what descriptors are is only told by Linux")


async def forgotten(event: asyncio.Event) -> None:
    """What a leaked task does."""
    await event.wait()


async def test_nothing_left() -> None:
    async with leaks(SOON):
        await asyncio.create_task(asyncio.sleep(0))
        with socket.socket():
            pass


async def test_a_leaked_task_is_told_with_its_name_and_stack() -> None:
    event = asyncio.Event()
    with pytest.raises(Leaked, match="1 tasks and 0 descriptors") as caught:
        async with leaks(SOON):
            task = asyncio.create_task(forgotten(event), name="the forgotten one")
    assert caught.value.tasks == (task,)
    assert "the forgotten one" in str(caught.value)
    assert "await event.wait()" in str(caught.value)
    event.set()
    await task


async def test_a_leaked_socket_is_told_with_its_addresses() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with pytest.raises(Leaked, match="0 tasks and 1 descriptors") as caught:
        async with leaks(SOON):
            client = socket.create_connection(("127.0.0.1", port))
    (left,) = caught.value.descriptors
    assert left.number == client.fileno()
    assert f"connected to 127.0.0.1:{port}" in left.description
    client.close()
    listener.close()


@linux
async def test_a_leaked_file_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(Leaked) as caught:
        async with leaks(SOON):
            file = (tmp_path / "left open").open("w")
    assert "left open" in str(caught.value)
    file.close()


async def test_where_a_socket_was_made_is_told_while_tracing() -> None:
    tracemalloc.start(5)
    try:
        with pytest.raises(Leaked, match=r"test_leak_check\.py"):
            async with leaks(SOON):
                left = socket.socket()
    finally:
        tracemalloc.stop()
    left.close()


async def test_a_number_that_is_used_again_hides_nothing() -> None:
    before = socket.socket()
    number = before.fileno()
    with pytest.raises(Leaked):
        async with leaks(SOON):
            before.close()
            after = socket.socket()
            assert after.fileno() == number
    after.close()


async def test_what_was_there_before_does_not_count() -> None:
    event = asyncio.Event()
    task = asyncio.create_task(forgotten(event))
    with socket.socket():
        async with leaks(SOON):
            pass
    event.set()
    await task


async def test_what_ends_in_time_does_not_count() -> None:
    left, right = socket.socketpair()
    async with leaks():
        task = asyncio.create_task(asyncio.sleep(SOON), name="slow to end")
        copy = left.dup()
        asyncio.get_running_loop().call_later(SOON, copy.close)
    assert task.done()
    left.close()
    right.close()


async def test_it_waits_no_longer_than_told() -> None:
    event = asyncio.Event()
    began = time.monotonic()
    with pytest.raises(Leaked):
        async with leaks(SOON):
            task = asyncio.create_task(forgotten(event))
    assert SOON <= time.monotonic() - began < SOON + 2
    event.set()
    await task


async def test_an_exception_of_the_context_comes_first() -> None:
    event = asyncio.Event()
    with pytest.raises(ZeroDivisionError):
        async with leaks(SOON):
            task = asyncio.create_task(forgotten(event))
            raise ZeroDivisionError
    event.set()
    await task


async def test_a_task_that_leaves_what_another_entered_is_not_left_itself() -> None:
    check = leaks(SOON)
    await asyncio.create_task(check.__aenter__())
    await asyncio.create_task(check.__aexit__(None, None, None))


async def test_in_a_coroutine_it_must_be_asynchronous() -> None:
    with pytest.raises(RuntimeError, match="async with"), leaks():
        pass


def test_without_asyncio() -> None:
    with leaks(SOON), socket.socket():
        pass
    with pytest.raises(Leaked), leaks(SOON):
        left = socket.socket()
    left.close()


def test_a_blocking_client_that_ends_leaves_nothing() -> None:
    with leaks(), Blocking() as blocking:
        blocking.run(asyncio.sleep(0))


def test_a_task_of_another_loop_is_found() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    event = asyncio.Event()
    with pytest.raises(Leaked, match="of another loop"), leaks(SOON):
        started = threading.Event()

        async def start() -> asyncio.Task[None]:
            task = asyncio.create_task(forgotten(event), name="of another loop")
            started.set()
            return task

        task = asyncio.run_coroutine_threadsafe(start(), loop).result()
        started.wait()
    loop.call_soon_threadsafe(event.set)

    async def join() -> None:
        await task

    asyncio.run_coroutine_threadsafe(join(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
