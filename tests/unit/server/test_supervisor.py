"""The supervisor as a process: signals, crashes, rolling restarts and its own end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from tests.unit.server.supervised import Supervised

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts supervisors, and ends them."""
    begun: list[Supervised] = []

    def start(workers: int = 2, **options: object) -> Supervised:
        begun.append(Supervised(tmp_path, workers, **options))  # type: ignore[arg-type]
        return begun[-1]

    yield start
    for supervised in begun:
        supervised.end()


class Visitors:
    """Clients that come one after the other, each with a connection and a request of its own.

    Args:
        supervised: whom they ask.
        lines: how many come at the same time.
    """

    def __init__(self, supervised: Supervised, lines: int = 3) -> None:
        self._supervised = supervised
        self._end = asyncio.Event()
        self.answers: dict[str, Mapping[str, object]] = {}
        self._tasks = [asyncio.create_task(self._come(line)) for line in range(lines)]

    async def _come(self, line: int) -> None:
        number = 0
        while not self._end.is_set():
            name = f"{line}-{number}"
            self.answers[name] = await self._supervised.ask(f"/answer/{name}")
            number += 1

    async def leave(self) -> None:
        """Waits for those who are there, and checks that each was answered by one worker, once."""
        self._end.set()
        await asyncio.gather(*self._tasks)
        names = (self._supervised.folder / "answered").read_text().split()
        assert sorted(names) == sorted(self.answers)


async def test_every_slot_is_filled_and_emptied(start: Start) -> None:
    supervised = start(3)
    await supervised.started()
    workers = await supervised.serving(3)
    assert len(set(workers.values())) == 3
    seen: set[object] = set()
    while len(seen) < 3:
        seen.add((await supervised.ask("/answer/a"))["slot"])

    supervised.process.send_signal(signal.SIGTERM)
    assert await supervised.ended() == 0
    await supervised.gone(workers)
    with pytest.raises(ConnectionRefusedError):
        await supervised.ask("/answer/a")
    assert "died" not in supervised.log()


async def test_the_first_slot_is_filled_before_the_others(start: Start) -> None:
    supervised = start(3)
    await supervised.started()
    steps = [sorted(said.workers) for said in supervised.said() if said.what == "changed"]
    assert steps[0] == [0]
    assert steps[-1] == [0, 1, 2]


async def test_connections_wait_while_a_killed_worker_is_replaced(start: Start) -> None:
    supervised = start(2)
    await supervised.started()
    before = await supervised.serving(2)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    # Nobody is there at this moment, and nobody is refused.
    answers = await asyncio.gather(*(supervised.ask(f"/answer/{number}") for number in range(20)))
    after = await supervised.serving(2, without=before)
    assert {answer["pid"] for answer in answers} <= set(after.values())
    assert "by SIGKILL" in supervised.log()


async def test_a_rolling_restart_answers_everyone_once(start: Start) -> None:
    supervised = start(2)
    await supervised.started()
    before = await supervised.serving(2)
    visitors = Visitors(supervised)
    for _ in range(2):
        supervised.process.send_signal(signal.SIGHUP)
        after = await supervised.serving(2, without=before)
        await supervised.gone(before)
        before = after
    await visitors.leave()
    assert {answer["generation"] for answer in visitors.answers.values()} >= {1, 2}
    # There was no moment at which a slot was empty.
    begun = [said.what for said in supervised.said()].index("started")
    assert {len(said.workers) for said in supervised.said()[begun:]} == {2}
    assert "died" not in supervised.log()


async def test_a_connection_that_has_asked_nothing_yet_is_answered_by_the_worker_that_leaves(start: Start) -> None:
    supervised = start(1)
    await supervised.started()
    before = await supervised.serving(1)
    await supervised.ask("/answer/first")
    reader, writer = await asyncio.open_connection("127.0.0.1", supervised.port)
    try:
        # Whoever is answered on a later connection was accepted later.
        await supervised.ask("/answer/second")
        os.kill(before[0], signal.SIGTERM)
        await supervised.until(lambda: "accepts no more" in supervised.log(), "the worker's notice")
        writer.write(b"GET /answer/third HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await reader.read()
    finally:
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer
    assert f'"pid":{before[0]}'.encode() in answer
    await supervised.serving(1, without=before)


async def test_hang_up_while_it_starts_or_restarts_is_not_forgotten(start: Start) -> None:
    supervised = start(2)
    await supervised.until(lambda: bool(supervised.workers), "the first worker")
    supervised.process.send_signal(signal.SIGHUP)
    await supervised.started()
    await supervised.until(lambda: "all workers are replaced" in supervised.log(), "the restart")
    supervised.process.send_signal(signal.SIGHUP)
    await supervised.until(lambda: supervised.log().count("reloading") == 2, "the second")
    supervised.process.send_signal(signal.SIGHUP)
    await supervised.until(lambda: supervised.log().count("all workers are replaced") == 3, "the third")
    assert (await supervised.ask("/answer/a"))["generation"] == 4


@pytest.mark.parametrize("manner", ["unreadable", "refuse", "vanish"])
async def test_workers_stay_if_those_who_should_replace_them_cannot_start(start: Start, manner: str) -> None:
    supervised = start(2)
    await supervised.started()
    before = await supervised.serving(2)
    supervised.behave(manner)
    supervised.process.send_signal(signal.SIGHUP)
    await supervised.until(lambda: "not replaced any further" in supervised.log(), "giving up")
    assert await supervised.serving(2) == before
    assert (await supervised.ask("/answer/a"))["generation"] == 1

    supervised.behave("serve")
    supervised.process.send_signal(signal.SIGHUP)
    await supervised.serving(2, without=before)
    await supervised.gone(before)


async def test_workers_end_without_their_supervisor(start: Start) -> None:
    supervised = start(2)
    await supervised.started()
    workers = await supervised.serving(2)
    supervised.process.kill()
    await supervised.ended()
    await supervised.gone(workers)
    with pytest.raises(ConnectionRefusedError):
        await supervised.ask("/answer/a")


@pytest.mark.parametrize(
    ("manner", "code", "words"),
    [
        ("refuse", 4, "unavailable: There is no database"),
        ("vanish", 3, "worker_failed: Worker 0 ended before it was ready, with exit code 3"),
        ("hang", 1, "worker_failed: Worker 0 was not ready within 1 seconds"),
    ],
)
async def test_a_worker_that_cannot_start_at_first_ends_it(start: Start, manner: str, code: int, words: str) -> None:
    # A process needs a moment until it can say that it cannot start.
    supervised = start(2, manner=manner, patience={"start": 1.0} if manner == "hang" else {})
    assert await supervised.ended() == code
    said = supervised.said()
    assert [each.what for each in said] == ["bound", "failed"]
    assert said[-1].words.startswith(words)


async def test_it_gives_up_when_no_slot_can_be_filled_any_more(start: Start) -> None:
    supervised = start(2, patience={"attempts": 3, "longest_pause": 0.05})
    await supervised.started()
    supervised.behave("refuse")
    for pid in (await supervised.serving(2)).values():
        os.kill(pid, signal.SIGKILL)
    assert await supervised.ended() == 4
    assert supervised.said()[-1].words == "unavailable: There is no database"


async def test_it_does_not_give_up_while_somebody_serves(start: Start) -> None:
    supervised = start(2, patience={"attempts": 2, "longest_pause": 0.02})
    await supervised.started()
    before = await supervised.serving(2)
    supervised.behave("vanish")
    os.kill(before[1], signal.SIGKILL)
    await supervised.until(lambda: supervised.log().count("cannot be started") > 4, "attempts")
    supervised.behave("serve")
    after = await supervised.serving(2, without={1: before[1]})
    assert after[0] == before[0]


async def test_a_slot_that_cannot_be_filled_keeps_nobody_waiting(start: Start) -> None:
    supervised = start(2, patience={"longest_pause": 0.02})
    await supervised.started()
    before = await supervised.serving(2)
    supervised.behave("vanish")
    os.kill(before[1], signal.SIGKILL)
    await supervised.until(lambda: "cannot be started" in supervised.log(), "an attempt")
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(supervised.ask(f"/answer/{number}") for number in range(30)))
    assert {answer["slot"] for answer in answers} == {0}
    supervised.behave("serve")
    await supervised.serving(2, without={1: before[1]})
    seen: set[object] = set()
    async with asyncio.timeout(10):
        while len(seen) < 2:
            seen.add((await supervised.ask("/answer/a"))["slot"])


async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    supervised = start(2, manner="stay")
    await supervised.started()
    workers = await supervised.serving(2)
    supervised.process.send_signal(signal.SIGTERM)
    await supervised.until(lambda: supervised.log().count('"signal": "SIGTERM"') == 3, "the workers' notice")
    assert supervised.process.poll() is None
    supervised.process.send_signal(signal.SIGTERM)
    assert await supervised.ended() == 0
    await supervised.gone(workers)
    assert "is killed" not in supervised.log()


async def test_a_worker_that_does_not_end_is_killed(start: Start) -> None:
    supervised = start(2, manner="stay", patience={"stop": 0.3})
    await supervised.started()
    before = await supervised.serving(2)
    supervised.behave("serve")
    supervised.process.send_signal(signal.SIGHUP)
    after = await supervised.serving(2, without=before)
    await supervised.gone(before)
    assert supervised.log().count("is killed") == 2
    assert await supervised.serving(2) == after


async def test_a_signal_while_it_starts_leaves_nobody_behind(start: Start) -> None:
    supervised = start(3, manner="hang")
    await supervised.until(lambda: bool(psutil.Process(supervised.process.pid).children()), "a worker")
    children = {child.pid: child.pid for child in psutil.Process(supervised.process.pid).children()}
    supervised.process.send_signal(signal.SIGTERM)
    assert await supervised.ended() == 0
    await supervised.gone(children)
    assert [said.what for said in supervised.said()] == ["bound"]


async def test_a_terminal_interrupts_the_supervisor_alone(start: Start) -> None:
    supervised = start(2)
    await supervised.started()
    os.killpg(supervised.process.pid, signal.SIGINT)
    assert await supervised.ended() == 0
    assert "stopping at once" not in supervised.log()
    assert supervised.log().count('"signal": "SIGINT"') == 1


async def test_nothing_piles_up_over_many_restarts(start: Start) -> None:
    supervised = start(1, patience={"stable": 0.0})
    await supervised.started()
    itself = psutil.Process(supervised.process.pid)
    workers = await supervised.serving(1)
    descriptors, threads = itself.num_fds(), itself.num_threads()
    theirs = (await supervised.ask("/around"))["descriptors"]
    for number in range(20):
        if number % 2:
            supervised.process.send_signal(signal.SIGHUP)
        else:
            os.kill(workers[0], signal.SIGKILL)
        workers = await supervised.serving(1, without=workers)
    await supervised.until(lambda: len(itself.children()) == 1, "the last one's end")
    assert (await supervised.ask("/around"))["descriptors"] == theirs
    await supervised.until(lambda: (itself.num_fds(), itself.num_threads()) == (descriptors, threads), "nothing left")


async def test_systemd_hears_of_it(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()

        async def heard() -> str:
            async with asyncio.timeout(20):
                return (await loop.sock_recv(sock, 4096)).decode()

        supervised = start(2, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert await heard() == "READY=1"
        around = (await supervised.ask("/around"))["environment"]
        assert isinstance(around, list) and "PATH" in around and "NOTIFY_SOCKET" not in around
        supervised.process.send_signal(signal.SIGHUP)
        assert (await heard()).startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert await heard() == "READY=1"
        supervised.process.send_signal(signal.SIGTERM)
        assert await heard() == "STOPPING=1"
        assert await supervised.ended() == 0
