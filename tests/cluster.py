"""Several servers that are one system, on a database and a broker that they share."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.databases import make_database, remove_database
from tests.machine import Machine
from tests.redis_servers import REDIS
from tests.support import ServerProcess


class Cluster:
    """Servers as on several machines: they share nothing but PostgreSQL and Redis.

    Args:
        folder: has a data folder of each.
        size: how many.
        settings: further settings of all.
        functions: the text of a Python module with the applications' functions.
        database_url: what they share, if it is not to be a new database on the machine's PostgreSQL.
        broker_url: likewise.
        machine: where the last of them runs, if not with the others.

    Attributes:
        nodes: the servers.
        database_url: what they share.
    """

    def __init__(
        self,
        folder: Path,
        size: int = 2,
        *,
        settings: Mapping[str, str] | None = None,
        functions: str | None = None,
        database_url: str | None = None,
        broker_url: str = REDIS,
        machine: Machine | None = None,
    ) -> None:
        self._made = database_url is None
        self.database_url = database_url or make_database(empty=True)
        shared = {
            "database_url": self.database_url,
            "broker_url": broker_url,
            "broker_prefix": secrets.token_hex(6),
            "secret_key": secrets.token_hex(32),
            **(settings or {}),
        }
        apart = {} if machine is None else {size - 1: machine}
        self.nodes: Sequence[ServerProcess] = [
            ServerProcess(
                folder / f"node-{number}",
                settings=shared | ({"host": apart[number].address} if number in apart else {}),
                functions=functions,
                enter=apart[number].enter if number in apart else (),
            )
            for number in range(size)
        ]

    def start(self) -> None:
        """Starts all of them at once, on an empty database for all of them."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(ServerProcess.start, self.nodes))

    def stop(self) -> None:
        """Ends all of them, and removes the database that was made for them."""
        try:
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(ServerProcess.stop, self.nodes))
        finally:
            if self._made:
                remove_database(self.database_url)

    def log(self) -> str:
        """The last part of what each wrote."""
        return "\n".join(f"--- {node.data_dir.name}\n{node.log()}" for node in self.nodes)


@contextlib.contextmanager
def running(folder: Path, broker_url: str = REDIS, **settings: str) -> Iterator[Cluster]:
    """Two servers that live as long as the context; arguments as for ``Cluster``."""
    made = Cluster(folder, settings=settings, broker_url=broker_url)
    try:
        made.start()
        yield made
        print(made.log())
    finally:
        made.stop()
