"""What a transport takes from a server, says of an address, and makes of an environment that is of no use."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.client.test_transport import answering, raw, transport

from offhook.client.errors import ConnectionFailed
from offhook.client.transport import Transport

SHORT = answering("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 200 OK\nContent-Length: 70000\n\n" + "x" * 70_000,
        "HTTP/1.1 500 No\nConnection: close\n\n" + "x" * 70_000,
    ],
)
async def test_answers_beyond_the_limit_are_not_taken(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.client.transport.MAX_MESSAGE", 65_000)
    async with raw(answering(answer)) as host, transport() as client:
        with pytest.raises(ConnectionFailed, match="too long"):
            await client.request("GET", f"http://{host}/?token=s3cret")
    async with raw(SHORT) as host, transport() as client:
        assert (await client.request("GET", f"http://{host}/")).body == b"ok"


async def test_a_request_while_it_is_closed_is_not_forgotten() -> None:
    async with raw(SHORT) as host, transport() as client:
        await client.request("GET", f"http://{host}/")
        _, answer = await asyncio.gather(client.close(), client.request("GET", f"http://{host}/"))
        assert answer.ok
        kept = client._http
        assert kept is not None
        await client.close()
        assert kept.is_closed


@pytest.mark.parametrize(
    "url",
    [
        "ws://127.0.0.1:1#s3cret",
        "ws:///path?token=s3cret",
        "ws://me:s3cret@127.0.0.1:1/path",
        "ws://127.0.0.1:1?token=s3cret",
        "ws://name@127.0.0.1:1/?token=s3cret",
    ],
)
async def test_no_address_is_told_with_its_secrets(url: str) -> None:
    async with transport() as client:
        with pytest.raises(ConnectionFailed) as refused:
            await client.websocket(url)
        assert "s3cret" not in str(refused.value)
        with pytest.raises(ConnectionFailed) as refused:
            await client.request("GET", url.replace("ws:", "http:"))
        assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("proxy", ["socks5://me:s3cret@127.0.0.1:1", "odd://me:s3cret@127.0.0.1:1"])
async def test_proxies_of_no_use_are_told(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    async with Transport(timeout=2) as client:
        for attempt in (client.request("GET", "http://192.0.2.1/"), client.websocket("ws://192.0.2.1/")):
            with pytest.raises(ConnectionFailed) as refused:
                await attempt
            assert "s3cret" not in str(refused.value)
