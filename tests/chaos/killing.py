"""What kills the server, starts it again, and asks its operators' side what it knows."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
from tests.support import ServerProcess

NODE_LEASE = 1.0
"""Seconds after which the sessions of a dead process count as lost."""
TIMEOUT = 30.0
YOUNG = 0.15
"""Of so many kills, the server is killed again while it starts."""


def seed() -> int:
    """The seed of this run, which a failure prints."""
    number = int(os.environ.get("OFFHOOK_CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"OFFHOOK_CHAOS_SEED={number}")
    return number


async def until(condition: Callable[[], bool], what: str, wrongs: Callable[[], Sequence[str]] = tuple) -> None:
    """Waits until a condition holds; fails when it does not in time, or as soon as anything is wrong."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert not (found := wrongs()), f"something is wrong: {found[:5]}"
        assert time.monotonic() < deadline, f"waited {TIMEOUT} s in vain: {what}"
        await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin API of a server, across its restarts."""

    server: ServerProcess

    def get(self, path: str, **parameters: str) -> dict[str, object]:
        """The answer to a GET."""
        return self._ask("GET", path, params=parameters)

    def patch(self, path: str, body: dict[str, object]) -> dict[str, object]:
        """The answer to a PATCH."""
        return self._ask("PATCH", path, json=body)

    def post(self, path: str, **body: object) -> dict[str, object]:
        """The answer to a POST."""
        return self._ask("POST", path, json=body)

    def sessions(self, user: str, state: str = "all") -> list[dict[str, object]]:
        """The ledger's sessions of a user, newest first."""
        found = self.get("/sessions", user=user, state=state)["sessions"]
        assert isinstance(found, list)
        return found

    def user(self, name: str) -> dict[str, object]:
        """A user of the application ``default``."""
        return self.get(f"/applications/default/users/{name}")

    def _ask(self, method: str, path: str, **options: object) -> dict[str, object]:
        token = (self.server.data_dir / "admin.token").read_text().strip()
        answer = httpx.request(
            method,
            f"{self.server.url}/admin/v1{path}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
            **options,  # type: ignore[arg-type]
        )
        answer.raise_for_status()
        value = answer.json()
        assert isinstance(value, dict)
        return value


class Killer:
    """Kills a server.

    Args:
        server: a running server.
        choices: decides when.

    Attributes:
        starts: seconds that the starts took.
        died_young: how often it was killed again while it started.
    """

    def __init__(self, server: ServerProcess, choices: random.Random) -> None:
        self._server = server
        self._random = choices
        self.kills = 0
        self.starts: list[float] = []
        self.died_young = 0

    async def kill(self) -> None:
        """Kills the server."""
        await asyncio.to_thread(self._server.kill)
        self.kills += 1

    async def start(self) -> None:
        """Starts it again, and waits until it is ready."""
        began = time.monotonic()
        await asyncio.to_thread(self._server.start)
        self.starts.append(time.monotonic() - began)

    async def restart(self) -> None:
        """Kills the server and starts it again, at times only after it was killed once more."""
        await self.kill()
        if self._random.random() < YOUNG:
            await self._die_young()
        await self.start()

    async def _die_young(self) -> None:
        """Starts the server and kills it before it is ready, or right after."""
        starting = asyncio.create_task(asyncio.to_thread(self._server.start))
        await asyncio.sleep(self._random.uniform(0.2, 1.0))
        os.kill(self._server.pid, signal.SIGKILL)
        # It says that the server has ended, unless it was ready before.
        await asyncio.gather(starting, return_exceptions=True)
        await self.kill()
        self.died_young += 1

    def figures(self) -> str:
        """What was done, in a few words."""
        return (
            f"kills {self.kills} ({self.died_young} while starting), "
            f"restart {sorted(self.starts)[len(self.starts) // 2]:.2f} s (most {max(self.starts):.2f})"
        )
