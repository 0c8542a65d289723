"""The test server is a real one: it serves both protocols, restarts on its ports, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
import ssl
import urllib.request
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from offhook.protocols import stomp
from offhook.testing import (
    DEMO_USERS,
    AdminRefused,
    BlockingTestServer,
    CommandFailed,
    ServerFailed,
    ServerMissing,
    TestServer,
    leaks,
)
from offhook.testing.process import NEEDED, free_port

WAIT = 10.0
ALICE = "alice@example.com"


async def chatkitty(server: TestServer, name: str, session: str | None = None, secure: bool = False) -> dict[str, str]:
    """Connects as ChatKitty's clients do. Returns the headers of CONNECTED."""
    trust = ssl.create_default_context(cafile=str(server.ca_file)) if secure else None
    host = server.tls_host if secure else server.host
    headers = {"StompX-User": name, "accept-version": "1.2", "heart-beat": "0,0"}
    if session is not None:
        headers["StompX-Auth-Session-ID"] = session
    async with (
        asyncio.timeout(WAIT),
        connect(
            f"{'wss' if secure else 'ws'}://{host}/rtm/websocket?api-key={server.api_key}",
            subprotocols=[Subprotocol("v12.stomp")],
            ssl=trust,
            proxy=None,
        ) as socket,
    ):
        await socket.send(stomp.encode("CONNECT", headers, b""), text=True)
        (frame,) = stomp.Decoder().feed(await socket.recv(decode=False))
        assert frame.command == "CONNECTED", frame
        return dict(frame.headers)


def kandy(url: str, name: str, password: str) -> dict[str, object]:
    """Subscribes as Kandy Link's clients do. Returns the answer."""
    proof = base64.b64encode(f"{name}:{password}".encode()).decode()
    asked = {
        "subscribeRequest": {
            "expires": 3600,
            "service": ["Presence", "IM"],
            "localization": "English_US",
            "useTurn": True,
            "notificationType": "WebSocket",
        }
    }
    request = urllib.request.Request(
        f"{url}/rest/version/1/user/{name}/subscription",
        method="POST",
        data=json.dumps(asked).encode(),
        headers={
            "Authorization": f"Basic {proof}",
            "Content-Type": "application/json",
            "X-Cpaas-Agent": "link-js-sdk/5.2.0",
        },
    )
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        value = json.loads(answer.read())
    assert isinstance(value, dict)
    return value


async def test_a_server_from_beginning_to_end() -> None:
    async with leaks(), TestServer(tls=True, users=DEMO_USERS) as server:
        assert server.url == f"http://{server.host}" == f"http://127.0.0.1:{server.port}"
        assert dict(server.users) == DEMO_USERS
        connected = await chatkitty(server, "guest@example.com")
        assert connected["session"]
        await chatkitty(server, "guest@example.com", secure=True)
        answer = await asyncio.to_thread(kandy, server.url, ALICE, DEMO_USERS[ALICE])
        assert "subscribeResponse" in answer

        (subscribed,) = await server.sessions(ALICE)
        assert (subscribed.protocol, subscribed.user) == ("kandy", ALICE)
        assert {session.user for session in await server.sessions(state="live")} >= {ALICE, "guest@example.com"}

        pid, api_key, port = server.pid, server.api_key, server.port
        await server.restart()
        assert (server.api_key, server.port) == (api_key, port)
        assert server.pid != pid
        again = await chatkitty(server, "guest@example.com", connected["session"])
        assert again["recovered"] == "complete"

        assert await server.end_session(subscribed.id, text="Maintenance") == 1
        (ended,) = await server.sessions(ALICE)
        assert (ended.state, ended.end_reason) == ("ended", "operator")
        assert await server.end_session(user="guest@example.com") >= 1
        assert await server.sessions(state="live") == []

        crashed = server.pid
        assert crashed is not None
        await server.kill()
        assert not psutil.pid_exists(crashed)
        with pytest.raises(ServerFailed, match="does not answer"):
            await server.sessions()
        await server.start()
        with pytest.raises(ServerFailed, match="runs already"):
            await server.start()
        assert server.pid not in (None, crashed)
        assert await server.stop() == 0
        folder = server.data_dir
        assert folder.exists()
    assert not folder.exists()


async def test_users_and_the_admin_api() -> None:
    async with TestServer(settings={"base_path": "/chat"}) as server:
        assert server.url.endswith("/chat")
        user_id = await server.create_user("carol@example.com", "her password", display_name="Carol")
        shown = await server.admin("GET", "/applications/default/users/carol@example.com")
        assert (shown["id"], shown["display_name"], shown["has_password"]) == (user_id, "Carol", True)
        with pytest.raises(AdminRefused, match="taken") as refused:
            await server.create_user("carol@example.com")
        assert (refused.value.status, refused.value.error) == (409, "conflict")
        with pytest.raises(AdminRefused) as missing:
            await server.end_session(12345)
        assert missing.value.error == "not_found"
        listed = await server.cli("user", "list")
        assert isinstance(listed, dict)
        assert [user["name"] for user in listed["users"]] == ["carol@example.com"]
        with pytest.raises(CommandFailed) as failed:
            await server.cli("user", "delete", "nobody@example.com", "--yes")
        assert failed.value.exit_code != 0


def test_without_asyncio(tmp_path: Path) -> None:
    functions = (
        "from offhook.functions import AccessDenied, on\n\n"
        "@on.user_attempted_start_session\n"
        "async def authenticate(event, context):\n"
        "    raise AccessDenied('Nobody comes in')\n"
    )
    with leaks(), TestServer(functions=functions, data_dir=tmp_path / "data") as server:
        assert isinstance(server, BlockingTestServer)
        assert server.create_user("carol@example.com", "her password") > 0
        assert server.sessions() == []
        key = server.api_key
        server.restart()
        assert server.api_key == key
        with pytest.raises(urllib.error.HTTPError):
            kandy(server.url, "carol@example.com", "her password")
    assert (tmp_path / "data" / "server.log").exists(), "a folder of one's own stays"


async def test_a_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    async with leaks():
        server = TestServer(settings={"log_level": "no such level"})
        with pytest.raises(ServerFailed, match="log_level"):
            await server.__aenter__()
        with pytest.raises(RuntimeError, match="must be entered"):
            _ = server.url


async def test_cancelling_the_start_leaves_nothing() -> None:
    mine = psutil.Process(os.getpid())
    before = {child.pid for child in mine.children()}
    async with leaks():
        server = TestServer()
        entering = asyncio.create_task(server.__aenter__())
        async with asyncio.timeout(WAIT):
            while {child.pid for child in mine.children()} == before:
                await asyncio.sleep(0.001)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(WAIT):
                await entering
        assert {child.pid for child in mine.children()} == before


async def test_one_server_is_one_context() -> None:
    async with TestServer() as server:
        with pytest.raises(RuntimeError, match="in use"):
            await server.__aenter__()


def test_a_server_that_ended_by_itself_can_be_started_again() -> None:
    with TestServer() as server:
        dead = server.pid
        assert dead is not None
        process = psutil.Process(dead)
        process.kill()
        process.wait(WAIT)
        server.start()
        assert server.pid not in (None, dead)
        assert server.sessions() == []


def test_without_the_server_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == NEEDED[-1] else found(name))
    with pytest.raises(ServerMissing, match=r"pip install \"offhook\[server\]\""), TestServer():
        pass


def test_importing_the_helpers_needs_no_server() -> None:
    """Nothing of the server is imported, nor httpx or websockets: those who only need the leak check wait for none."""
    import subprocess
    import sys

    code = (
        "import sys, offhook.testing\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'httpx', 'websockets', 'uvicorn', 'sqlalchemy', 'starlette', 'pydantic', 'typer', 'structlog'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_ports_are_free_and_outside_of_what_outgoing_connections_get() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 10
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if limits.exists():
        first = int(limits.read_text().split()[0])
        assert max(ports) < first
