"""SockJS without WebSocket at two servers: whichever of them each request of a client comes to."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.chaos.killing import Admin
from tests.cluster import Cluster, running
from tests.redis_servers import redis_server
from tests.support import ServerProcess

from offhook.protocols import stomp

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = 15.0
CONNECT = {"accept-version": "1.2", "heart-beat": "60000,10000"}
SETTINGS = {"node_lease": "1.0", "sockjs_websocket": "false"}
_names = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster"), **SETTINGS) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        yield client


class Wanderer:
    """A client each of whose requests goes to a server of the test's choice."""

    def __init__(self, http: httpx.AsyncClient, first: ServerProcess, username: str) -> None:
        self._http = http
        self._path = f"/rtm/000/{secrets.token_hex(8)}"
        self._key = first.api_key
        self._decoder = stomp.Decoder()
        self._frames: list[stomp.Frame] = []
        self.username = username

    def url(self, at: ServerProcess, transport: str) -> str:
        return f"http://{at.http_host}{self._path}/{transport}?api-key={self._key}"

    async def poll(self, at: ServerProcess) -> str:
        answer = await self._http.post(self.url(at, "xhr"))
        assert answer.status_code == 200, answer.text
        return answer.text.removesuffix("\n")

    async def wait(self, at: ServerProcess) -> asyncio.Task[str]:
        """A poll that waits for something to come: another one was sent away for it."""
        polls = [asyncio.create_task(self.poll(at)) for _ in range(2)]
        (sent_away,), (waiting,) = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        assert json.loads((await sent_away)[1:])[0] == 2010
        return waiting

    async def post(self, at: ServerProcess, *texts: str) -> httpx.Response:
        return await self._http.post(self.url(at, "xhr_send"), content=json.dumps(texts, ensure_ascii=False))

    async def say(self, at: ServerProcess, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        answer = await self.post(at, stomp.encode(command, headers, body).decode())
        assert answer.status_code == 204, answer.text

    def took(self, line: str) -> None:
        assert line[:1] == "a", line
        for message in json.loads(line[1:]):
            self._frames += self._decoder.feed(message.encode())

    async def frame(self, *at: ServerProcess) -> stomp.Frame:
        """The next STOMP frame, asked for at one server after the other."""
        for place in itertools.cycle(at):
            if self._frames:
                break
            line = await self.poll(place)
            if line != "h":
                self.took(line)
        return self._frames.pop(0)

    async def sign_in(self, one: ServerProcess, two: ServerProcess) -> dict[str, object]:
        """Opens the session at the first and connects at the second. Returns the user."""
        assert await self.poll(one) == "o"
        await self.say(two, "CONNECT", CONNECT | {"StompX-User": self.username})
        assert (await self.frame(two, one)).command == "CONNECTED"
        await self.say(one, "SUBSCRIBE", {"id": "u", "destination": "/application/v1/user.relay"})
        user = json.loads((await self.frame(two, one)).body)["resource"]
        assert isinstance(user, dict)
        return user


async def test_each_request_may_come_to_another_server(cluster: Cluster, http: httpx.AsyncClient) -> None:
    one, two = cluster.nodes
    client = Wanderer(http, one, f"wanderer-{next(_names)}")
    user = await client.sign_in(one, two)
    assert user["name"] == client.username
    topics, actions = user["_topics"], user["_actions"]
    assert isinstance(topics, dict) and isinstance(actions, dict)
    await client.say(two, "SUBSCRIBE", {"id": "self", "destination": topics["self"], "receipt": "self"})
    assert (await client.frame(two)).headers["receipt-id"] == "self"
    for number, at in zip(range(1, 21), itertools.cycle((one, two))):
        update = {"destination": str(actions["update"]), "receipt": f"r{number}"}
        await client.say(at, "SEND", update, json.dumps({"displayName": f"☎ {number}"}).encode())
        told = [await client.frame(two, one), await client.frame(one, two)]
        assert [frame.headers["receipt-id"] for frame in told] == [f"r{number}"] * 2
        (event,) = (frame for frame in told if frame.command == "MESSAGE")
        assert json.loads(event.body)["resource"]["displayName"] == f"☎ {number}"
    # Escaped it would be larger than it may be.
    long = json.dumps({"displayName": "ю" * 50_000}, ensure_ascii=False).encode()
    large = stomp.encode("SEND", {"destination": str(actions["update"])}, long).decode()
    assert (await client.post(two, *[large] * 4)).status_code == 204
    # What waits at one is what the other asks for, and comes at once.
    waiting = await client.wait(two)
    began = time.monotonic()
    await client.say(two, "DISCONNECT", {"receipt": "bye"})
    client.took(await waiting)
    assert (await client.frame(two)).headers["receipt-id"] == "bye"
    assert time.monotonic() - began < 1.0
    (session,) = await asyncio.to_thread(Admin(one).sessions, client.username)
    assert (session["state"], session["end_reason"]) == ("ended", "client")


async def test_a_stream_from_another_server(cluster: Cluster, http: httpx.AsyncClient) -> None:
    one, two = cluster.nodes
    client = Wanderer(http, one, f"wanderer-{next(_names)}")
    await client.sign_in(one, two)
    relay = {"id": "again", "destination": "/application/v1/user.relay"}
    async with http.stream("POST", client.url(two, "xhr_streaming")) as response:
        lines = aiter(response.aiter_lines())
        assert await anext(lines) == "h" * 2048
        for _ in range(2):
            await client.say(one, "SUBSCRIBE", relay)
            client.took(await anext(lines))
            assert json.loads((await client.frame()).body)["resource"]["name"] == client.username
        # Only one request fetches at a time, wherever the other is.
        for at in (one, two):
            assert json.loads((await client.poll(at))[1:])[0] == 2010
    # It is gone without a word; the next one fetches soon, not when the other would have given up.
    speaking = asyncio.create_task(speak(client, two, relay))
    try:
        async with asyncio.timeout(2.0):
            while (line := await client.poll(one)).startswith("c[2010"):
                pass
    finally:
        speaking.cancel()
    client.took(line)


async def speak(client: Wanderer, at: ServerProcess, relay: dict[str, str]) -> None:
    """Asks again and again for something that is to be told the client."""
    while True:
        await client.say(at, "SUBSCRIBE", relay)
        await asyncio.sleep(0.2)


async def test_what_is_wrong_is_said_by_either_server(cluster: Cluster, http: httpx.AsyncClient) -> None:
    one, two = cluster.nodes
    client = Wanderer(http, one, f"wanderer-{next(_names)}")
    for at in (one, two):
        assert (await client.post(at, "x")).status_code == 404
    await client.sign_in(one, two)
    for at in (one, two):
        answer = await http.post(client.url(at, "xhr_send"), content="[1]")
        assert (answer.status_code, answer.text) == (500, "Broken JSON encoding.")
    assert (await client.post(two, "NONSENSE\n\n\0")).status_code == 204
    assert (await client.frame(two)).command == "ERROR"
    assert json.loads((await client.poll(two))[1:])[0] == 1002
    async with asyncio.timeout(PATIENCE):
        while (await client.post(two, "x")).status_code != 404:
            await asyncio.sleep(0.01)


async def test_a_client_that_stays_away_is_lost_wherever_it_was(cluster: Cluster, http: httpx.AsyncClient) -> None:
    one, two = cluster.nodes
    client = Wanderer(http, one, f"wanderer-{next(_names)}")
    await client.sign_in(one, two)
    left = time.monotonic()
    async with asyncio.timeout(2 * PATIENCE):
        while (await asyncio.to_thread(Admin(two).sessions, client.username))[0]["state"] != "suspended":
            await asyncio.sleep(0.05)
    assert 4.0 < time.monotonic() - left < 20.0
    assert (await client.post(two, "x")).status_code == 404


async def test_two_first_requests_at_once_make_one_session(cluster: Cluster, http: httpx.AsyncClient) -> None:
    one, two = cluster.nodes
    for _ in range(2):
        client = Wanderer(http, one, f"wanderer-{next(_names)}")
        first, second = (asyncio.create_task(client.poll(one)) for _ in range(2))
        done, pending = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        assert "o" in [task.result() for task in done]
        await client.say(two, "CONNECT", CONNECT | {"StompX-User": client.username})
        for task in pending:
            client.took(await task)
        assert (await client.frame(two)).command == "CONNECTED"
        await client.say(one, "DISCONNECT", {"receipt": "bye"})
        assert (await client.frame(two)).headers["receipt-id"] == "bye"


async def test_a_server_that_stops_lets_its_requests_go_elsewhere(cluster: Cluster, http: httpx.AsyncClient) -> None:
    one, two = cluster.nodes
    client = Wanderer(http, one, f"wanderer-{next(_names)}")
    await client.sign_in(one, two)
    try:
        async with http.stream("POST", client.url(two, "xhr_streaming")) as response:
            lines = aiter(response.aiter_lines())
            assert await anext(lines) == "h" * 2048
            await client.say(one, "SUBSCRIBE", {"id": "again", "destination": "/application/v1/user.relay"})
            client.took(await anext(lines))
            await client.frame()
            stopping = asyncio.create_task(asyncio.to_thread(two.stop))
            # It ends as it should, so that the client asks again.
            assert [line async for line in lines] == ["h"]
        await client.say(one, "SUBSCRIBE", {"id": "again", "destination": "/application/v1/user.relay"})
        assert json.loads((await client.frame(one)).body)["resource"]["name"] == client.username
        await stopping
    finally:
        await asyncio.to_thread(two.start)


async def test_who_asks_at_one_is_told_when_the_other_dies(cluster: Cluster, http: httpx.AsyncClient) -> None:
    one, two = cluster.nodes
    client = Wanderer(http, one, f"wanderer-{next(_names)}")
    await client.sign_in(one, two)
    waiting = await client.wait(two)
    await asyncio.to_thread(one.kill)
    try:
        began = time.monotonic()
        assert json.loads((await waiting)[1:])[0] == 1006
        assert time.monotonic() - began < 20.0
        again = Wanderer(http, two, client.username)
        await again.sign_in(two, two)
    finally:
        await asyncio.to_thread(one.start)


async def test_a_session_outlives_redis(tmp_path: Path, http: httpx.AsyncClient) -> None:
    async with redis_server(tmp_path / "redis") as redis:
        with running(tmp_path, redis.url, **SETTINGS) as made:
            one, two = made.nodes
            client = Wanderer(http, one, f"wanderer-{next(_names)}")
            await client.sign_in(one, two)
            relay = {"id": "again", "destination": "/application/v1/user.relay"}
            for _ in range(3):
                waiting = await client.wait(two)
                redis.kill()
                await client.say(one, "SUBSCRIBE", relay)
                await redis.start()
                client.took(await waiting)
                assert json.loads((await client.frame()).body)["resource"]["name"] == client.username
                await client.say(two, "SUBSCRIBE", relay)
                assert json.loads((await client.frame(one)).body)["resource"]["name"] == client.username
