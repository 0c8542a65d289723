"""The processes that are measured: the server, and the floor beneath it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from offhook.bench import floor
from offhook.bench.client import LoadFailed, Target, until

READY_TIMEOUT = 30.0
UNLIMITED = "1000000"


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
async def running_server(data_dir: Path) -> AsyncIterator[RunningServer]:
    """Runs ``offhook serve`` on a data folder, with limits that one machine's clients do not meet.

    Raises:
        LoadFailed: it does not start.
    """
    ports = _free_port(), _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")},
        "OFFHOOK_DATA_DIR": str(data_dir),
        "OFFHOOK_PORT": str(ports[0]),
        "OFFHOOK_TLS_PORT": str(ports[1]),
        "OFFHOOK_TLS_DEV": "true",
        "OFFHOOK_LOG_FORMAT": "json",
        "OFFHOOK_LOG_LEVEL": "warning",
        "OFFHOOK_DRAIN_SECONDS": "0",
        "OFFHOOK_CONNECT_RATE": UNLIMITED,
        "OFFHOOK_CONNECT_BURST": UNLIMITED,
        "OFFHOOK_FRAME_RATE": UNLIMITED,
        "OFFHOOK_FRAME_BURST": UNLIMITED,
        "OFFHOOK_REQUEST_RATE": UNLIMITED,
        "OFFHOOK_REQUEST_BURST": UNLIMITED,
    }
    log_file = data_dir / "bench.log"
    with log_file.open("wb") as log:
        process = _python("offhook", "serve", env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        await until(lambda: _ready(process, ports[0]), "the server", READY_TIMEOUT, 0.05)
        trust = ssl.create_default_context(cafile=str(data_dir / "tls" / "authority.pem"))
        yield RunningServer(process.pid, *ports, trust)
        if process.poll() is not None:
            raise LoadFailed(f"the server ended with {process.returncode}: {_tail(log_file)}")
    except LoadFailed as error:
        raise LoadFailed(f"{error}\n{_tail(log_file)}".rstrip()) from error
    finally:
        # Nothing is kept of its data: it need not say goodbye to thousands of clients.
        process.kill()
        process.wait()


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
    process = _python(floor.__name__, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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


def _python(
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    stdin: int,
    stdout: int | IO[bytes],
    stderr: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Runs a module of this package, importable even if the package is not installed."""
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (source, env.get("PYTHONPATH"))))
    return subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, "-m", module, *arguments],
        env={**env, "PYTHONPATH": path},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ready(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        raise LoadFailed(f"the server ended with {process.returncode}")
    with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
        _get(f"http://127.0.0.1:{port}/readyz")
        return True
    return False


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own server's
        body: bytes = response.read()
        return body


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:]
