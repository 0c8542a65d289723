"""The command line against a real server process: by HTTP while it runs, on its data folder while it does not."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.support import CommandFailed, ServerProcess
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

WAIT = 20.0
NOT_AGAIN = range(4500, 5000)
"""Close codes that tell a client to stay away."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "data")
    server.start()
    yield server
    server.stop()


@contextmanager
def session_of(server: ServerProcess, user: str) -> Iterator[ClientConnection]:
    """A client with a session, as far as CONNECT takes it."""
    url = f"ws://{server.http_host}/rtm/websocket?api-key={server.api_key}"
    with connect(url, subprotocols=[Subprotocol("v12.stomp")], proxy=None) as socket:
        socket.send(f"CONNECT\naccept-version:1.2\nheart-beat:0,0\nStompX-User:{user}\n\n\0")
        assert str(socket.recv(WAIT)).startswith("CONNECTED\n")
        yield socket


def last_words(socket: ClientConnection) -> tuple[str, int]:
    """What the server says until it closes the connection, and the close code."""
    said = []
    try:
        while True:
            said.append(str(socket.recv(WAIT)))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return "".join(said), closed.rcvd.code


def only_session(server: ServerProcess, user: str) -> dict[str, object]:
    answer = server.cli("session", "list", "--user", user)
    assert isinstance(answer, dict)
    (session,) = answer["sessions"]
    assert isinstance(session, dict)
    return session


def run(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``offhook`` with nothing set but the data folder and what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    return subprocess.run(
        [sys.executable, "-m", "offhook", *arguments],
        env={
            **clean,
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
            "OFFHOOK_DATA_DIR": str(data_dir),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_operator_looks_at_a_session_and_ends_it(server: ServerProcess) -> None:
    with session_of(server, "jane") as socket:
        session = only_session(server, "jane")
        assert (session["user"], session["application"], session["state"]) == ("jane", "default", "active")
        server.cli("session", "end", str(session["id"]), "--text", "Maintenance tonight")
        said, code = last_words(socket)
    assert said.startswith("ERROR\n")
    assert "AccessDeniedError" in said and "Maintenance tonight" in said
    assert code in NOT_AGAIN
    story = server.cli("session", "show", str(session["id"]))
    assert isinstance(story, dict)
    assert (story["state"], story["end_reason"]) == ("ended", "operator")
    assert story["explanation"].startswith("An operator ended the session")
    assert story["explanation"].endswith("They said: Maintenance tonight")


def test_what_an_operator_changes_reaches_clients_at_once(server: ServerProcess) -> None:
    for command, reason in (
        (["user", "disable", "ann"], "user_disabled"),
        (["user", "delete", "bea"], "user_deleted"),
        (["user", "set-password", "cleo", "--password-stdin"], "credentials_changed"),
        (["session", "end", "--user", "dora"], "operator"),
        (["app", "update", "default", "--disable"], "application_closed"),
    ):
        user = command[-1] if command[0] == "session" else command[2]
        with session_of(server, user) as socket:
            server.cli(*command, stdin="secret\n")
            said, code = last_words(socket)
        assert said.startswith("ERROR\n") and code in NOT_AGAIN, command
        assert only_session(server, user)["end_reason"] == reason


def test_commands_work_with_and_without_the_server(server: ServerProcess) -> None:
    server.cli("user", "create", "jane")
    server.stop()
    shown = server.cli("user", "show", "jane")
    assert isinstance(shown, dict)
    server.cli("user", "create", "joe")
    server.start()
    assert server.cli("user", "show", "jane") == shown
    server.kill()
    users = server.cli("user", "list")
    assert isinstance(users, dict)
    assert [user["name"] for user in users["users"]] == ["jane", "joe"]
    server.start()
    with pytest.raises(CommandFailed) as caught:
        server.cli("user", "create", "jane")
    assert caught.value.exit_code == 1
    assert json.loads(caught.value.output)["error"] == "conflict"


def test_many_commands_at_once_without_a_server(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: run(tmp_path / "data", "app", "create", f"app{n}", "--json"), range(4)))
    assert [outcome.returncode for outcome in done] == [0] * 4, [outcome.stderr for outcome in done]
    listed = json.loads(run(tmp_path / "data", "app", "list", "--json").stdout)
    assert sorted(app["name"] for app in listed["applications"]) == ["app0", "app1", "app2", "app3"]


def test_a_server_elsewhere(server: ServerProcess, tmp_path: Path) -> None:
    elsewhere = {"OFFHOOK_ADMIN_URL": server.url}
    without = run(tmp_path / "other", "app", "list", **elsewhere)
    assert (without.returncode, "OFFHOOK_ADMIN_TOKEN" in without.stderr) == (1, True)
    wrong = run(tmp_path / "other", "app", "list", **elsewhere, OFFHOOK_ADMIN_TOKEN="wrong")
    assert (wrong.returncode, wrong.stderr) == (1, "offhook: The admin token is wrong\n")
    token = (server.data_dir / "admin.token").read_text().strip()
    right = run(tmp_path / "other", "app", "list", "--json", **elsewhere, OFFHOOK_ADMIN_TOKEN=token)
    assert json.loads(right.stdout) == server.cli("app", "list")
    assert not (tmp_path / "other").exists()


def test_a_second_server_is_refused_and_the_doctor_finds_the_first(server: ServerProcess) -> None:
    second = run(server.data_dir, "serve", "--port", "0")
    assert second.returncode == 1
    assert second.stderr.startswith("offhook: Another Offhook uses the data folder")
    report = json.loads(run(server.data_dir, "doctor", "--json").stdout)
    assert [check["text"] for check in report["checks"] if check["check"] == "server"] == [
        f"{server.url}/healthz says that the server is alive.",
        f"{server.url}/readyz says that the server is ready.",
    ]


def test_a_port_in_use_is_said_plainly(server: ServerProcess, tmp_path: Path) -> None:
    port = server.http_host.rpartition(":")[2]
    outcome = run(tmp_path / "other", "serve", "--port", port)
    assert outcome.returncode == 1
    assert outcome.stderr.splitlines()[-1].startswith("offhook: ") and port in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_serve_for_a_newcomer(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "offhook", "serve", "--demo", "--tls-dev", "--port", "0", "--tls-port", "0"],
        env={**clean, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        try:
            lines = []
            for line in output:
                lines.append(line.strip())
                if "Ctrl-C" in line:
                    break
            urls = [line for line in lines if line.startswith(("http://", "https://"))]
            assert [url.partition(":")[0] for url in urls] == ["http", "https"]
            assert any(line.startswith("demo user     alice@example.com  password ") for line in lines)
            (key,) = [line.split()[-1] for line in lines if line.startswith("API key")]
            data = tmp_path / "offhook-data"
            assert json.loads(run(data, "app", "show", "default", "--json").stdout)["api_key"] == key
            (authority,) = [line.rpartition("=")[2] for line in lines if line.startswith("Node ")]
            port = urls[1].rpartition(":")[2]
            trusting = ssl.create_default_context(cafile=authority)
            assert httpx.get(f"https://localhost:{port}/healthz", verify=trusting).status_code == 200
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 0


def test_output_that_nobody_reads_on_is_no_defect(tmp_path: Path) -> None:
    run(tmp_path, "app", "create", "shop")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        process = subprocess.run(
            [sys.executable, "-m", "offhook", "app", "list", "--json"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OFFHOOK_DATA_DIR": str(tmp_path)},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert process.returncode == 1
    assert process.stderr == ""
