"""A server with an application mounted, and bare connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import pytest
import uvloop

from offhook.server.asgi import Health, build_app
from offhook.server.listeners import Endpoint, Listeners
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import TimerWheel
from offhook.server.tls import Certificates, development_certificate
from offhook.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

ORIGIN = "https://app.example"
Arguments = ParamSpec("Arguments")


def on_each_loop(test: Callable[Arguments, Coroutine[object, object, None]]) -> Callable[..., None]:
    """Runs a test on each kind of event loop."""

    @functools.wraps(test)
    def run(
        make_loop: Callable[[], asyncio.AbstractEventLoop], *args: Arguments.args, **more: Arguments.kwargs
    ) -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(test(*args, **more))

    signature = inspect.signature(test)
    first = inspect.Parameter("make_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])  # type: ignore[attr-defined]
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    mark: Callable[[Callable[..., None]], Callable[..., None]] = pytest.mark.parametrize(
        "make_loop", loops, ids=["asyncio", "uvloop"]
    )
    return mark(run)


@dataclass
class Answer:
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, object]:
        told: dict[str, object] = json.loads(self.body)
        return told


async def read(reader: asyncio.StreamReader) -> Answer:
    """The next response; it must say how long it is."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Answer(int(first.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@dataclass
class Site:
    """A server with the application mounted, and connections to it."""

    endpoints: list[Endpoint]
    metrics: Metrics
    listeners: Listeners
    trust: ssl.SSLContext | None = None

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.endpoints[-1].port, ssl=self.trust)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
        async with self.connect() as (reader, writer):
            writer.write(head(method, path, f"content-length: {len(body)}", *headers) + body)
            return await read(reader)

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.005)


def head(method: str, path: str, *headers: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: a.example:81", f"origin: {ORIGIN}", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


@contextlib.asynccontextmanager
async def serve(app: ASGIApp, base_path: str = "", tls: Path | None = None, **settings: object) -> AsyncIterator[Site]:
    chosen = Settings.model_validate({"port": 0, "tls_port": 0, **settings})
    made = None if tls is None else development_certificate(tls)
    timers, metrics = TimerWheel(0.02), Metrics()
    proxies = TrustedProxies(chosen.trusted_proxies)
    certificates = None if made is None else Certificates(made.certificate)
    listeners = Listeners(chosen, timers, metrics, proxies, certificates)
    whole = build_app(
        [],
        health=Health(started=True),
        metrics=metrics,
        proxies=proxies,
        max_body=100_000,
        base_path=base_path,
        mounts=[("/rest/", app), ("/v2.0/", app)],
    )
    timers.start(asyncio.get_running_loop())
    endpoints = await listeners.start(whole, None)
    trust = None if made is None else ssl.create_default_context(cafile=str(made.authority))
    try:
        async with asyncio.timeout(60):
            yield Site(endpoints, metrics, listeners, trust)
    finally:
        await listeners.close(0.0)
        timers.stop()
