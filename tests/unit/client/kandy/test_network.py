"""What requests and sockets leave behind: no secrets in logs and errors, nothing of one client with another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from tests.e2e.python_kandy import configuration

from offhook import kandy
from offhook.protocols.kandy import uc

SECRET = "hush-hush"


@contextlib.asynccontextmanager
async def platform(*headers: str, seen: list[bytes] | None = None) -> AsyncIterator[str]:
    """A server of UC's that signs everybody in, and refuses everything else. Gives ``address:port``.

    Args:
        headers: of all its answers.
        seen: takes the requests.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        if seen is not None:
            seen.append(request)
        good = request.startswith(b"GET /v2.0/auth")
        body = uc.tokens(SECRET, SECRET, 3600) if good else b'{"subscribeResponse":{"statusCode":4}}'
        lines = [f"HTTP/1.1 {200 if good else 403} Well", f"Content-Length: {len(body)}", "Connection: close", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def test_secrets_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with platform() as host, kandy.Transport(trust_env=False) as transport:
            async with kandy.create(configuration("uc", host), transport=transport) as client:
                with pytest.raises(kandy.KandyError) as failed:
                    await client.connect(username="alice@example.com", access_token=SECRET)
            with pytest.raises(kandy.ConnectionFailed):
                await transport.websocket(f"ws://{host}/websocket/{SECRET}?token={SECRET}")
    assert failed.value.status == 403 and caplog.records
    assert not [record for record in caplog.records if SECRET in record.getMessage()]


@pytest.mark.parametrize("kind", ["bearer_access_token", "hmac_token"])
async def test_secrets_that_cannot_be_sent_are_not_shown(kind: str) -> None:
    async with (
        platform() as host,
        kandy.Transport(trust_env=False) as transport,
        kandy.create(configuration("link", host), transport=transport) as client,
    ):
        # As a file gives it that ends with an empty line.
        client.set_credentials({"username": "alice@example.com", kind: f"{SECRET}\n"})
        with pytest.raises(kandy.KandyError) as failed:
            await client.services.subscribe(["IM"])
    shown: BaseException | None = failed.value
    while shown is not None:
        assert SECRET not in f"{shown} {shown!r}"
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


async def test_clients_that_share_a_transport_share_no_cookies() -> None:
    seen: list[bytes] = []
    async with platform("Set-Cookie: session=alice", seen=seen) as host, kandy.Transport(trust_env=False) as transport:
        for name in ("alice@example.com", "bob@example.com"):
            async with kandy.create(configuration("uc", host), transport=transport) as client:
                with pytest.raises(kandy.KandyError):
                    await client.connect(username=name, password="x")
    assert len(seen) == 4 and not [request for request in seen if b"cookie" in request.lower()]


async def test_a_transport_that_is_closed_under_its_clients() -> None:
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    host = "{}:{}".format(*server.sockets[0].getsockname())
    transport = kandy.Transport(trust_env=False)
    async with server, kandy.create(configuration("uc", host), transport=transport) as client:
        call = asyncio.create_task(client.connect(username="alice@example.com", password="x"))
        await asked.wait()
        await transport.close()
        async with asyncio.timeout(10):
            with pytest.raises(kandy.KandyError) as failed:
                await call
        assert failed.value.code == "authentication:9" and not client.get_connection().is_pending
