"""The processes that are measured: the server, and the floor beneath it."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from offhook.bench import floor
from offhook.bench.client import LoadFailed, Target
from offhook.testing.process import LOOSE, ServeProcess, ServerFailed, importable


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that was started to be measured.

    Attributes:
        pid: its process.
        port: of its plain listener.
        tls_port: of its TLS listener.
        trust: how to trust that.
    """

    pid: int
    port: int
    tls_port: int
    trust: ssl.SSLContext

    def target(self, api_key: str, tls: bool = False) -> Target:
        """Where clients connect."""
        return Target(self.tls_port, api_key, self.trust) if tls else Target(self.port, api_key)

    async def metric(self, name: str) -> float:
        """The sum of a metric over all its labels."""
        text = (await asyncio.to_thread(_get, f"http://127.0.0.1:{self.port}/metrics")).decode()
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for value in found)


@asynccontextmanager
async def running_server(data_dir: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[RunningServer]:
    """Runs ``offhook serve`` on a data folder, with limits that one machine's clients do not meet.

    Args:
        data_dir: the folder.
        settings: further settings by name.

    Raises:
        LoadFailed: it does not start.
    """
    process = ServeProcess(data_dir, tls=True, settings={**LOOSE, "log_level": "warning", **(settings or {})})
    try:
        await asyncio.to_thread(process.start)
        pid = process.pid
        if pid is not None:
            trust = ssl.create_default_context(cafile=str(process.ca_file))
            yield RunningServer(pid, process.port, process.tls_port, trust)
        if process.pid is None:
            raise LoadFailed(f"the server ended by itself: {process.log()}")
    except ServerFailed as error:
        raise LoadFailed(error.message) from error
    except LoadFailed as error:
        raise LoadFailed(f"{error}\n{process.log()}".rstrip()) from error
    finally:
        # Nothing is kept of its data: it need not say goodbye to thousands of clients.
        process.kill()


@dataclass(slots=True)
class RunningFloor:
    """A floor server.

    Attributes:
        pid: its process.
        port: where it listens.
    """

    pid: int
    port: int
    _writer: asyncio.StreamWriter

    @property
    def target(self) -> Target:
        return Target(self.port, "floor")

    def write(self, payload: bytes, times: int = 1) -> None:
        """Has it write bytes to each of its clients, ``times`` times within one tick of its loop."""
        self._writer.write(len(payload).to_bytes(4, "big") + bytes((times,)) + payload)


@asynccontextmanager
async def running_floor() -> AsyncIterator[RunningFloor]:
    """Runs a floor server."""
    process = _python(floor.__name__)
    try:
        assert process.stdout is not None
        port = int(await asyncio.to_thread(process.stdout.readline))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(floor.HELLO)
            yield RunningFloor(process.pid, port, writer)
        finally:
            writer.close()
    finally:
        process.kill()
        process.communicate()


class RunningProcess:
    """A module of this package that answers lines with lines. Make it with :func:`running_module`.

    Attributes:
        pid: its process.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.pid = process.pid

    async def ask(self, line: bytes) -> bytes:
        """Sends a line and waits for the one that answers it; empty if the process has ended."""
        return await asyncio.to_thread(self._ask, line)

    def _ask(self, line: bytes) -> bytes:
        try:
            self._stdin.write(line)
            self._stdin.flush()
        except BrokenPipeError:
            return b""
        return self._stdout.readline()


@asynccontextmanager
async def running_module(module: str) -> AsyncIterator[RunningProcess]:
    """Runs a module of this package that takes orders on its standard input."""
    process = _python(module)
    try:
        yield RunningProcess(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _python(module: str) -> subprocess.Popen[bytes]:
    """Runs a module of this package, importable even if the package is not installed."""
    return subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, "-m", module], env=importable(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own server's
        body: bytes = response.read()
        return body
