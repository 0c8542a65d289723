"""Both listeners over real sockets, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from offhook.codes import CloseReason
from offhook.errors import InvalidInput
from offhook.protocols.websocket import UpgradeRequest
from offhook.server import http, listeners
from offhook.server.asgi import Health, build_app
from offhook.server.binding import bind
from offhook.server.listeners import Endpoint, Listeners
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import TimerWheel
from offhook.server.tls import Certificates, development_certificate
from offhook.server.upgrades import Upgraded
from offhook.server.websocket import (
    Accepted,
    Peer,
    Rejected,
    Socket,
    WebSocketProtocol,
    WebSocketSettings,
    protocol_factory,
)
from offhook.settings import Settings

RunScenario = Callable[[Coroutine[object, object, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> RunScenario:
    """Runs a scenario on each kind of loop."""

    def run(scenario: Coroutine[object, object, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await scenario

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return run


class Echo:
    """A WebSocket handler that sends back what it gets."""

    def opened(self, socket: Socket) -> None:
        self.socket = socket

    def received(self, data: bytes) -> None:
        self.socket.send(data)

    def alive(self, data: bytes) -> None: ...

    def closed(self, reason: CloseReason, detail: str) -> None: ...


class Site:
    """A running pair of listeners, with what is needed to look into it."""

    def __init__(self, settings: Settings, certificates: Certificates | None) -> None:
        self.timers = TimerWheel(0.02)
        self.metrics = Metrics()
        self.sockets: set[WebSocketProtocol] = set()
        self.busy = asyncio.Event()
        self.proceed = asyncio.Event()
        proxies = TrustedProxies(settings.trusted_proxies)
        self.listeners = Listeners(settings, self.timers, self.metrics, proxies, certificates)
        self.app = build_app(
            [
                Route("/hello", self.hello),
                Route("/echo", self.echo, methods=["POST"]),
                Route("/early", self.hello, methods=["POST"]),
                Route("/wait", self.wait),
                Route("/flood", self.flood),
            ],
            health=Health(started=True),
            metrics=self.metrics,
            proxies=proxies,
            max_body=100_000,
        )
        self.factory = protocol_factory(self.accept, WebSocketSettings(), self.timers, self.sockets)
        self.endpoints: list[Endpoint] = []

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse(f"{request.url.scheme} {request.client.host if request.client else ''}")

    async def echo(self, request: Request) -> Response:
        return Response(await request.body())

    async def wait(self, request: Request) -> Response:
        self.busy.set()
        await self.proceed.wait()
        return PlainTextResponse("done")

    async def flood(self, request: Request) -> Response:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)

        return StreamingResponse(endless())

    def accept(self, request: UpgradeRequest, peer: Peer) -> Accepted | Rejected:
        return Rejected(403, "No") if request.path == "/forbidden" else Accepted(Echo(), None)

    @property
    def port(self) -> int:
        return self.endpoints[0].port

    async def raw(self, data: bytes) -> bytes:
        """Sends bytes to the plain listener and reads until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        with contextlib.closing(writer):
            return await reader.read()

    async def get(self, path: str, headers: str = "") -> bytes:
        return await self.raw(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n".encode())

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serve(certificates: Certificates | None = None, **settings: object) -> AsyncIterator[Site]:
    site = Site(Settings.model_validate({"port": 0, "tls_port": 0, **settings}), certificates)
    site.timers.start(asyncio.get_running_loop())
    site.endpoints = await site.listeners.start(site.app, site.factory)
    try:
        yield site
    finally:
        for connection in list(site.sockets):
            connection.abort(CloseReason.DRAINING)
        await site.listeners.close(0.0)
        await site.until(lambda: not site.sockets and site.listeners.admission.total == 0)
        assert site.metrics.connections == {"http": 0, "https": 0}
        site.timers.stop()


def test_http_and_websocket_on_both_listeners(run: RunScenario, tmp_path: Path) -> None:
    made = development_certificate(tmp_path)

    async def scenario() -> None:
        async with serve(Certificates(made.certificate)) as site:
            plain, secure = site.endpoints
            assert (plain.scheme, secure.scheme) == ("http", "https")
            assert 0 < plain.port != secure.port > 0
            trust = ssl.create_default_context(cafile=str(made.authority))
            for endpoint, context in ((plain, None), (secure, trust)):
                reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port, ssl=context)
                writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                response = await reader.read()
                writer.close()
                assert response.startswith(b"HTTP/1.1 200 OK\r\n")
                assert response.endswith(f"{endpoint.scheme} 127.0.0.1".encode())
                assert b"\r\ndate: " in response and b"\r\nserver:" not in response.lower()
                url = endpoint.url.replace("http", "ws") + "/socket"
                async with connect(url, ssl=context) as websocket:
                    await websocket.send("hello")
                    assert await websocket.recv() == "hello"
                    assert site.metrics.connections[endpoint.scheme] == 1
                    assert site.listeners.admission.count_from("127.0.0.1") == 1
                await site.until(lambda: site.listeners.admission.total == 0)
                assert site.listeners.admission.count_from("127.0.0.1") == 0

    run(scenario())


def test_an_upgraded_connection_leaves_nothing_to_the_collector(run: RunScenario) -> None:
    def count() -> int:
        kinds = (http.HttpProtocol, Upgraded, WebSocketProtocol)
        return sum(isinstance(thing, kinds) for thing in gc.get_objects())

    async def scenario() -> None:
        async with serve() as site:
            gc.collect()
            gc.disable()
            try:
                before = count()
                async with connect(f"ws://127.0.0.1:{site.port}/socket") as websocket:
                    await websocket.send("hello")
                    await websocket.recv()
                    assert count() == before + 2, "uvicorn's part is gone"
                await site.until(lambda: site.listeners.admission.total == 0)
                assert count() == before
            finally:
                gc.enable()

    run(scenario())


def test_a_rejected_upgrade_leaves_nothing_behind(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve() as site:
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://127.0.0.1:{site.port}/forbidden")
            assert caught.value.response.status_code == 403
            await site.until(lambda: site.listeners.admission.total == 0)
            assert site.listeners.admission.count_from("127.0.0.1") == 0

    run(scenario())


def expect(response: bytes, status: int) -> dict[str, str]:
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"connection: close" in head
    error: dict[str, str] = json.loads(body)
    assert set(error) >= {"error", "message", "timestamp"}
    return error


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
def test_one_connection_too_many_is_told_so(run: RunScenario, limit: str) -> None:
    async def scenario() -> None:
        async with serve(None, **{limit: 2}) as site:
            url = f"ws://127.0.0.1:{site.port}/socket"
            async with connect(url) as first, connect(url):
                response = await site.get("/hello")
                assert expect(response, 503)["error"] == "ServiceUnavailableError"
                found = re.search(rb"retry-after: (\d+)", response)
                assert found is not None and 1 <= int(found[1]) <= 10
                with pytest.raises(InvalidStatus) as caught:
                    await connect(url)
                assert caught.value.response.status_code == 503
                assert int(caught.value.response.headers["retry-after"]) >= 1
                name = "connections" if limit == "max_connections" else "address"
                assert site.metrics.refused.value(name) == 2
                await first.close()
                await site.until(lambda: site.listeners.admission.total == 1)
                assert b"200 OK" in await site.get("/hello")

    run(scenario())


def test_connections_that_come_too_fast_are_told_so(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve(connect_rate=0.01, connect_burst=2) as site:
            assert [b"200 OK" in await site.get("/hello") for _ in range(3)] == [True, True, False]
            assert site.metrics.refused.value("rate") == 1

    run(scenario())


def test_many_refused_connections_are_dropped(run: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_REFUSED", 1)

    async def scenario() -> None:
        async with serve(max_connections=1) as site, connect(f"ws://127.0.0.1:{site.port}/socket"):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            await site.until(lambda: site.metrics.refused.value("connections") == 1)
            with contextlib.suppress(ConnectionResetError):
                assert await site.get("/hello") == b""
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            expect(await reader.read(), 503)
            writer.close()

    run(scenario())


def test_behind_a_proxy_the_limit_is_the_clients(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve(trusted_proxies=["127.0.0.1"], max_connections_per_address=1) as site:
            url = f"ws://127.0.0.1:{site.port}/socket"
            first = await connect(url, additional_headers={"x-forwarded-for": "6.6.6.6, 198.51.100.1"})
            second = await connect(url, additional_headers={"x-forwarded-for": "198.51.100.2"})
            with pytest.raises(InvalidStatus):
                await connect(url, additional_headers={"x-forwarded-for": "7.7.7.7, 198.51.100.1"})
            assert site.listeners.admission.count_from("198.51.100.1") == 1
            assert (await site.get("/hello", "x-forwarded-for: 198.51.100.9\r\n")).endswith(b"http 198.51.100.9")
            await first.close()
            await second.close()
            await site.until(lambda: site.listeners.admission.total == 0)
            assert site.listeners.admission.count_from("198.51.100.1") == 0

    run(scenario())


@pytest.mark.parametrize("sent", [b"", b"GET /hello HTT", b"GET /hello HTTP/1.1\r\nhost: a\r\n", b"\r\n\r\n"])
def test_a_head_that_does_not_come_in_time(run: RunScenario, sent: bytes) -> None:
    async def scenario() -> None:
        async with serve(connect_timeout=0.1) as site:
            response = await site.raw(sent)
            if sent.startswith(b"GET"):
                expect(response, 408)
            else:
                assert response == b""

    run(scenario())


def test_a_head_that_comes_drop_by_drop_is_no_better(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve(connect_timeout=0.2) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"GET /hello HTTP/1.1\r\n")
            reading = asyncio.create_task(reader.read())
            while not reading.done():
                writer.write(b"x")
                await asyncio.wait([reading], timeout=0.02)
            expect(await reading, 408)
            writer.close()

    run(scenario())


def test_a_refused_client_that_stays_is_dropped(run: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LINGER", 0.1)

    async def scenario() -> None:
        async with serve() as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"NONSENSE\r\n\r\n")
            expect(await reader.read(), 400)
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"x" * 1000)
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.close()

    run(scenario())


def test_the_second_request_has_the_same_limits(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve(connect_timeout=0.4) as site:
            for rest, answered in ((b"GET /hel", True), (b"\r\n", False)):
                reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
                writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
                await reader.readuntil(b"http 127.0.0.1")
                writer.write(rest)
                response = await reader.read()
                writer.close()
                assert (b" 408 " in response) is answered

    run(scenario())


def test_an_idle_connection_is_closed(run: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "KEEP_ALIVE", 0.2)

    async def scenario() -> None:
        async with serve() as site:
            early = b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            for request in (b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n", early):
                writer.write(request)
                await reader.readuntil(b"http 127.0.0.1")
            writer.write(b"abc")  # of the body that nobody read
            assert await reader.read() == b""
            writer.close()

    run(scenario())


def test_a_slow_answer_is_no_idleness(run: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "KEEP_ALIVE", 0.5)

    async def scenario() -> None:
        async with serve() as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
            await reader.readuntil(b"http 127.0.0.1")
            writer.write(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
            await site.busy.wait()
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", site.port)
            other_writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
            await other_reader.read()  # until it is closed as idle
            other_writer.close()
            site.proceed.set()
            assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
            writer.close()

    run(scenario())


def test_a_body_has_to_come_at_a_pace(run: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_INTERVAL", 0.3)
    monkeypatch.setattr(http, "MIN_BODY_BYTES", 10)

    async def scenario() -> None:
        async with serve() as site:
            head = b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n"
            assert await site.raw(head + b"few") == b""
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(head)
            for _ in range(20):
                writer.write(b"x" * 50)
                await asyncio.sleep(0.04)
            assert (await reader.read()).endswith(b"x" * 1000)
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /hello HTTP/1.1\r\nhost: a\r\nlong: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
    ids=["header", "headers", "target"],
)
def test_heads_are_bounded(run: RunScenario, sent: bytes) -> None:
    async def scenario() -> None:
        async with serve() as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(sent)
            expect(await reader.readuntil(b"}"), 431)
            writer.close()

    run(scenario())


def test_a_header_without_end_is_not_collected(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve() as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"GET /hello HTTP/1.1\r\nlong: ")
            reading = asyncio.create_task(reader.read())
            sent = 0
            while not reading.done() and sent < 50_000_000:
                writer.write(b"x" * 65536)
                sent += 65536
                await writer.drain()
                await asyncio.sleep(0)
            writer.close()
            expect(await reading, 431)
            assert sent < 50_000_000

    run(scenario())


@pytest.mark.parametrize("sent", [b"NONSENSE\r\n\r\n", b"GET  HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_nonsense_is_answered_in_our_form(run: RunScenario, sent: bytes) -> None:
    async def scenario() -> None:
        async with serve() as site:
            assert expect(await site.raw(sent), 400)["error"] == "ClientError"

    run(scenario())


def test_offers_of_other_protocols_are_ignored(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve() as site:
            headers = "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
            request = f"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n{headers}\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(request.encode())
            assert await reader.readuntil(b"http 127.0.0.1")
            writer.close()

    run(scenario())


def test_a_large_body_is_refused_and_the_refusal_seen(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve() as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n")
            writer.write(b"x" * 500_000)
            assert b" 413 " in await reader.readuntil(b"}")
            writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert b"200 OK" in await reader.read()
            writer.close()

    run(scenario())


def test_a_body_nobody_wants_is_not_read_for_ever(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve() as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n")
            await reader.readuntil(b"127.0.0.1")
            with pytest.raises(ConnectionError):
                for _ in range(1000):
                    writer.write(b"x" * 65536)
                    await writer.drain()
            writer.close()

    run(scenario())


def test_a_client_that_does_not_read_is_cut_off(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve(write_timeout=0.1) as site:
            _, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
            writer.write(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n")
            await site.until(lambda: site.listeners.admission.total == 1)
            await site.until(lambda: site.listeners.admission.total == 0)
            writer.close()

    run(scenario())


def test_the_end_lets_requests_finish(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve() as site:
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", site.port)
            waiting = asyncio.create_task(site.get("/wait"))
            await site.busy.wait()
            async with connect(f"ws://127.0.0.1:{site.port}/socket") as websocket:
                await site.listeners.stop_accepting()
                assert await idle_reader.read() == b""
                idle_writer.close()
                with pytest.raises(OSError):
                    await asyncio.open_connection("127.0.0.1", site.port)
                await websocket.send("still here")
                assert await websocket.recv() == "still here"
                closing = asyncio.create_task(site.listeners.close(10.0))
                site.proceed.set()
                await closing
                assert (await waiting).endswith(b"done")

    run(scenario())


def test_the_end_does_not_wait_for_ever(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve() as site:
            waiting = asyncio.create_task(site.get("/wait"))
            await site.busy.wait()
            await site.listeners.close(0.1)
            with contextlib.suppress(ConnectionError):
                assert b"done" not in await waiting

    run(scenario())


def test_an_address_in_use_is_told(run: RunScenario, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve() as site:
            with pytest.raises(InvalidInput, match="in use") as caught:
                async with serve(port=site.port):
                    pass
            assert caught.value.field == "port"
            certificates = Certificates(development_certificate(tmp_path).certificate)
            with pytest.raises(InvalidInput, match="in use") as caught:
                async with serve(certificates, tls_port=site.port):
                    pass
            assert caught.value.field == "tls_port"

    run(scenario())


def test_binding() -> None:
    sockets = bind("localhost", 0, "port")
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        sock.close()
    with pytest.raises(InvalidInput) as caught:
        bind("192.0.2.1", 0, "port")
    assert caught.value.field == "port"
    with pytest.raises(InvalidInput) as caught:
        bind("no such host", 0, "port")
    assert caught.value.field == "host"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 on this machine")
def test_ipv6(run: RunScenario) -> None:
    async def scenario() -> None:
        async with serve(host="::1") as site:
            assert site.endpoints[0].url == f"http://[::1]:{site.port}"
            reader, writer = await asyncio.open_connection("::1", site.port)
            writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"http ::1")
            writer.close()

    run(scenario())
