"""Several workers of one service, on PostgreSQL and Redis: whichever of them a client meets, it is one system."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
import pytest_asyncio
from tests.databases import SERVER as POSTGRES
from tests.redis_servers import REDIS
from tests.support import CommandFailed, ServerProcess, free_port

from offhook.chatkitty import ChatKitty

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

WORKERS = 2
SECONDS = 40.0


async def execute(statement: str) -> None:
    """Has the PostgreSQL server do something."""
    connection = await asyncpg.connect(POSTGRES)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class Service(ServerProcess):
    """``offhook serve --workers 2``.

    Args:
        folder: its data folder.
        database: the name of an empty database.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.metrics_port = free_port()
        given = {
            "database_url": f"{POSTGRES.rpartition('/')[0]}/{database}",
            "broker_url": REDIS,
            "metrics_port": str(self.metrics_port),
            "drain_seconds": "1",
        }
        super().__init__(folder, settings=given, workers=WORKERS)

    @property
    def note(self) -> Mapping[str, object]:
        """What the lock file says."""
        value: object = json.loads((self.data_dir / "server.lock").read_text() or "{}")
        assert isinstance(value, dict)
        return value

    @property
    def nodes(self) -> set[str]:
        """Names of the nodes that serve."""
        nodes = self.note.get("nodes")
        return set(nodes) if isinstance(nodes, list) else set()

    @property
    def workers(self) -> list[int]:
        """The workers' process ids."""
        return [child.pid for child in psutil.Process(self.pid).children()]

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Waits until something is so."""
        try:
            async with asyncio.timeout(SECONDS):
                while not true():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"Never so: {what}\n{self.log()}") from None

    async def renewed(self, before: set[str]) -> None:
        """Waits until other nodes serve than those named, as many as there should be."""
        await self.until(lambda: len(self.nodes) == WORKERS and not self.nodes & before, "other nodes")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    database = f"offhook_test_{secrets.token_hex(6)}"
    await execute(f"CREATE DATABASE {database}")
    service = Service(tmp_path_factory.mktemp("workers"), database)
    try:
        await asyncio.to_thread(service.start)
        await service.until(lambda: len(service.nodes) == WORKERS, "all workers")
        yield service
        assert await asyncio.to_thread(service.stop) == 0
    finally:
        service.kill()
        await execute(f"DROP DATABASE {database} WITH (FORCE)")


class Visitors:
    """Clients that come one after the other, each with a connection and a request of its own."""

    def __init__(self, service: Service) -> None:
        self._url = f"{service.url}/healthz"
        self._end = asyncio.Event()
        self.answered = 0
        self._tasks = [asyncio.create_task(self._come()) for _ in range(2)]

    async def _come(self) -> None:
        while not self._end.is_set():
            async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as http:
                (await http.get(self._url)).raise_for_status()
            self.answered += 1

    async def leave(self) -> None:
        """Waits for those who are there; raises what one of them saw."""
        self._end.set()
        await asyncio.gather(*self._tasks)
        assert self.answered >= len(self._tasks)


def ended(pids: Sequence[int]) -> bool:
    """Whether none of the processes runs any more."""

    def runs(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(runs, pids))


async def test_the_lock_says_who_serves_and_commands_find_it(service: Service) -> None:
    assert service.note["pid"] == service.pid
    assert service.note["urls"] == [service.url, f"https://127.0.0.1:{service.tls_port}"]
    shown = await asyncio.to_thread(service.cli, "app", "show", "default")
    assert isinstance(shown, dict) and shown["name"] == "default"
    with pytest.raises(CommandFailed, match="Another Offhook uses the data folder"):
        await asyncio.to_thread(service.cli, "serve", "--workers", "2")


async def test_each_worker_shows_metrics_of_its_own(service: Service) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for number in range(WORKERS):
            url = f"http://127.0.0.1:{service.metrics_port + number}"
            assert (await http.get(f"{url}/readyz")).status_code == 200
            assert f'offhook_sessions{{worker="{number}"}}' in (await http.get(f"{url}/metrics")).text
            assert (await http.get(f"{url}/admin/v1/applications")).status_code == 404


async def test_new_connections_notice_no_rolling_restart(service: Service) -> None:
    before, processes = service.nodes, service.workers
    visitors = Visitors(service)
    assert service.pid is not None
    os.kill(service.pid, signal.SIGHUP)
    await service.renewed(before)
    await service.until(lambda: ended(processes), "the old ones' end")
    await visitors.leave()


async def test_new_connections_wait_for_killed_workers(service: Service) -> None:
    before = service.nodes
    for pid in service.workers:
        os.kill(pid, signal.SIGKILL)
    visitors = Visitors(service)
    await service.renewed(before)
    await visitors.leave()


async def test_a_session_outlives_the_worker_that_held_it(service: Service) -> None:
    api_key = await asyncio.to_thread(lambda: service.api_key)
    async with ChatKitty(api_key, host=service.host, is_secure=False) as kitty:
        (await kitty.start_session("traveller")).unwrap()
        before = service.nodes
        for pid in service.workers:
            os.kill(pid, signal.SIGKILL)
        await service.renewed(before)
        changed = await kitty.update_current_user(lambda user: user.replace(display_name="Back"))
        assert changed.unwrap().user.display_name == "Back"
    listed = await asyncio.to_thread(service.cli, "session", "list", "--user", "traveller")
    assert isinstance(listed, dict)
    (session,) = listed["sessions"]
    assert (session["state"], session["resumes"]) == ("ended", 1)


async def test_workers_end_with_their_supervisor_and_the_next_takes_over(service: Service) -> None:
    workers = service.workers
    service.kill()
    await asyncio.to_thread(service.start)
    await service.until(lambda: ended(workers), "the orphans' end")
    await service.until(lambda: len(service.nodes) == WORKERS, "all workers")
