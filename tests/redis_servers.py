"""Redis servers of the tests' own, which can be stopped, paused and started again."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisError

from offhook.testing.process import free_port

START_WITHIN = 15.0
PROGRAM = os.environ.get("OFFHOOK_TEST_REDIS_SERVER") or "redis-server"
"""What is started: Redis's server or Valkey's."""


def _shared() -> str:
    named = os.environ.get("OFFHOOK_TEST_REDIS")
    if named is not None:
        return named
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 6379), timeout=2):
        return "redis://127.0.0.1:6379/0"
    port = free_port()
    own = subprocess.Popen([PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--logfile", os.devnull])
    atexit.register(own.kill)
    return f"redis://127.0.0.1:{port}/0"


REDIS = _shared()
"""A server for tests that do it no harm: the one that is named, or that runs on this machine, or one for them alone."""


class RedisServer:
    """One server process on the loopback, without persistence.

    Args:
        folder: for its files.
        options: further settings, as on its command line.
        cluster: whether it is to be one of a cluster.
    """

    def __init__(self, folder: Path, *options: str, cluster: bool = False) -> None:
        self._folder = folder
        self._options = options
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.bus = free_port(self.port)
        """Where it talks to the others of its cluster."""

    @property
    def url(self) -> str:
        """For one server."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it and waits until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "no", "--logfile", str(self._folder / "log")]
        if self._cluster:
            command += ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
            command += [
                "--cluster-port",
                str(self.bus),
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            ]
        self._process = subprocess.Popen([*command, *self._options])
        async with asyncio.timeout(START_WITHIN):
            while True:
                with contextlib.suppress(RedisError, OSError):
                    async with self.client() as client:
                        await client.ping()
                        return
                await asyncio.sleep(0.02)

    def client(self) -> Redis:
        """A client, to be used in ``async with``."""
        return Redis(host="127.0.0.1", port=self.port, protocol=3, decode_responses=True)

    async def run(self, *command: str | int) -> object:
        """Runs one command."""
        async with self.client() as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        """Kills it, as a machine that fails does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Makes it stand still."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends a pause."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def redis_server(folder: Path, *options: str) -> AsyncIterator[RedisServer]:
    """A server that lives as long as the context."""
    server = RedisServer(folder, *options)
    await server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def redis_cluster(folder: Path, masters: int = 3) -> AsyncIterator[list[RedisServer]]:
    """A cluster of masters that share the slots evenly."""
    servers = [RedisServer(folder / f"redis-{number}", cluster=True) for number in range(masters)]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        for number, server in enumerate(servers):
            first = REDIS_CLUSTER_HASH_SLOTS * number // masters
            last = REDIS_CLUSTER_HASH_SLOTS * (number + 1) // masters - 1
            await server.run("CLUSTER", "ADDSLOTSRANGE", first, last)
            await server.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            await server.run("CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].bus)
        async with asyncio.timeout(START_WITHIN):
            while not all([await _whole(server, masters) for server in servers]):
                await asyncio.sleep(0.05)
        yield servers
    finally:
        for server in servers:
            server.kill()


async def _whole(server: RedisServer, masters: int) -> bool:
    async with server.client() as client:
        slots = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        info = str(await client.execute_command("CLUSTER", "INFO"))  # type: ignore[no-untyped-call]
    return len(slots) == masters and "cluster_state:ok" in info


async def move_slot(servers: list[RedisServer], slot: int, target: RedisServer) -> None:
    """Gives a slot to another master, as operators do it."""
    identity = str(await target.run("CLUSTER", "MYID"))
    (source,) = [server for server in servers if await owns(server, slot)]
    # Announced to both, so that the new master's claim is the newer one wherever the old one's is still told about.
    await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", str(await source.run("CLUSTER", "MYID")))
    await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", identity)
    # The new master first, so that there is no moment at which nobody takes the slot.
    for server in [target, *(server for server in servers if server is not target)]:
        await server.run("CLUSTER", "SETSLOT", slot, "NODE", identity)


async def owns(server: RedisServer, slot: int) -> bool:
    """Whether a master has a slot, as it knows itself."""
    myself = await server.run("CLUSTER", "MYID")
    async with server.client() as client:
        slots = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
    return any(first <= slot <= last and master[2] == myself for first, last, master, *_ in slots)
