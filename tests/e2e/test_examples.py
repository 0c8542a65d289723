"""The programs in ``examples``, run as they stand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.e2e.programs import ROOT, Program, environment, running
from tests.support import free_port

from offhook import kandy
from offhook.chatkitty import ChatKitty
from offhook.testing import DEMO_USERS, TestServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLES = ROOT / "examples"
ALICE, BOB = DEMO_USERS
TOKEN_SECRET = "a secret of the application, long enough"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[TestServer]:
    async with TestServer(tls=True, users=DEMO_USERS) as server:
        yield server


def example(
    name: str, server: TestServer, folder: Path, *, secure: bool = False, **variables: str
) -> AbstractAsyncContextManager[Program]:
    """Runs an example against the server."""
    url = {"OFFHOOK_URL": f"https://{server.tls_host}" if secure else server.url, "SSL_CERT_FILE": str(server.ca_file)}
    env = environment(**url, OFFHOOK_API_KEY=server.api_key, **variables)
    return running(EXAMPLES / name, folder=folder, env=env)


async def output(program: Program) -> list[str]:
    """Everything that a program prints, which must end well and without complaints."""
    assert await program.ends() == 0, await program.errors()
    assert await program.errors() == ""
    return program.said


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_kandy_uc_connect(server: TestServer, tmp_path: Path, secure: bool) -> None:
    password = DEMO_USERS[ALICE]
    async with example("kandy_uc_connect.py", server, tmp_path, secure=secure, OFFHOOK_PASSWORD=password) as program:
        said = await output(program)
    changed = "Connection state changed. Connected:"
    assert said == [
        f"{changed} False",
        f"{changed} True",
        f"{ALICE} is connected, with the services call,IM,Presence",
        f"{changed} True",
        f"{changed} False",
    ]


async def test_kandy_uc_connect_with_a_wrong_password(server: TestServer, tmp_path: Path) -> None:
    async with example("kandy_uc_connect.py", server, tmp_path, OFFHOOK_PASSWORD="wrong") as program:
        said = await output(program)
    assert re.fullmatch(r"Connect error: .+ \(authentication:9\)", said[-1])
    assert not any(line.endswith("True") for line in said)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_kandy_link_connect(server: TestServer, tmp_path: Path, secure: bool) -> None:
    variables = {"OFFHOOK_USER": BOB, "OFFHOOK_PASSWORD": DEMO_USERS[BOB]}
    async with example("kandy_link_connect.py", server, tmp_path, secure=secure, **variables) as program:
        said = await output(program)
    granted, nothing = "Subscribed services: call,Presence,IM", "Subscribed services: "
    assert said == ["Credentials set", nothing, granted, granted, nothing]


async def test_kandy_link_connect_with_a_wrong_password(server: TestServer, tmp_path: Path) -> None:
    async with example("kandy_link_connect.py", server, tmp_path, OFFHOOK_PASSWORD="wrong") as program:
        said = await output(program)
    assert re.fullmatch(r"Subscription error: .+ \(authentication:4\)", said[-1])


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_chatkitty_session(server: TestServer, tmp_path: Path, secure: bool) -> None:
    ended = "Session ended, current user: None"
    async with example("chatkitty_session.py", server, tmp_path, secure=secure) as program:
        assert await output(program) == ["Session of jane@chatkitty.com (guest: True)", ended]
    # As the page says: alice's password is there for all of them.
    async with example("chatkitty_session.py", server, tmp_path, OFFHOOK_PASSWORD=DEMO_USERS[ALICE]) as program:
        assert await output(program) == [f"Session of {ALICE} (guest: False)", ended]
    variables = {"OFFHOOK_USER": BOB, "OFFHOOK_PASSWORD": DEMO_USERS[BOB]}
    async with example("chatkitty_session.py", server, tmp_path, secure=secure, **variables) as program:
        assert await output(program) == [f"Session of {BOB} (guest: False)", ended]
    async with example("chatkitty_session.py", server, tmp_path, OFFHOOK_USER=BOB, OFFHOOK_PASSWORD="no") as program:
        assert await output(program) == ["No session: The username or the password is wrong (AccessDeniedError)"]


async def test_echo_bot(server: TestServer, tmp_path: Path) -> None:
    config = {
        "authentication": {"server": {"protocol": "http", "base": "127.0.0.1", "port": server.blocking.port}},
        "subscription": {"websocket": {"protocol": "ws", "server": "127.0.0.1", "port": server.blocking.port}},
    }
    async with kandy.create(config) as client, client.events("messages:change") as events:
        client.set_credentials(username=BOB, password=DEMO_USERS[BOB])
        await client.services.subscribe(["IM"])
        conversation = client.conversation.create(ALICE)
        # The first one waits for the bot.
        await conversation.send("while you are away")
        async with example("echo_bot.py", server, tmp_path, OFFHOOK_PASSWORD=DEMO_USERS[ALICE]) as bot:
            await bot.says(f"Listening as {ALICE}")
            await bot.says(f"{BOB}: while you are away")
            await conversation.send("Zoë 🙂")
            answers: list[str] = []
            async with asyncio.timeout(30):
                async for event in events:
                    if isinstance(event, kandy.MessagesChange) and event.message is not None and event.message.incoming:
                        answers.append(event.message.text)
                        if len(answers) == 2:
                            break
            assert answers == ["while you are away", "Zoë 🙂"]
            bot.interrupt()
            assert await output(bot)
        await client.services.unsubscribe()


async def test_echo_bot_says_why_it_ended(server: TestServer, tmp_path: Path) -> None:
    async with example("echo_bot.py", server, tmp_path, OFFHOOK_PASSWORD=DEMO_USERS[ALICE]) as bot:
        await bot.says(f"Listening as {ALICE}")
        await server.end_session(user=ALICE)
        assert await bot.ends() == 1
        assert await bot.errors() == "The server has ended the subscription: GONE\n"
    async with example("echo_bot.py", server, tmp_path, OFFHOOK_PASSWORD="wrong") as bot:
        assert await bot.ends() == 1
        assert "(authentication:4)" in await bot.errors()


async def test_presence_watcher(server: TestServer, tmp_path: Path) -> None:
    async with (
        ChatKitty(server.api_key, host=server.host, is_secure=False) as joe,
        example("presence_watcher.py", server, tmp_path) as watcher,
    ):
        (await joe.start_session("joe")).unwrap()
        await watcher.says("Watching as presence-watcher")
        await watcher.says("joe", "is here")
        await joe.end_session()
        await watcher.says("joe left")
        (await joe.start_session("joe")).unwrap()
        await watcher.says("joe came")
        await joe.end_session()
        watcher.interrupt()
        assert await output(watcher)
    async with example("presence_watcher.py", server, tmp_path, OFFHOOK_PASSWORD=DEMO_USERS[ALICE]) as watcher:
        await watcher.says(f"Watching as {ALICE}")
    async with example("presence_watcher.py", server, tmp_path, OFFHOOK_USER=ALICE) as watcher:
        assert await watcher.ends() == 1
        assert (await watcher.errors()).startswith("No session: ")


async def test_fastapi_app(server: TestServer, tmp_path: Path) -> None:
    policy = {"tokens": {"algorithms": ["HS256"], "secret": TOKEN_SECRET}}
    await server.admin("PATCH", "/applications/default", policy)
    port = free_port()
    env = environment(OFFHOOK_URL=server.url, OFFHOOK_API_KEY=server.api_key, OFFHOOK_TOKEN_SECRET=TOKEN_SECRET)
    arguments = ("-m", "uvicorn", "--app-dir", EXAMPLES / "fastapi_app", "--port", str(port), "app:app")
    async with (
        running(*arguments, folder=tmp_path, env=env) as program,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, follow_redirects=True) as browser,
    ):
        await program.complains("Uvicorn running")
        assert "<form" in (await browser.get("/")).text
        assert (await browser.post("/session")).status_code == 401
        wrong = await browser.post("/login", data={"account": "jane", "password": "wrong"})
        assert wrong.status_code == 403
        page = await browser.post("/login", data={"account": "jane", "password": "jane's password"})
        assert "Offhook started a session of Jane" in page.text

        started = (await browser.post("/session")).json()
        assert (started["name"], started["displayName"], started["guest"]) == ("jane@example.com", "Jane", False)

        # The page's own client does with the token what the application did.
        told = (await browser.get("/token")).json()
        async with ChatKitty(told["apiKey"], host=server.host, is_secure=False) as kitty:
            result = await kitty.start_session(told["username"], auth_params=told["authParams"])
            assert result.unwrap().session.user.name == "jane@example.com"
            await kitty.end_session()
            other = await kitty.start_session("joe@example.com", auth_params=told["authParams"])
            assert other.failed
        program.interrupt()
        await program.ends()


async def test_every_example_is_run_and_described() -> None:
    programs = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")}
    rows = re.findall(r"^\| \[(\S+)\]\((\S+)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert {target for _, target in rows} == programs
    text = Path(__file__).read_text()
    assert [name for name, _ in rows if f'"{name}"' not in text] == []
