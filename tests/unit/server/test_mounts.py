"""Applications that own everything below a prefix, over real sockets: nothing of ours answers in their place."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from tests.unit.server import mounted
from tests.unit.server.mounted import ORIGIN, Site, head, on_each_loop, read

from offhook.errors import TooLarge
from offhook.server import exchange, http
from offhook.server.asgi import header
from offhook.server.cors import Cors
from offhook.server.proxies import peer_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

LARGE = 20_000_000


@dataclass
class Mounted:
    """An application without routes that tells what it was asked, and answers its errors itself."""

    cors: Cors = field(default_factory=lambda: Cors([ORIGIN], ("GET", "POST"), exposed=("Retry-After",), max_age=600))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, b"origin")
        path = scope["path"].removeprefix(scope["root_path"])
        if path.endswith("/fault"):
            raise KeyError("a defect")
        if scope["method"] == "OPTIONS":
            await self.answer(send, 204, None, self.cors.preflight(origin))
            return
        peer = peer_of(scope)
        told: dict[str, object] = {"path": path, "address": peer.address, "secure": peer.secure, "host": peer.host}
        status = 200
        try:
            told["size"] = 0 if path.endswith("/unread") else await self.size(receive)
        except TooLarge as error:
            status, told = 413, {"limit": error.limit}
        await self.answer(send, status, told, self.cors.headers_for(origin))

    async def size(self, receive: Receive) -> int:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        return size

    async def answer(
        self, send: Send, status: int, told: dict[str, object] | None, headers: list[tuple[bytes, bytes]]
    ) -> None:
        body = b"" if told is None else json.dumps(told).encode()
        if told is not None:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def serve(base_path: str = "", tls: Path | None = None, **settings: object) -> AbstractAsyncContextManager[Site]:
    return mounted.serve(Mounted(), base_path, tls, **settings)


@on_each_loop
async def test_everything_below_a_prefix_is_the_applications() -> None:
    async with serve() as site:
        for method in ("GET", "PUT", "DELETE", "PROPFIND"):
            for path in ("/rest/", "/rest/nowhere//at/all/", "/v2.0/x", "/rest/a%20b@c"):
                answer = await site.ask(method, path)
                assert (answer.status, answer.told["path"]) == (200, path.replace("%20", " "))
        for path in ("/rest", "/v2.0", "/restless/", "/V2.0/x", "/"):
            answer = await site.ask("GET", path)
            assert (answer.status, answer.told["error"]) == (404, "ResourceNotFoundError")
        assert (await site.ask("GET", "/healthz")).status == 200


@on_each_loop
async def test_prefixes_are_below_the_base_path() -> None:
    async with serve("/off/hook") as site:
        assert (await site.ask("GET", "/off/hook/rest/x")).told["path"] == "/rest/x"
        assert (await site.ask("GET", "/rest/x")).told["error"] == "ResourceNotFoundError"
        assert (await site.ask("GET", "/off/hook/healthz")).status == 200


@on_each_loop
async def test_preflights_are_the_applications() -> None:
    async with serve() as site:
        answer = await site.ask("OPTIONS", "/rest/x", "access-control-request-method: POST")
        assert answer.status == 204 and "content-length" not in answer.headers
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-methods"] == "GET, POST"
        assert answer.headers["access-control-max-age"] == "600"


@on_each_loop
async def test_who_asks_is_known_behind_a_proxy() -> None:
    forwarded = ("x-forwarded-for: 6.6.6.6, 198.51.100.7", "x-forwarded-proto: https", "x-forwarded-host: rtc.example")
    async with serve(trusted_proxies=["127.0.0.1"]) as site:
        told = (await site.ask("GET", "/rest/x", *forwarded)).told
        assert (told["address"], told["secure"], told["host"]) == ("198.51.100.7", True, "rtc.example")
    async with serve() as site:
        told = (await site.ask("GET", "/rest/x", *forwarded)).told
        assert (told["address"], told["secure"], told["host"]) == ("127.0.0.1", False, "a.example:81")


@on_each_loop
async def test_who_comes_by_tls_is_secure(tmp_path: Path) -> None:
    async with serve(tls=tmp_path) as site:
        assert (await site.ask("GET", "/rest/x")).told["secure"] is True


@on_each_loop
async def test_requests_are_logged_and_counted_without_queries() -> None:
    async with serve() as site:
        with capture_logs() as logs:
            await site.ask("GET", "/rest/x?access_token=abc")
            await site.until(lambda: site.metrics.http_requests.value("GET", "200") == 1)
        (entry,) = (entry for entry in logs if entry["event"] == "request")
        assert (entry["path"], entry["status"], entry["client"]) == ("/rest/x", 200, "127.0.0.1")
        assert "abc" not in repr(logs)


@on_each_loop
async def test_a_defect_costs_one_request() -> None:
    async with serve() as site:
        async with site.connect() as (reader, writer):
            writer.write(head("GET", "/rest/fault"))
            answer = await read(reader)
            assert (answer.status, answer.body) == (500, b"Internal Server Error")
            assert await reader.read() == b""
        assert site.metrics.http_requests.value("GET", "500") == 1
        assert (await site.ask("GET", "/rest/x")).status == 200


@pytest.mark.parametrize("length", ["content-length: 100001", "transfer-encoding: chunked"])
@on_each_loop
async def test_a_body_a_little_too_large_keeps_the_connection(length: str) -> None:
    async with serve() as site, site.connect() as (reader, writer):
        body = b"x" * 100_001
        writer.write(head("POST", "/rest/x", length))
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if "chunked" in length else body)
        answer = await read(reader)
        assert (answer.status, answer.told) == (413, {"limit": 100_000})
        assert answer.headers["access-control-allow-origin"] == ORIGIN and "connection" not in answer.headers
        writer.write(head("POST", "/rest/x", "content-length: 5") + b"small")
        assert (await read(reader)).told["size"] == 5


@pytest.mark.parametrize("secure", [False, True])
@on_each_loop
async def test_the_answer_to_a_huge_body_is_seen(secure: bool, tmp_path: Path) -> None:
    async with serve(tls=tmp_path if secure else None) as site, site.connect() as (reader, writer):
        writer.write(head("POST", "/rest/x", f"content-length: {LARGE}"))
        for _ in range(20):  # all of it, before the answer is looked at, as browsers do
            writer.write(b"x" * (LARGE // 20))
            await writer.drain()
        answer = await read(reader)
        assert (answer.status, answer.told) == (413, {"limit": 100_000})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["connection"] == "close"
        writer.close()
        await site.until(lambda: site.listeners.admission.total == 0)


@on_each_loop
async def test_a_huge_body_in_chunks_is_answered_too() -> None:
    async with serve() as site, site.connect() as (reader, writer):
        writer.write(head("POST", "/rest/x", "transfer-encoding: chunked"))
        for _ in range(20):
            writer.write(b"%x\r\n%b\r\n" % (LARGE // 20, b"x" * (LARGE // 20)))
            await writer.drain()
        assert (await read(reader)).status == 413
        assert await reader.read() == b""


@on_each_loop
async def test_who_closes_after_a_request_gets_the_answer_though_its_body_is_unread() -> None:
    async with serve() as site, site.connect() as (reader, writer):
        writer.write(head("POST", "/rest/unread", "content-length: 900000", "connection: close"))
        answer = await read(reader)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        writer.write(b"x" * 900_000)
        await writer.drain()
        assert await reader.read() == b""


@pytest.mark.parametrize("sending", [True, False])
@on_each_loop
async def test_an_answered_client_is_not_awaited_for_ever(sending: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LINGER", 0.05)
    monkeypatch.setattr(http, "MAX_LINGERS", 4)
    async with serve() as site, site.connect() as (reader, writer):
        writer.write(head("POST", "/rest/x", f"content-length: {LARGE}"))
        assert (await read(reader)).status == 413
        with contextlib.suppress(ConnectionError):
            while site.listeners.admission.total:
                if sending:
                    writer.write(b"x")
                    await writer.drain()
                await asyncio.sleep(0.01)
        await site.until(lambda: site.listeners.admission.total == 0)


@on_each_loop
async def test_a_body_nobody_awaits_may_not_be_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_LINGERED", 1_000_000)
    async with serve() as site, site.connect() as (reader, writer):
        writer.write(head("POST", "/rest/x", f"content-length: {exchange.MAX_DISCARD * 100}"))
        assert (await read(reader)).status == 413
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                writer.write(b"x" * 65536)
                await writer.drain()
