"""``pip install .`` in an empty environment: what it pulls in, how fast it imports, and whether its types hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "offhook",
    "httpx",
    "httpcore",
    "h11",
    "anyio",
    "idna",
    "certifi",
    "typing-extensions",
    "msgspec",
    "sniffio",
    "websockets",
}
"""The SDK, what it names, and what that needs in turn."""
IMPORT_LIMIT = 0.150
"""Seconds of the processor, where that is faster than :data:`IMPORT_RATIO` says."""
IMPORT_RATIO = 2.75
"""What an import may take beside one of asyncio, so that a slow machine asks for no more than a fast one."""

PROGRAM = """
from __future__ import annotations

import asyncio

from offhook import kandy
from offhook.chatkitty import ChatKitty, CurrentUser


async def main() -> str:
    async with ChatKitty("key", host="127.0.0.1:1", is_secure=False) as kitty:
        result = await kitty.start_session("jane", auth_params={"password": "x"})
        if result.succeeded:
            user: CurrentUser = result.session.user
            return user.display_name
        return result.error.message


def changed(event: kandy.AuthError) -> None:
    print(event.error.code, event.error.message)


client = kandy.create({"authentication": {"server": {"base": "localhost"}}})
client.on("auth:error", changed)
print(asyncio.run(main()))
"""
WRONG = """
from offhook.chatkitty import ChatKitty

kitty = ChatKitty("key", host=5)
number: int = kitty.is_online.nothing
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the SDK and nothing else."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    run(sys.executable, "-m", "venv", str(folder))
    python = folder / "bin" / "python"
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT))
    return python


def run(*command: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.timeout(300)
def test_only_what_the_sdk_needs_is_installed(python: Path) -> None:
    listed = json.loads(run(str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check").stdout)
    assert {package["name"].lower().replace("_", "-") for package in listed} - {"pip", "setuptools"} <= ALLOWED


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", ["offhook.chatkitty", "offhook.kandy"])
def test_it_imports_fast(python: Path, module: str) -> None:
    def took(name: str) -> float:
        code = f"import time; begin = time.process_time(); import {name}; print(time.process_time() - begin)"
        return float(run(str(python), "-c", code).stdout)

    # The best of some, and the time of the processor: the first run writes the compiled files, and other work on the
    # machine is not its fault.
    floor, best = (min(times) for times in zip(*((took("asyncio"), took(module)) for _ in range(10)), strict=True))
    assert best < max(IMPORT_LIMIT, IMPORT_RATIO * floor), f"{best:.3f} s beside {floor:.3f} s of asyncio"


@pytest.mark.timeout(300)
def test_a_program_of_another_project_is_checked_strictly(python: Path, tmp_path: Path) -> None:
    good, wrong = tmp_path / "good.py", tmp_path / "wrong.py"
    good.write_text(textwrap.dedent(PROGRAM))
    wrong.write_text(textwrap.dedent(WRONG))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir", str(tmp_path)]
    assert "Success" in run(*mypy, str(good), cwd=tmp_path).stdout
    refused = run(*mypy, str(wrong), check=False, cwd=tmp_path).stdout
    assert '"host"' in refused and "nothing" in refused


@pytest.mark.timeout(300)
def test_what_needs_more_says_what_to_install(python: Path) -> None:
    offhook = python.parent / "offhook"
    asked = run(str(offhook), "serve", check=False)
    assert asked.returncode == 2 and "offhook[server]" in asked.stderr and "Traceback" not in asked.stderr
