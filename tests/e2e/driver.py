"""The Node process that runs the SDKs (``js/driver.mjs``), and what it takes to start it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from tests.e2e.sdk import Client
from tests.e2e.tab import Tab
from tests.e2e.values import Event, Failure, Runtime, Thrown

JS = Path(__file__).parent / "js"
MAX_LINE = 16 * 1024 * 1024
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class _Message(msgspec.Struct):
    """A line from the driver: an answer if it has an id, a report of a client otherwise."""

    id: int | None = None
    value: object = None
    error: Failure | None = None
    client: str | None = None
    kind: str | None = None


class MissingTool(Exception):
    """Something that the end-to-end tests need is not installed; the message says what and how to get it."""


def _tool(names: tuple[str, ...], advice: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise MissingTool(f"{names[0]} is not installed. {advice}")


def _require_packages() -> None:
    """Raises MissingTool unless the npm packages are there, in the versions of package.json."""
    wanted = msgspec.json.decode((JS / "package.json").read_bytes(), type=dict[str, object])
    for name, spec in msgspec.convert(wanted["dependencies"], dict[str, str]).items():
        manifest = JS / "node_modules" / name / "package.json"
        version = spec.rpartition("@")[2]
        if not manifest.is_file() or f'"version": "{version}"' not in manifest.read_text():
            raise MissingTool(f"{spec} is not installed. Run `make test`, or `npm ci` in {JS}.")


class Driver:
    """The driver process and the clients it runs.

    Args:
        ca_file: PEM file of the authority that the clients in Node trust besides the well-known ones.
    """

    def __init__(self, ca_file: Path) -> None:
        self._ca_file = ca_file
        self._ids = itertools.count(1)
        self._names = itertools.count(1)
        self._answers: dict[int, asyncio.Future[object]] = {}
        self._clients: dict[str, Client | Tab] = {}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the process.

        Raises:
            MissingTool: Node, the packages or Chromium are not there.
        """
        node = _tool(("node",), "Install Node.js 20 or newer (Debian: apt install nodejs npm).")
        chromium = _tool(CHROMIUM_NAMES, "Install it (Debian: apt install chromium).")
        _require_packages()
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            node,
            str(JS / "driver.mjs"),
            chromium,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env={**environment, "NODE_EXTRA_CA_CERTS": str(self._ca_file)},
            limit=MAX_LINE,
        )
        self._reader = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Ends the process with all its clients. Idempotent."""
        if self._process is None or self._reader is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(15):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader
        self._log.close()
        self._process = None

    async def open(
        self, runtime: Runtime, *, host: str, api_key: str, secure: bool = False, websocket: bool = True
    ) -> Client:
        """Makes an SDK client.

        Args:
            runtime: which SDK, where.
            host: ``host:port`` as given to the SDK.
            api_key: key of the application.
            secure: whether the SDK is to use TLS.
            websocket: False for a Node without a WebSocket, where the oldest SDK falls back to SockJS.
        """
        name = f"client{next(self._names)}"
        client = self._clients[name] = Client(self, name, runtime)
        configuration = {"apiKey": api_key, "host": host, "secure": secure}
        await self.request(
            name,
            "open",
            place=runtime.place,
            sdk=runtime.sdk,
            configuration=configuration,
            websocket=websocket,
        )
        return client

    async def open_tab(self, html: str, scripts: Sequence[Path]) -> Tab:
        """Opens a page with this body, after scripts from these files, which stay as they are."""
        name = f"client{next(self._names)}"
        tab = self._clients[name] = Tab(self, name)
        await self.request(name, "open", place="tab", html=html, scripts=[str(script) for script in scripts])
        return tab

    async def request(self, client: str, op: str, **fields: object) -> object:
        """Sends a request to the driver and waits for its answer.

        Raises:
            Thrown: the SDK threw.
            ConnectionError: the driver died.
        """
        process = self._process
        assert process is not None and process.stdin is not None
        number = next(self._ids)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            request: Mapping[str, object] = {"id": number, "op": op, "client": client, **fields}
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            await process.stdin.drain()
            return await answer
        finally:
            del self._answers[number]

    def log_tail(self, size: int = 8000) -> str:
        """The end of what the driver and the pages printed."""
        self._log.flush()
        with open(self._log.fileno(), "rb", closefd=False) as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - size))
            return log.read().decode(errors="replace")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            self._take(msgspec.json.decode(line, type=_Message))
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(ConnectionError(f"the SDK driver died:\n{self.log_tail()}"))

    def _take(self, message: _Message) -> None:
        if message.id is None:
            if message.client is not None and message.kind is not None:
                self._clients[message.client].report(Event(message.kind, message.value))
            return
        answer = self._answers.get(message.id)
        if answer is None or answer.done():
            return
        if message.error is not None:
            answer.set_exception(Thrown(message.error))
        else:
            answer.set_result(message.value)

    async def forget(self, client: Client | Tab) -> None:
        """Kills a client, unless it is gone already."""
        with contextlib.suppress(Thrown):
            await client.kill()
