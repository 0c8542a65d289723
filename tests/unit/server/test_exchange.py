"""How responses are written out, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest
from tests.unit.server import mounted
from tests.unit.server.mounted import Site, head, on_each_loop, read

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

RESPONSES: dict[str, tuple[int, Headers, list[bytes]]] = {
    "whole": (200, [(b"Content-Length", b"6")], [b"answer"]),
    "parts": (200, [(b"content-length", b"6")], [b"ans", b"", b"wer"]),
    "chunks": (200, [], [b"ans", b"", b"wer"]),
    "named": (200, [(b"transfer-encoding", b"Chunked")], [b"answer", b""]),
    "none": (204, [], [b""]),
    "same": (304, [(b"etag", b"x")], [b""]),
    "empty": (201, [(b"content-length", b"0")], [b""]),
    "last": (200, [(b"content-length", b"6"), (b"connection", b"Close")], [b"answer"]),
    "name": (200, [(b"a b", b"c")], [b""]),
    "value": (200, [(b"a", b"b\r\nset-cookie: c=d")], [b""]),
    "nul": (200, [(b"a", b"b\0")], [b""]),
    "long": (200, [(b"content-length", b"5")], [b"answer"]),
    "short": (200, [(b"content-length", b"7")], [b"answer"]),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    which = scope["path"].removeprefix("/rest/")
    if which == "bodyfirst":
        await send({"type": "http.response.body", "body": b"answer"})
        return
    if which == "silent":
        return
    if which == "wait":
        await receive()
        await asyncio.sleep(0)
        which = "whole"
    status, headers, parts = RESPONSES[which]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, part in enumerate(parts):
        await send({"type": "http.response.body", "body": part, "more_body": number < len(parts) - 1})
    if which == "whole":
        with pytest.raises(RuntimeError):
            await send({"type": "http.response.body", "body": b"more"})


def serve() -> AbstractAsyncContextManager[Site]:
    return mounted.serve(app)


async def raw(site: Site, sent: bytes) -> bytes:
    async with site.connect() as (reader, writer):
        writer.write(sent)
        return await reader.read()


async def get(site: Site, which: str, method: str = "GET") -> tuple[bytes, bytes]:
    """Head and body of the response to a client that closes."""
    response = await raw(site, head(method, f"/rest/{which}", "connection: close"))
    first, _, rest = response.partition(b"\r\n\r\n")
    return first.lower(), rest


@on_each_loop
async def test_bodies_of_known_length() -> None:
    async with serve() as site:
        for which in ("whole", "parts"):
            first, body = await get(site, which)
            assert b"\r\ncontent-length: 6" in first and b"transfer-encoding" not in first
            assert body == b"answer" and first.count(b"connection: close") == 1
        assert (await get(site, "empty"))[1] == b""


@on_each_loop
async def test_bodies_of_unknown_length() -> None:
    async with serve() as site:
        for which, wanted in (("chunks", b"3\r\nans\r\n3\r\nwer\r\n0\r\n\r\n"), ("named", b"6\r\nanswer\r\n0\r\n\r\n")):
            first, body = await get(site, which)
            assert first.count(b"transfer-encoding: chunked") == 1 and b"content-length" not in first
            assert body == wanted


@on_each_loop
async def test_responses_without_bodies() -> None:
    async with serve() as site:
        for which in ("none", "same"):
            first, body = await get(site, which)
            assert b"transfer-encoding" not in first and b"content-length" not in first and not body
        for which in ("whole", "parts", "chunks"):
            first, body = await get(site, which, "HEAD")
            assert first.startswith(b"http/1.1 200 ok\r\n") and not body
            assert (b"content-length: 6" in first) == (which != "chunks")


@on_each_loop
async def test_a_connection_goes_on_until_the_application_ends_it() -> None:
    async with serve() as site, site.connect() as (reader, writer):
        for which in ("whole", "parts", "empty"):
            writer.write(head("GET", f"/rest/{which}"))
            assert "connection" not in (await read(reader)).headers
        writer.write(head("GET", "/rest/last"))
        assert (await read(reader)).headers["connection"] == "Close"
        assert await reader.read() == b""


@on_each_loop
async def test_old_clients_are_closed_upon() -> None:
    async with serve() as site:
        assert b"connection: close" in await raw(site, b"GET /rest/whole HTTP/1.0\r\n\r\n")


@on_each_loop
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serve() as site:
        sent = [head("GET", f"/rest/{which}") for which in ("wait", "parts", "wait")]
        response = await raw(site, b"".join((*sent, head("GET", "/rest/last"))))
        assert response.count(b"HTTP/1.1 200 OK") == 4 and response.endswith(b"answer")


@on_each_loop
async def test_a_client_is_told_to_go_on_once_its_body_is_wanted() -> None:
    async with serve() as site, site.connect() as (reader, writer):
        for which, told in (("wait", True), ("whole", False)):
            writer.write(head("POST", f"/rest/{which}", "content-length: 2", "expect: 100-continue"))
            if told:
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(b"ab")
            assert (await read(reader)).status == 200


@pytest.mark.parametrize("which", ["name", "value", "nul", "bodyfirst", "silent"])
@on_each_loop
async def test_a_malformed_response_is_never_sent(which: str) -> None:
    async with serve() as site:
        first, body = await get(site, which)
        assert first.startswith(b"http/1.1 500 ") and b"set-cookie" not in first
        assert body == b"Internal Server Error"


@pytest.mark.parametrize("which", ["long", "short"])
@on_each_loop
async def test_a_body_of_a_wrong_length_breaks_the_connection(which: str) -> None:
    async with serve() as site:
        assert b"answer" not in await raw(site, head("GET", f"/rest/{which}"))
