"""What the tutorials tell their readers to type is typed here, on a server started as they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
STARTS = {"make run", "python3 -m http.server 8000"}
"""Commands that go on until they are stopped. What the first one starts is started by ``reader``."""
ALICE = "alice@example.com"
PATIENCE = 60.0


class Served(msgspec.Struct):
    """What ``offhook serve --json`` says."""

    urls: list[str]
    kandy: dict[str, object]
    demo_users: dict[str, str]


class Typed(msgspec.Struct, frozen=True):
    """A command and what it printed."""

    command: str
    output: str


@dataclass(frozen=True)
class Reader:
    """Somebody in a clone of Offhook, after ``make run``.

    Attributes:
        folder: the clone, but for what is not needed in it.
        served: what the server said when it was started.
    """

    folder: Path
    served: Served
    environment: Mapping[str, str]

    def types(self, command: str, **environment: str) -> str:
        """Runs a line of a shell, which must succeed; returns what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.replace("8687", str(self.served.kandy["port"]))],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def subscribes(
        self, user: str, headers: Mapping[str, str] | None = None, password: str | None = None, query: str = ""
    ) -> httpx.Response:
        """What Kandy.js sends to sign in."""
        auth = None if password is None else httpx.BasicAuth(user, password)
        url = f"{self.served.urls[0]}/rest/version/1/user/{user}/subscription{query}"
        body = {"subscribeRequest": {"expires": 3600, "service": ["call", "Presence", "IM"]}}
        with httpx.Client(trust_env=False, timeout=PATIENCE, auth=auth) as http:
            return http.post(url, json=body, headers=dict(headers or {}))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    assert "offhook serve --tls-dev --demo" in (ROOT / "Makefile").read_text()
    folder = tmp_path_factory.mktemp("clone")
    program = folder / ".venv" / "bin" / "offhook"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m offhook "$@"\n')
    program.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")},
        "PYTHONPATH": str(ROOT / "src"),
        "OFFHOOK_PORT": "0",
        "OFFHOOK_TLS_PORT": "0",
        "OFFHOOK_DRAIN_SECONDS": "0",
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "serve", "--tls-dev", "--demo", "--json"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    with process, process.stdout as said:
        document = b""
        for line in said:
            document += line
            if line == b"}\n":
                break
        try:
            yield Reader(folder, msgspec.json.decode(document, type=Served), environment)
        finally:
            process.terminate()


def commands(tutorial: Path) -> list[str]:
    """The lines of the blocks that are to be typed."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", tutorial.read_text(), re.DOTALL | re.MULTILINE)
    return [line for language, block in blocks if language == "" for line in block.splitlines() if line]


@pytest.fixture(scope="module", params=TUTORIALS, ids=lambda path: str(path.stem))
def typed(request: pytest.FixtureRequest, reader: Reader) -> list[Typed]:
    """All commands of a tutorial that end by themselves, run one after the other while alice is signed in."""
    tutorial: Path = request.param
    password = reader.served.demo_users[ALICE]
    assert reader.subscribes(ALICE, password=password).status_code == 200
    lines = [line for line in commands(tutorial) if line not in STARTS]
    assert len(lines) >= 4
    return [Typed(line, reader.types(line)) for line in lines]


def test_what_is_typed_shows_what_the_tutorial_says(typed: list[Typed]) -> None:
    printed = {line.command.rpartition("offhook ")[2]: line.output for line in typed}
    healthy = next(line.output for line in typed if line.command.startswith("curl "))
    assert healthy.strip() == '{"status":"alive"}'
    assert "kandy link" in printed[f"session list --user {ALICE}"]
    story = printed["session show 1"]
    assert "call, Presence, IM" in story and "expires at" in story
    assert printed['session end --user bob@example.com --text "Maintenance"'] == "0 sessions ended.\n"


def examples() -> dict[str, str]:
    """Name → text of the scripts that make tokens."""
    text = (ROOT / "docs" / "tutorials" / "kandy-link.md").read_text()
    found = dict(re.findall(r"`(\w+\.(?:py|mjs))`:\n\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert set(found) == {"hmac_token.py", "hmac_token.mjs", "jwt_token.py", "jwt_token.mjs"}
    return found


def token(reader: Reader, name: str, user: str, **environment: str) -> str:
    (reader.folder / name).write_text(examples()[name])
    program = sys.executable if name.endswith(".py") else "node"
    return reader.types(f"{program} {name} {user}", **environment).strip()


@pytest.mark.parametrize("name", ["hmac_token.py", "hmac_token.mjs"])
def test_hmac_tokens_sign_a_new_user_in_once(reader: Reader, name: str) -> None:
    shown = msgspec.json.decode(reader.types(".venv/bin/offhook app show default --secrets --json"))
    user = f"{name.replace('.', '-')}@example.com"
    made = token(reader, name, user, OFFHOOK_HMAC_KEY=shown["hmac_key"])
    assert reader.subscribes(user, {"x-token": made}).status_code == 200
    assert reader.subscribes(user, {"x-token": made}).status_code == 401
    forged = token(reader, name, user, OFFHOOK_HMAC_KEY="k" * 64)
    assert reader.subscribes(user, {"x-token": forged}).status_code == 401


@pytest.mark.parametrize("name", ["jwt_token.py", "jwt_token.mjs"])
def test_jwts_sign_a_new_user_in(reader: Reader, name: str) -> None:
    for line in commands(ROOT / "docs" / "tutorials" / "kandy-link.md"):
        if "jwt-secret.txt" in line:
            reader.types(line)
    user = f"{name.replace('.', '-')}@example.com"
    secret = (reader.folder / "jwt-secret.txt").read_text().strip()
    made = token(reader, name, user, JWT_SECRET=secret)
    assert reader.subscribes(user, {"authorization": f"Bearer {made}"}).status_code == 200
    assert reader.subscribes(user, query=f"?token={made}").status_code == 200
    forged = token(reader, name, user, JWT_SECRET="s" * 64)
    assert reader.subscribes(user, {"authorization": f"Bearer {forged}"}).status_code == 401
