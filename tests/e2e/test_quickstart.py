"""``offhook quickstart`` as people and scripts use it: against a server that runs, and with one of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.e2e.programs import environment, running
from tests.support import free_port

from offhook.cli.quickstart.place import Place, why_silent
from offhook.testing import DEMO_USERS, TestServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUICKSTARTS = ["kandy-uc", "kandy-link", "chatkitty"]
USERS = [option for name in DEMO_USERS for option in ("--user", name)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[TestServer]:
    async with TestServer(tls=True, users=DEMO_USERS) as server:
        yield server


async def play(
    folder: Path, *arguments: str | Path, passwords: str | None = None, **variables: str
) -> tuple[int, list[str], str]:
    """Runs the command. Returns its exit code, the lines it printed, and what it wrote to standard error."""
    text = map(str, arguments)
    async with running("-m", "offhook", "quickstart", *text, folder=folder, env=environment(**variables)) as program:
        if passwords is not None:
            program.write(passwords)
        program.end_input()
        code = await program.ends()
        return code, program.said, await program.errors()


def both() -> str:
    return "\n".join(DEMO_USERS.values())


async def test_all_quickstarts_against_a_running_server(server: TestServer, tmp_path: Path) -> None:
    before = await server.admin("GET", "/applications/default/users")
    code, lines, errors = await play(
        tmp_path, "--url", server.url, "--api-key", server.api_key, *USERS, "--password-stdin", passwords=both()
    )
    assert (code, errors) == (0, "")
    text = "\n".join(lines)
    assert f"Playing against {server.url}." in lines
    for part in (
        "auth:change: Connection state changed. Connected: true",
        "auth:error: Connect error: There was an error connecting. Error: The username or the password is wrong "
        "(authentication:9)",
        "getConnection: { isConnected: true, isPending: false, error: undefined }",
        "subscription:error: Subscription error: Failed to subscribe user.",
        "(authentication:4)",
        "auth:change: Credentials set",
        "subscription:change: Subscription state changed. Subscribed services: call,Presence,IM",
        "Kandy SDK has been uninitialized.",
        "AccessDeniedError: The username or the password is wrong",
        "SessionActiveError: ",
    ):
        assert part in text
    assert "✗" not in text
    assert not any(password in text for password in DEMO_USERS.values())

    assert await server.admin("GET", "/applications/default/users") == before
    assert await server.sessions(state="live") == []


async def test_with_tls_and_as_json(server: TestServer, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(both())
    code, lines, errors = await play(
        tmp_path,
        "--json",
        "--url",
        f"https://{server.tls_host}",
        "--ca",
        server.ca_file,
        *USERS,
        "--password-file",
        passwords,
        OFFHOOK_API_KEY=server.api_key,
    )
    assert (code, errors) == (0, "")
    first, *told, summary = map(json.loads, lines)
    assert first == {"kind": "server", "url": f"https://{server.tls_host}", "own": False}
    assert [line["offset"] for line in told] == sorted(line["offset"] for line in told)
    assert {line["kind"] for line in told} == {"step", "event", "value", "passed"}
    connections = [line["data"] for line in told if line["name"] == "getConnection"]
    assert [it["isConnected"] for it in connections] == [False, True, False]
    assert connections[0]["error"] == "authentication:9"
    assert summary["passed"] is True
    assert [it["quickstart"] for it in summary["quickstarts"]] == QUICKSTARTS
    assert all(it["failed"] == {} and it["passed"] > 3 for it in summary["quickstarts"])


async def test_some_of_them_in_the_usual_order(server: TestServer, tmp_path: Path) -> None:
    code, lines, _ = await play(
        tmp_path,
        "kandy-link",
        "kandy-uc",
        "--json",
        "--url",
        server.url,
        *USERS,
        "--password-stdin",
        passwords=both(),
    )
    assert code == 0
    assert [it["quickstart"] for it in json.loads(lines[-1])["quickstarts"]] == QUICKSTARTS[:2]


async def test_it_finds_the_server_and_demo_users_of_its_folder(tmp_path: Path) -> None:
    settings = {
        "OFFHOOK_DATA_DIR": str(tmp_path / "data"),
        "OFFHOOK_PORT": str(free_port()),
        "OFFHOOK_TLS_PORT": str(free_port()),
    }
    env = environment(**settings, OFFHOOK_DRAIN_SECONDS="0")
    async with running("-m", "offhook", "serve", "--demo", "--tls-dev", folder=tmp_path, env=env) as serving:
        await serving.says("demo user")
        url = f"http://127.0.0.1:{settings['OFFHOOK_PORT']}"
        code, lines, errors = await play(tmp_path, "--url", url, **settings)
        assert (code, errors) == (0, ""), lines
        assert any("connect as alice@example.com" in line for line in lines)
        assert any("session of Bob (bob@example.com, user)" in line for line in lines)
        # As its help says for TLS.
        secure = f"https://localhost:{settings['OFFHOOK_TLS_PORT']}"
        code, lines, errors = await play(
            tmp_path, "chatkitty", "--url", secure, "--ca", tmp_path / "data" / "tls" / "authority.pem", **settings
        )
        assert (code, errors) == (0, ""), lines
        serving.interrupt()
        assert await serving.ends() == 0


async def test_a_server_of_its_own_is_gone_afterwards(tmp_path: Path) -> None:
    code, lines, errors = await play(tmp_path, "--own", "--json", TMPDIR=str(tmp_path))
    assert (code, errors) == (0, "")
    assert json.loads(lines[0])["own"] is True
    assert json.loads(lines[-1])["passed"] is True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_leaves_no_server_behind(tmp_path: Path, number: signal.Signals) -> None:
    env = environment(TMPDIR=str(tmp_path))
    async with running("-m", "offhook", "quickstart", "--own", "--json", folder=tmp_path, env=env) as program:
        url = json.loads(await program.says("server"))["url"]
        assert await why_silent(Place(url)) is None
        program.signal(number)
        assert await program.ends() == (130 if number is signal.SIGINT else 1)
        assert "Traceback" not in await program.errors()
    assert await why_silent(Place(url)) is not None
    assert list(tmp_path.iterdir()) == []


async def test_a_wrong_password_fails_what_needs_it(server: TestServer, tmp_path: Path) -> None:
    code, lines, errors = await play(
        tmp_path,
        "--json",
        "--url",
        server.url,
        "--api-key",
        server.api_key,
        *USERS,
        "--password-stdin",
        passwords="a\nb",
    )
    assert (code, errors) == (1, "")
    summary = json.loads(lines[-1])
    assert summary["passed"] is False
    uc, link, kitty = (it["failed"] for it in summary["quickstarts"])
    assert "(authentication:9)" in uc["connect as alice@example.com"]
    assert "(authentication:4)" in link["subscribe for services"]
    assert "(access_denied)" in kitty["start an authenticated session as bob@example.com"]
    assert await server.sessions(state="live") == []


async def test_an_application_without_guests(server: TestServer, tmp_path: Path) -> None:
    shown = await server.admin("POST", "/applications", {"name": "members", "domain": "members.test", "guests": False})
    await server.admin("POST", "/applications/members/users", {"name": "ann@members.test", "password": "ann's"})
    code, lines, _ = await play(
        tmp_path,
        "--json",
        "--url",
        server.url,
        "--api-key",
        str(shown["api_key"]),
        "--user",
        "ann@members.test",
        "--password-stdin",
        passwords="ann's",
    )
    assert code == 0, lines
    assert json.loads(lines[-1])["quickstarts"][2]["skipped"] == 2
