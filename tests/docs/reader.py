"""Somebody in a clone of Offhook, after ``make run``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

ROOT = Path(__file__).parents[2]
ALICE, BOB = "alice@example.com", "bob@example.com"
PATIENCE = 60.0
_FOREIGN = re.compile(r"OFFHOOK_|\w+_proxy$", re.IGNORECASE)
"""Variables that would make a difference: settings, and proxies between a machine and itself."""


class Served(msgspec.Struct):
    """What ``offhook serve --json`` says."""

    urls: list[str]
    kandy: dict[str, object]
    demo_users: dict[str, str]


class _Ledger(msgspec.Struct):
    sessions: list[object]


@dataclass(frozen=True)
class Reader:
    """Who does what the documents say.

    Attributes:
        folder: the clone, but for what is not needed in it.
        served: what the server said when it was started.
        environment: for what is run.
        api_key: of the application.
    """

    folder: Path
    served: Served
    environment: Mapping[str, str]
    api_key: str

    @property
    def http_host(self) -> str:
        """Host and port of the plain listener."""
        return self.served.urls[0].rpartition("/")[2]

    def fills_in(self, text: str) -> str:
        """Puts this server's values into what a document shows."""
        values = {
            "THE API KEY": self.api_key,
            "THE PASSWORD": self.served.demo_users[ALICE],
            "BOB'S PASSWORD": self.served.demo_users[BOB],
            "8686": self.http_host.rpartition(":")[2],
            "8687": str(self.served.kandy["port"]),
        }
        return re.sub("|".join(values), lambda shown: values[shown[0]], text)

    def runs(
        self, arguments: list[str], *, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in the folder, in bounded time."""
        return subprocess.run(
            arguments,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def types(self, command: str, **environment: str) -> str:
        """Runs a line of a shell, which must succeed; returns what it printed."""
        done = self.runs(["bash", "-euo", "pipefail", "-c", self.fills_in(command)], environment=environment)
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

    def sessions(self) -> int:
        """How many sessions the server has in its ledger."""
        token = (self.folder / "offhook-data" / "admin.token").read_text().strip()
        url = f"{self.served.urls[0]}/admin/v1/sessions?state=all"
        with httpx.Client(trust_env=False, timeout=PATIENCE) as http:
            answer = http.get(url, headers={"authorization": f"Bearer {token}"})
        return len(msgspec.json.decode(answer.content, type=_Ledger).sessions)


@contextmanager
def reading(*arguments: str, files: Mapping[str, str] | None = None) -> Iterator[Reader]:
    """Starts a server as ``make run`` does, in a folder of its own, and ends it.

    Args:
        arguments: further ones of ``offhook serve``.
        files: name → text of what is in the folder beforehand.
    """
    with tempfile.TemporaryDirectory(prefix="offhook-docs-") as name:
        folder = Path(name)
        program = folder / ".venv" / "bin" / "offhook"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m offhook "$@"\n')
        program.chmod(0o755)
        for file, text in (files or {}).items():
            (folder / file).write_text(text)
        environment = {
            **{name: value for name, value in os.environ.items() if not _FOREIGN.match(name)},
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONWARNINGS": "error",
            "OFFHOOK_PORT": "0",
            "OFFHOOK_TLS_PORT": "0",
            "OFFHOOK_DRAIN_SECONDS": "0",
        }
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [str(program), "serve", "--tls-dev", "--demo", "--json", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        with process, process.stdout as said:
            try:
                document = b""
                for line in said:
                    document += line
                    if line == b"}\n":
                        break
                assert document, (folder / "server.log").read_text()
                reader = Reader(folder, msgspec.json.decode(document, type=Served), environment, "")
                key = msgspec.json.decode(reader.types("offhook app show default --json"), type=dict[str, object])
                yield Reader(folder, reader.served, environment, str(key["api_key"]))
            finally:
                process.terminate()
