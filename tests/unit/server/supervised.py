"""A supervisor as a process, seen from a test."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import psutil
from tests.unit.server.supervisor_program import Orders, Said

ROOT = Path(__file__).parents[3]
SECONDS = 20.0
"""The longest that anything is waited for."""


class Supervised:
    """A supervisor with small workers.

    Args:
        folder: where its files are.
        workers: how many.
        manner: what the workers do, see ``worker_program``.
        patience: see ``Patience``.
        environment: further environment.
        settings: of the listeners.
    """

    def __init__(
        self,
        folder: Path,
        workers: int = 2,
        *,
        manner: str = "serve",
        patience: Mapping[str, float] | None = None,
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, int] | None = None,
    ) -> None:
        self.folder = folder
        self.behave(manner)
        given = {"port": 0, "connect_rate": 1_000_000, "connect_burst": 1_000_000, **(settings or {})}
        orders = Orders(str(folder), workers, {"first_pause": 0.02, **(patience or {})}, given)
        self._output = folder / "output"
        with self._output.open("wb") as output, (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.server.supervisor_program", msgspec.json.encode(orders).decode()],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )

    def behave(self, manner: str) -> None:
        """Says what workers do that start from now on."""
        draft = self.folder / "manner.new"
        draft.write_text(manner)
        draft.replace(self.folder / "manner")

    def said(self) -> list[Said]:
        """All that the supervisor said so far."""
        lines = self._output.read_bytes().split(b"\n")[:-1]
        return [msgspec.json.decode(line, type=Said) for line in lines]

    def log(self) -> str:
        """What supervisor and workers wrote."""
        return (self.folder / "log").read_text()

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Waits until something is so."""
        try:
            async with asyncio.timeout(SECONDS):
                while not true():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"Never so: {what}\n{self.said()}\n{self.log()}") from None

    async def started(self) -> None:
        """Waits until all workers serve."""
        await self.until(lambda: any(said.what == "started" for said in self.said()), "started")

    async def serving(self, count: int, *, without: Mapping[int, int] | None = None) -> dict[int, int]:
        """Waits until so many slots are filled, by others than those named. Returns slot → process id."""
        gone = set((without or {}).values())
        await self.until(
            lambda: len(self.workers) == count and not gone & set(self.workers.values()), f"{count} other workers"
        )
        return self.workers

    @property
    def workers(self) -> dict[int, int]:
        """Slot → process id of the workers that serve."""
        said = self.said()
        return said[-1].workers if said else {}

    @property
    def port(self) -> int:
        """Where they serve."""
        return self.said()[0].port

    async def ended(self) -> int:
        """Waits for the supervisor's end. Returns its exit code."""
        await self.until(lambda: self.process.poll() is not None, "the supervisor's end")
        return self.process.returncode

    async def gone(self, pids: Mapping[int, int]) -> None:
        """Waits until processes have ended."""
        await self.until(lambda: not any(running(pid) for pid in pids.values()), f"the end of {pids}")

    async def ask(self, path: str) -> Mapping[str, object]:
        """One request on a connection of its own."""
        return await asyncio.to_thread(self._ask, path)

    def _ask(self, path: str) -> Mapping[str, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"connection": "close"})
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, (response.status, body)
            return msgspec.json.decode(body, type=dict[str, object])

    def end(self) -> None:
        """Kills what is left of it."""
        left = [*self.workers.values()]
        with contextlib.suppress(psutil.NoSuchProcess):
            left += [child.pid for child in psutil.Process(self.process.pid).children()]
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                if running(pid):
                    os.kill(pid, signal.SIGKILL)


def running(pid: int) -> bool:
    """Whether a process lives; one that has ended and is not yet looked after does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
