"""What ``offhook`` says where only the SDK, or only the command line, is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.programs import environment

from offhook.testing import DEMO_USERS, BlockingTestServer, TestServer

SERVER_ONLY = "alembic argon2 cryptography httptools pydantic_settings sqlalchemy starlette structlog uvicorn"


def run_without(
    missing: str, *arguments: str, folder: Path, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``offhook`` with some modules as if they were not installed."""
    # An import of what is None in sys.modules fails as one of what is not there; find_spec raises, as for no module.
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
missing = {missing.split()!r}
importlib.util.find_spec = lambda name, package=None: None if name in missing else find(name, package)
sys.modules.update(dict.fromkeys(missing))
sys.argv = ["offhook", *{list(arguments)!r}]
from offhook.cli.entry import main
main()
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**variables),
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [(), ("serve",), ("--help",), ("user", "list", "--json")])
def test_the_sdk_alone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_without("typer rich prompt_toolkit", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert 'pip install "offhook[cli]"' in line and '"offhook[server]"' in line


@pytest.mark.parametrize("command", ["serve", "doctor", "session list", "quickstart --own"])
def test_without_the_server(tmp_path: Path, command: str) -> None:
    done = run_without(SERVER_ONLY, *command.split(), folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'pip install "offhook[server]"' in line


def test_failures_of_an_import_are_told_as_json_too(tmp_path: Path) -> None:
    done = run_without(SERVER_ONLY, "session", "list", "--json", folder=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stderr)["error"] == "not_installed"


@pytest.fixture(scope="module")
def server() -> Iterator[BlockingTestServer]:
    with TestServer(users=DEMO_USERS) as server:
        yield server


def test_quickstart_and_chat_need_no_server_installed(server: BlockingTestServer, tmp_path: Path) -> None:
    users = [option for name in DEMO_USERS for option in ("--user", name)]
    passwords = "\n".join(DEMO_USERS.values())
    key = {"OFFHOOK_API_KEY": server.api_key}
    arguments = ("quickstart", "--url", server.url, *users, "--password-stdin")
    done = run_without(SERVER_ONLY, *arguments, folder=tmp_path, stdin=passwords, **key)
    assert (done.returncode, done.stderr) == (0, "")
    for protocol in ("link", "uc", "chatkitty"):
        arguments = ("chat", next(iter(DEMO_USERS)), "--url", server.url, "--protocol", protocol, "--password-stdin")
        done = run_without(SERVER_ONLY, *arguments, folder=tmp_path, stdin=passwords, **key)
        assert (done.returncode, done.stderr) == (0, "")
        assert "You are here" in done.stdout
