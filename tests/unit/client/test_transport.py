"""HTTP requests and WebSockets against servers that do as they please."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from offhook.client.errors import ConnectionFailed, ConnectionLost, TimedOut
from offhook.client.transport import MAX_MESSAGE, Socket, Transport

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Talk = Callable[[ServerConnection], Awaitable[None]]
SECRET = "token=s3cret"


@contextlib.asynccontextmanager
async def raw(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers as the handler says; its host and port."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(answer: str) -> Handler:
    """Sends these bytes to whoever has finished a request's head."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.replace("\n", "\r\n").encode())
        await writer.drain()

    return handler


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def talking(
    talk: Talk, *, subprotocols: list[Subprotocol] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A WebSocket server; its host and port."""
    async with serve(talk, "127.0.0.1", 0, subprotocols=subprotocols, ssl=tls, close_timeout=0.2) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def transport(timeout: float = 5.0, verify: bool | str | Path | ssl.SSLContext = True) -> Transport:
    return Transport(timeout=timeout, trust_env=False, verify=verify)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def nobody() -> str:
    """Host and port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


# --- requests -------------------------------------------------------------------------------------------------------


async def test_request_and_answer() -> None:
    heard: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        heard.append(await reader.readexactly(4))
        writer.write(b"HTTP/1.1 404 No\r\nRetry-After: 7\r\nX-Thing: One\r\nContent-Length: 3\r\n\r\nabc")
        await writer.drain()

    async with raw(handler) as host, transport() as carrier:
        answer = await carrier.request("POST", f"http://{host}/x?y=z", headers={"x-token": "t"}, content=b"body")
    assert (answer.status, answer.ok, answer.body, answer.retry_after) == (404, False, b"abc", 7.0)
    assert answer.headers["x-thing"] == "One"
    assert heard[0].startswith(b"POST /x?y=z HTTP/1.1\r\n")
    assert b"x-token: t\r\n" in heard[0]
    assert heard[1] == b"body"


async def test_files_make_a_form() -> None:
    heard: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        heard.append(head + await reader.readexactly(size))
        writer.write(b"HTTP/1.1 204 Done\r\n\r\n")
        await writer.drain()

    async with raw(handler) as host, transport() as carrier:
        answer = await carrier.request("POST", f"http://{host}/", files={"file": ("a.png", b"PNG", "image/png")})
    assert answer.ok
    assert b'name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nPNG\r\n' in heard[0]


async def test_redirects_of_requests_are_not_followed() -> None:
    moved = "HTTP/1.1 302 Go\nLocation: http://127.0.0.1:1/\nContent-Length: 0\n\n"
    async with raw(answering(moved)) as host, transport() as carrier:
        answer = await carrier.request("GET", f"http://{host}/")
    assert answer.status == 302
    assert not answer.ok


async def test_refused(nobody: str) -> None:
    async with transport() as carrier:
        with pytest.raises(ConnectionFailed) as request:
            await carrier.request("GET", f"http://{nobody}/path?{SECRET}")
        with pytest.raises(ConnectionFailed) as opening:
            await carrier.websocket(f"ws://{nobody}/path?{SECRET}")
    for failure in (request.value, opening.value):
        assert nobody in str(failure)
        assert SECRET not in str(failure)
        assert (failure.status, failure.retry_after, failure.retryable) == (None, None, True)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", f"{'a' * 70}.invalid", "", "[::1", "127.0.0.1:port"])
async def test_addresses_that_are_none(address: str) -> None:
    async with transport() as carrier:
        with pytest.raises(ConnectionFailed):
            await carrier.request("GET", f"http://{address}/?{SECRET}")
        with pytest.raises(ConnectionFailed):
            await carrier.websocket(f"ws://{address}/?{SECRET}")


async def test_no_answer_in_time() -> None:
    async with raw(silent) as host, transport(0.1) as carrier:
        with pytest.raises(TimedOut, match=r"within 0\.1 s") as request:
            await carrier.request("GET", f"http://{host}/?{SECRET}")
        with pytest.raises(TimedOut, match=r"within 0\.1 s") as opening:
            await carrier.websocket(f"ws://{host}/?{SECRET}")
    assert SECRET not in f"{request.value}{opening.value}"


async def test_an_answer_that_comes_drop_by_drop_is_late() -> None:
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw(dripping) as host, transport(0.2) as carrier:
        async with asyncio.timeout(3):
            with pytest.raises(TimedOut):
                await carrier.request("GET", f"http://{host}/")


@pytest.mark.parametrize("answer", ["", "HTTP/1.1 200 OK\nContent-Length: 9\n\nshort", "what?\n\n"])
async def test_broken_answers(answer: str) -> None:
    async with raw(answering(answer)) as host, transport() as carrier:
        with pytest.raises(ConnectionFailed):
            await carrier.request("GET", f"http://{host}/")
        with pytest.raises(ConnectionFailed):
            await carrier.websocket(f"ws://{host}/")


async def test_cancelled_request_leaves_a_transport_that_works() -> None:
    async with raw(silent) as host, raw(answering("HTTP/1.1 204 Done\n\n")) as other, transport() as carrier:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await carrier.request("GET", f"http://{host}/")
        assert (await carrier.request("GET", f"http://{other}/")).status == 204


async def test_close_may_come_early_and_twice_and_is_no_end() -> None:
    async with raw(answering("HTTP/1.1 204 Done\n\n")) as host:
        carrier = transport()
        await carrier.close()
        for _ in range(2):
            assert (await carrier.request("GET", f"http://{host}/")).ok
            await carrier.close()
            await carrier.close()


# --- TLS ------------------------------------------------------------------------------------------------------------


async def test_tls_with_its_authority(authority: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    for verify in (file, str(file), context, False):
        async with transport(verify=verify) as carrier:
            async with raw(answering("HTTP/1.1 204 Done\n\n"), server_tls) as host:
                assert (await carrier.request("GET", f"https://{host}/")).ok
            async with talking(echo, tls=server_tls) as host:
                opened = await carrier.websocket(f"wss://{host}/")
                await opened.send("hello")
                assert await opened.receive() == "hello"
                await opened.close()


async def test_tls_with_an_unknown_authority(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    for verify in (True, stranger):
        async with transport(verify=verify) as carrier, raw(silent, server_tls) as host:
            with pytest.raises(ConnectionFailed, match="certificate verify failed"):
                await carrier.request("GET", f"https://{host}/")
            with pytest.raises(ConnectionFailed, match="certificate verify failed"):
                await carrier.websocket(f"wss://{host}/")


async def test_tls_where_none_is_spoken() -> None:
    async with raw(answering("HTTP/1.1 204 Done\n\n")) as host, transport(0.5) as carrier:
        with pytest.raises((ConnectionFailed, TimedOut)):
            await carrier.request("GET", f"https://{host}/")
        with pytest.raises((ConnectionFailed, TimedOut)):
            await carrier.websocket(f"wss://{host}/")


def test_wrong_files_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Transport(verify=tmp_path / "missing.pem")
    (tmp_path / "other.pem").write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        Transport(verify=str(tmp_path / "other.pem"))


# --- WebSockets -----------------------------------------------------------------------------------------------------


async def test_messages_both_ways() -> None:
    async with talking(echo) as host, transport() as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        for message in ("text", b"bytes", "", "ü" * 100_000):
            await opened.send(message)
            assert await opened.receive() == message
        await opened.close()
        with pytest.raises(ConnectionLost) as lost:
            await opened.receive()
        assert lost.value.close_code == 1000
        with pytest.raises(ConnectionLost):
            await opened.send("late")
        await opened.close()
        opened.abort()


async def test_text_as_bytes() -> None:
    kinds: list[type[object]] = []

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            kinds.append(type(message))
            await connection.send(message)

    async with talking(talk) as host, transport() as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        for size in (1, 10_000):
            await opened.send("ü".encode() * size, text=True)
            assert await opened.receive_bytes() == "ü".encode() * size
        await opened.send("ü")
        assert await opened.receive_bytes() == "ü".encode()
        await opened.send(b"x")
        assert await opened.receive_bytes() == b"x"
        await opened.close()
        with pytest.raises(ConnectionLost):
            await opened.receive_bytes()
    assert kinds == [str, str, str, bytes]


async def test_small_messages_wait_for_a_connection_that_is_full() -> None:
    async with raw(_deaf) as host, Transport(timeout=5, ping_interval=0.1, trust_env=False) as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLost):
                while True:
                    await opened.send(b"x" * 4000)
            await opened.close()


async def test_cancelling_receive_loses_nothing() -> None:
    gate = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await gate.wait()
        for number in range(50):
            await connection.send(str(number))
        await connection.wait_closed()

    async with talking(talk) as host, transport() as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        got: list[str | bytes] = []
        attempts = 0
        gate.set()
        async with asyncio.timeout(5):
            while len(got) < 50:
                reading = asyncio.create_task(opened.receive())
                for _ in range(attempts % 4):
                    await asyncio.sleep(0)
                reading.cancel()
                attempts += 1
                with contextlib.suppress(asyncio.CancelledError):
                    got.append(await reading)
        assert got == [str(number) for number in range(50)]
        await opened.close()


async def test_headers_and_subprotocol() -> None:
    heard: list[str | None] = []

    async def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        heard.extend((connection.request.headers.get("X-Token"), connection.request.headers.get("User-Agent")))
        heard.append(connection.subprotocol)
        await connection.wait_closed()

    async with talking(talk, subprotocols=[Subprotocol("v12.stomp")]) as host, transport() as carrier:
        opened = await carrier.websocket(f"ws://{host}/", subprotocols=["v12.stomp"], headers={"X-Token": "t"})
        await opened.close()
    assert heard == ["t", None, "v12.stomp"]


async def test_subprotocol_missing() -> None:
    codes: list[int | None] = []
    ended = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.append(connection.close_code)
        ended.set()

    async with talking(talk) as host, transport() as carrier:
        with pytest.raises(ConnectionFailed, match=r"speaks none of v12\.stomp, v11\.stomp"):
            await carrier.websocket(f"ws://{host}/", subprotocols=["v12.stomp", "v11.stomp"])
        async with asyncio.timeout(5):
            await ended.wait()
    assert codes == [1002]


async def test_refusals_tell_status_and_patience() -> None:
    refusal = "HTTP/1.1 404 Gone\nRetry-After: 12\nContent-Length: 0\n\n"
    async with raw(answering(refusal)) as host, transport() as carrier:
        with pytest.raises(ConnectionFailed, match="status 404") as refused:
            await carrier.websocket(f"ws://{host}/path?{SECRET}")
    assert (refused.value.status, refused.value.retry_after) == (404, 12.0)
    assert SECRET not in str(refused.value)


async def test_redirects_of_websockets_are_not_followed() -> None:
    visits: list[str] = []

    async def elsewhere(connection: ServerConnection) -> None:
        assert connection.request is not None
        visits.append(connection.request.path)

    async with talking(elsewhere) as other, transport() as carrier:
        moved = f"HTTP/1.1 302 Go\nLocation: ws://{other}/?{SECRET}\nContent-Length: 0\n\n"
        async with raw(answering(moved)) as host:
            with pytest.raises(ConnectionFailed) as refused:
                await carrier.websocket(f"ws://{host}/?{SECRET}")
    assert refused.value.status == 302
    assert visits == []


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4999])
async def test_close_codes(code: int) -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(code, "because")

    async with talking(talk) as host, transport() as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        assert await opened.receive() == "last words"
        with pytest.raises(ConnectionLost, match="because") as lost:
            await opened.receive()
        await opened.close()
    assert (lost.value.close_code, lost.value.reason) == (code, "because")


async def test_broken_connection_is_1006() -> None:
    async def talk(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with talking(talk) as host, transport() as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        with pytest.raises(ConnectionLost) as lost:
            await opened.receive()
        await opened.close()
    assert (lost.value.close_code, lost.value.reason) == (1006, "")


async def test_messages_beyond_the_limit_end_the_connection() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"x" * (MAX_MESSAGE + 1))

    async with talking(talk) as host, transport() as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        with pytest.raises(ConnectionLost):
            await opened.receive()
        await opened.close()


async def _shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server's side of the handshake, and nothing more."""
    from websockets.utils import accept_key

    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = head.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
    writer.write(
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept_key(key).encode()
        + b"\r\n\r\n"
    )
    await writer.drain()


async def _deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a WebSocket and then neither reads nor writes."""
    await _shake(reader, writer)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def _numb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a WebSocket, and reads but never answers."""
    await _shake(reader, writer)
    while await reader.read(65536):
        pass


async def test_pings_find_a_dead_connection() -> None:
    async with raw(_numb) as host, Transport(timeout=5, ping_interval=0.1, trust_env=False) as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        async with asyncio.timeout(4):
            with pytest.raises(ConnectionLost):
                await opened.receive()
        await opened.close()


async def test_a_peer_that_takes_nothing_holds_nobody_up() -> None:
    before = asyncio.all_tasks()
    async with raw(_deaf) as host, Transport(timeout=5, ping_interval=0.1, trust_env=False) as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLost):
                while True:
                    await opened.send(b"x" * 1_000_000)
            with pytest.raises(ConnectionLost):
                await opened.receive()
            await opened.close()
    assert not {task for task in asyncio.all_tasks() - before if "keepalive" in repr(task)}


async def test_closing_towards_a_peer_that_takes_nothing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.client.transport.CLOSE_TIMEOUT", 0.1)
    async with raw(_deaf) as host, Transport(timeout=5, ping_interval=None, trust_env=False) as carrier:
        opened = await carrier.websocket(f"ws://{host}/")
        sending = asyncio.create_task(_flood(opened))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.shield(sending)
        async with asyncio.timeout(3):
            await opened.close()
            with pytest.raises(ConnectionLost):
                await sending


async def _flood(opened: Socket) -> None:
    while True:
        await opened.send(b"x" * 1_000_000)


async def test_closing_towards_a_numb_peer_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with raw(_numb) as host, transport() as carrier:
            opened = await carrier.websocket(f"ws://{host}/")
            began = asyncio.get_running_loop().time()
            await opened.close()
            assert asyncio.get_running_loop().time() - began < 4
    assert caplog.records == []


@pytest.mark.parametrize("ticks", range(0, 12))
async def test_cancelled_opening_leaves_nothing(ticks: int) -> None:
    async with talking(echo) as host, transport() as carrier:
        before = asyncio.all_tasks()
        opening = asyncio.create_task(carrier.websocket(f"ws://{host}/"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        opening.cancel()
        try:
            opened = await opening
        except asyncio.CancelledError:
            pass
        else:
            await opened.close()
        async with asyncio.timeout(5):
            while any("keepalive" in repr(task) for task in asyncio.all_tasks() - before):
                await asyncio.sleep(0)
