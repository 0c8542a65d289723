"""SockJS over real sockets: every transport from the greeting to the close frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import httpx
import pytest
from tests.served import API_KEY, WAIT, Site, served, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from offhook.codes import CloseReason, EndReason
from offhook.domain.sessions import SessionState, StoryKind
from offhook.domain.values import PageRequest
from offhook.gateways.chatkitty import sockjs as sockjs_module
from offhook.gateways.chatkitty import sockjs_sockets
from offhook.gateways.chatkitty.connection import Connection
from offhook.ports import SessionFilter
from offhook.protocols import stomp
from offhook.server.timers import TimerWheel

BASES = ["/rtm", "/stompx"]
KEY = {"api-key": API_KEY}
CONNECT = {"StompX-User": "jane", "accept-version": "1.2", "heart-beat": "60000,10000"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path, max_frame=8192) as site:
        yield site


class Polling:
    """A SockJS client that polls."""

    def __init__(self, site: Site, name: str = "sess") -> None:
        self.site = site
        self.base = f"{site.url}/rtm/000/{name}"
        self._decoder = stomp.Decoder()
        self._frames: list[stomp.Frame] = []

    async def poll(self) -> str:
        """One SockJS frame."""
        answer = await self.site.http.post(f"{self.base}/xhr", params=KEY)
        assert answer.status_code == 200 and answer.text.endswith("\n")
        return answer.text[:-1]

    async def send(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        text = stomp.encode(command, headers, body).decode()
        answer = await self.site.http.post(f"{self.base}/xhr_send", content=json.dumps([text]))
        assert answer.status_code == 204 and answer.content == b""

    async def frame(self) -> stomp.Frame:
        """The next STOMP frame."""
        while not self._frames:
            text = await self.poll()
            assert text[0] == "a", text
            for message in json.loads(text[1:]):
                self._frames += self._decoder.feed(message.encode())
        return self._frames.pop(0)

    async def start(self) -> None:
        assert await self.poll() == "o"
        await self.send("CONNECT", CONNECT)
        assert (await self.frame()).command == "CONNECTED"


async def lines_of(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        yield line


@pytest.mark.parametrize("base", BASES)
async def test_greeting_and_info(site: Site, base: str) -> None:
    greeting = await site.http.get(f"{site.url}{base}")
    assert (greeting.status_code, greeting.text) == (200, "Welcome to SockJS!\n")
    assert greeting.headers["content-type"].startswith("text/plain")
    answers = [await site.http.get(f"{site.url}{base}/info", params=KEY) for _ in range(2)]
    first, second = (answer.json() for answer in answers)
    assert {name: first[name] for name in ("websocket", "origins", "cookie_needed")} == {
        "websocket": True,
        "origins": ["*:*"],
        "cookie_needed": False,
    }
    assert 0 <= first["entropy"] < 2**32 and first["entropy"] != second["entropy"]
    assert "no-store" in answers[0].headers["cache-control"]


async def test_a_session_by_polling(site: Site) -> None:
    client = Polling(site)
    await client.start()
    await client.send("SUBSCRIBE", {"id": "u", "destination": "/application/v1/user.relay"})
    user = json.loads((await client.frame()).body)["resource"]
    assert user["name"] == "jane" and user["presence"]["online"]
    for key in ("self", "contacts", "users"):
        await client.send("SUBSCRIBE", {"id": key, "destination": user["_topics"][key], "receipt": key})
        assert (await client.frame()).headers["receipt-id"] == key
    # An event comes while a request waits for it.
    waiting = asyncio.create_task(client.frame())
    await until(lambda: all(session.receiving for session in site.server._chatkitty.sockjs._sessions.values()))
    async with site.client("jöhn \U0001f600"):
        frame = await waiting
        event = json.loads(frame.body)
        assert (event["type"], event["resource"]["name"]) == ("contact.presence.changed", "jöhn \U0001f600")
    update = {"destination": user["_actions"]["update"], "receipt": "done"}
    await client.send("SEND", update, json.dumps({"displayName": "Jane"}).encode())
    assert json.loads((await client.frame()).body)["resource"]["displayName"] == "Jane"
    assert (await client.frame()).headers["receipt-id"] == "done"
    await client.send("DISCONNECT", {"receipt": "bye"})
    assert (await client.frame()).headers["receipt-id"] == "bye"
    (session,) = (await site.core.sessions.list(SessionFilter(user_name="jane"), PageRequest())).items
    assert (session.state, session.end_reason) == (SessionState.ENDED, EndReason.CLIENT)


async def test_a_session_by_streaming(site: Site) -> None:
    base = f"{site.url}/stompx/000/streaming"
    async with site.http.stream("POST", f"{base}/xhr_streaming", params=KEY) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/javascript; charset=UTF-8"
        lines = lines_of(response)
        assert await anext(lines) == "h" * 2048
        assert await anext(lines) == "o"
        text = stomp.encode("CONNECT", CONNECT).decode()
        assert (await site.http.post(f"{base}/xhr_send", content=json.dumps([text]))).status_code == 204
        line = await anext(lines)
        assert line[0] == "a" and json.loads(line[1:])[0].startswith("CONNECTED\n")
        assert len(site.core.hub) == 1
    # The request is gone; the session waits for the next one, which goes on where this one ended.
    sessions = site.server._chatkitty.sockjs._sessions
    await until(lambda: not sessions["streaming"].receiving)
    async with site.http.stream("POST", f"{base}/xhr_streaming", params=KEY) as response:
        lines = lines_of(response)
        assert await anext(lines) == "h" * 2048
        relay = stomp.encode("SUBSCRIBE", {"id": "u", "destination": "/application/v1/user.relay"}).decode()
        await site.http.post(f"{base}/xhr_send", content=json.dumps([relay]))
        assert "jane" in await anext(lines)


@pytest.mark.parametrize("bound", [("STREAM_BYTES", 100), ("STREAM_SECONDS", 0.001)], ids=["bytes", "seconds"])
async def test_a_stream_ends_when_it_is_long_and_the_next_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, float]
) -> None:
    monkeypatch.setattr(sockjs_module, *bound)
    base = f"{site.url}/rtm/000/long"
    async with site.http.stream("POST", f"{base}/xhr_streaming", params=KEY) as response:
        lines = lines_of(response)
        assert [await anext(lines), await anext(lines)] == ["h" * 2048, "o"]
        await site.http.post(f"{base}/xhr_send", content=json.dumps([stomp.encode("CONNECT", CONNECT).decode()]))
        assert [line[:1] async for line in lines] == ["a"]
    client = Polling(site, "long")
    await client.send("SUBSCRIBE", {"id": "u", "destination": "/application/v1/user.relay"})
    assert (await client.frame()).command == "MESSAGE"


async def test_a_session_over_a_framed_websocket(site: Site) -> None:
    async with connect(site.websocket("/rtm/000/ws/websocket"), proxy=None, compression=None) as socket:
        assert await socket.recv() == "o"
        await socket.send("")
        await socket.send(json.dumps(stomp.encode("CONNECT", CONNECT).decode()))
        answer = str(await socket.recv())
        assert answer[0] == "a" and json.loads(answer[1:])[0].startswith("CONNECTED\n")
        relay = stomp.encode("SUBSCRIBE", {"id": "u", "destination": "/application/v1/user.relay"}).decode()
        # One message may hold several texts, and a frame may come in parts.
        await socket.send(json.dumps([relay[:10], relay[10:], "\n"]))
        answer = str(await socket.recv())
        assert '\\"name\\":\\"jane\\"' in answer and answer.isascii()
        await socket.send("[not json")
        assert json.loads(str(await socket.recv())[1:])[0] == 1002
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1002


async def test_the_framed_websocket_can_be_switched_off(tmp_path: Path) -> None:
    async with served(tmp_path, sockjs_websocket=False) as site:
        assert (await site.http.get(f"{site.url}/rtm/info")).json()["websocket"] is False
        with pytest.raises(InvalidStatus) as refused:
            await connect(site.websocket("/rtm/000/ws/websocket"), proxy=None)
        assert refused.value.response.status_code == 404
        async with site.client("jane"):
            assert len(site.core.hub) == 1


@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming"])
async def test_a_second_receiver_is_sent_away_and_the_first_goes_on(site: Site, transport: str) -> None:
    client = Polling(site)
    assert await client.poll() == "o"
    first = asyncio.create_task(client.frame())
    await until(lambda: site.server._chatkitty.sockjs._sessions["sess"].receiving)
    second = await site.http.post(f"{client.base}/{transport}", params=KEY)
    assert second.text.endswith('c[2010,"Another connection still open"]\n')
    await client.send("CONNECT", CONNECT)
    assert (await first).command == "CONNECTED"


async def test_what_nobody_opened_is_not_found(site: Site) -> None:
    answer = await site.http.post(f"{site.url}/rtm/000/unknown/xhr_send", content='["x"]')
    assert answer.status_code == 404
    for path in ("/rtm/000/sess/eventsource", "/rtm/000/xhr", "/rtm/a/b/c/xhr", "/other/000/sess/xhr"):
        assert (await site.http.post(site.url + path, params=KEY)).status_code == 404
    assert (await site.http.get(f"{site.url}/rtm/000/sess/xhr", params=KEY)).status_code == 405
    assert len(site.server._chatkitty.sockjs) == 0


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ("", 500, "Payload expected."),
        ("[", 500, "Broken JSON encoding."),
        ('{"a":1}', 500, "Broken JSON encoding."),
        ("[1]", 500, "Broken JSON encoding."),
        (b"\xff\xfe", 500, "Broken JSON encoding."),
        ('["' + "x" * 9000 + '"]', 413, "large"),
        (json.dumps([""] * 1100), 413, "many"),
    ],
)
async def test_what_cannot_be_taken(site: Site, content: str | bytes, status: int, message: str) -> None:
    client = Polling(site)
    assert await client.poll() == "o"
    answer = await site.http.post(f"{client.base}/xhr_send", content=content)
    assert answer.status_code == status and message in answer.text
    # The session is none the worse for it.
    await client.send("CONNECT", CONNECT)
    assert (await client.frame()).command == "CONNECTED"


@pytest.mark.parametrize(
    ("path", "method"), [("", "GET"), ("/info", "GET"), ("/0/s/xhr", "POST"), ("/0/s/xhr_send", "POST")]
)
async def test_pages_of_other_origins_may_read(site: Site, path: str, method: str) -> None:
    origin = {"Origin": "https://app.example.test"}
    answer = await site.http.request(method, f"{site.url}/rtm{path}", params=KEY, headers=origin)
    # Credentialed requests need the origin by name, errors included; a cache must not mix them up.
    assert answer.headers["access-control-allow-origin"] == "https://app.example.test"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "origin" in answer.headers["vary"].lower()
    preflight = await site.http.options(
        f"{site.url}/rtm{path}", headers={**origin, "Access-Control-Request-Method": method}
    )
    assert preflight.status_code == 204 and method in preflight.headers["access-control-allow-methods"]


async def test_a_client_that_stays_away_is_lost_and_may_resume(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockjs_sockets, "DISCONNECT_AFTER", 0.1)
    client = Polling(site)
    assert await client.poll() == "o"
    sending = asyncio.create_task(client.send("CONNECT", CONNECT))
    answer = await client.frame()
    await sending
    await until(lambda: len(site.server._chatkitty.sockjs) == 0)
    await until(lambda: len(site.core.hub) == 0)
    again = Polling(site, "again")
    assert await again.poll() == "o"
    sending = asyncio.create_task(
        again.send("CONNECT", {**CONNECT, "StompX-Auth-Session-ID": answer.headers["session"]})
    )
    assert (await again.frame()).headers["recovered"] == "complete"
    await sending
    assert (await site.http.post(f"{client.base}/xhr_send", content='["x"]')).status_code == 404


@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming"])
async def test_an_idle_receiver_gets_heart_beats(site: Site, monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    monkeypatch.setattr(sockjs_module, "HEARTBEAT_EVERY", 0.02)
    client = Polling(site)
    assert await client.poll() == "o"
    async with site.http.stream("POST", f"{client.base}/{transport}", params=KEY) as response:
        lines = lines_of(response)
        if transport == "xhr_streaming":
            assert await anext(lines) == "h" * 2048
            assert await anext(lines) == "h"
        assert await anext(lines) == "h"


async def test_the_last_words_come_before_the_close_frame_in_a_stream(site: Site) -> None:
    base = f"{site.url}/rtm/000/closing"
    async with site.http.stream("POST", f"{base}/xhr_streaming", params=KEY) as response:
        lines = lines_of(response)
        assert [await anext(lines), await anext(lines)] == ["h" * 2048, "o"]
        await site.http.post(f"{base}/xhr_send", content=json.dumps(["NONSENSE\n\n\0"]))
        last, close = [line async for line in lines]
        assert json.loads(last[1:])[0].startswith("ERROR\n")
        assert json.loads(close[1:])[0] == 1002
    await until(lambda: len(site.server._chatkitty.sockjs) == 0)


async def test_the_last_words_come_before_the_close_frame_by_polling(site: Site) -> None:
    client = Polling(site)
    assert await client.poll() == "o"
    await site.http.post(f"{client.base}/xhr_send", content=json.dumps(["NONSENSE\n\n\0"]))
    assert (await client.frame()).command == "ERROR"
    assert json.loads((await client.poll())[1:])[0] == 1002
    await until(lambda: len(site.server._chatkitty.sockjs) == 0)


async def test_a_client_that_does_not_fetch_is_cut_off(tmp_path: Path) -> None:
    async with served(tmp_path, max_write_buffer=65536) as site:
        client = Polling(site)
        await client.start()
        relay = stomp.encode("SUBSCRIBE", {"id": "u", "destination": "/application/v1/user.relay"}).decode()
        for _ in range(100):
            answer = await site.http.post(f"{client.base}/xhr_send", content=json.dumps([relay]))
            if answer.status_code == 404:
                break
        assert answer.status_code == 404
        async with asyncio.timeout(WAIT):
            while (last := (await site.core.sessions.show(1)).story[-1]).kind is not StoryKind.SUSPENDED:
                await asyncio.sleep(0.005)
        assert last.reason == "slow_consumer"


async def test_one_session_too_many_is_told_to_come_later(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=2) as site:
        assert [await Polling(site, f"s{number}").poll() for number in range(2)] == ["o", "o"]
        answer = await site.http.post(f"{site.url}/rtm/000/s3/xhr", params=KEY)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


async def test_who_brings_something_to_a_session_that_is_lost_meanwhile_is_answered() -> None:
    class Nobody:
        def closed(self, reason: CloseReason, detail: str) -> None:
            """Ends."""

    session = sockjs_sockets.XhrSession(cast(Connection, Nobody()), TimerWheel(), 65536, lambda: None)
    session.pause()
    bringing = asyncio.create_task(session.bring(b"", ["one", "two"]))
    await asyncio.sleep(0)
    session.lose("no request in time")
    async with asyncio.timeout(WAIT):
        await bringing


async def test_much_that_waits_comes_in_several_frames(site: Site) -> None:
    client = Polling(site)
    await client.start()
    relay = stomp.encode("SUBSCRIBE", {"id": "u" * 4000, "destination": "/application/v1/user.relay"}).decode()
    for _ in range(20):
        await site.http.post(f"{client.base}/xhr_send", content=json.dumps([relay]))
    sizes: list[int] = []
    while sum(sizes) < 80_000:
        sizes.append(len(await client.poll()))
    assert len(sizes) > 1 and max(sizes) < 2 * sockjs_sockets.FRAME
