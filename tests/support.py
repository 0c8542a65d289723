"""A running Offhook for tests that want the real thing: a process of its own, in a folder of its own.

With OFFHOOK_TEST_SYSTEM=cluster in the environment it is two processes, on a database of their own on PostgreSQL and
on Redis; connections go to either.
"""

from __future__ import annotations

import os
import secrets
import shutil
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.databases import make_database, remove_database
from tests.redis_servers import REDIS

from offhook.testing.process import CommandFailed, ServeProcess, free_port

__all__ = ["CommandFailed", "ServerProcess", "free_port"]

SYSTEM = os.environ.get("OFFHOOK_TEST_SYSTEM", "")


class ServerProcess(ServeProcess):
    """``offhook serve`` as a process, with TLS and its usual limits.

    Args:
        data_dir: its data folder; kept over restarts.
        settings: further settings by name, as ``offhook.toml`` has them.
        functions: the text of a Python module with the applications' functions.
        workers: how many processes serve.
        enter: what goes before the command that starts it.
        alone: whether it is one process in any case, for what each process does for itself (see docs/cluster.md).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        functions: str | None = None,
        workers: int = 1,
        enter: Sequence[str] = (),
        alone: bool = False,
    ) -> None:
        settings = dict(settings or {})
        self._makes_databases = SYSTEM == "cluster" and "database_url" not in settings
        if self._makes_databases:
            url = self._new_database()
            settings |= {"database_url": url, "broker_url": REDIS, "broker_prefix": secrets.token_hex(6)}
            workers = 1 if alone else max(workers, 2)
        super().__init__(data_dir, tls=True, settings=settings, functions=functions, workers=workers, enter=enter)

    def _new_database(self) -> str:
        url = make_database(empty=True)
        weakref.finalize(self, remove_database, url)
        return url

    def lose_data(self) -> None:
        """Kills it, and destroys all that it has stored; whom its clients trust stays the same."""
        self.kill()
        for part in self.data_dir.iterdir():
            if part.name not in ("tls", "server.log"):
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        if self._makes_databases:
            self.environment["OFFHOOK_DATABASE_URL"] = self._new_database()

    @property
    def environment(self) -> dict[str, str]:
        """The process's environment; what is changed of it counts from the next start on."""
        return self._environment

    @property
    def http_host(self) -> str:
        """Host and port of the plain listener."""
        return self.host

    @property
    def pid(self) -> int:
        """The process's id, also of one that has just ended."""
        assert self._process is not None
        return self._process.pid

    @property
    def api_key(self) -> str:
        """The API key of the application that the server made on its empty database."""
        shown = self.cli("app", "show", "default")
        assert isinstance(shown, dict)
        return str(shown["api_key"])
