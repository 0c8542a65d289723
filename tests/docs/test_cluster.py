"""The commands of the page on several machines that need databases of their own, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.databases import a_database
from tests.docs.blocks import PAGES, ROOT, blocks
from tests.docs.exceptions import LINES

from offhook.storage.postgres import PostgresStore

PAGE = "docs/cluster.md"
URL = "postgresql://offhook@db.example.com/offhook"
COMMANDS = [
    line
    for page in PAGES
    if page == ROOT / PAGE
    for block in blocks(page)
    if block.language == ""
    for line in block.lines
    if any("test_cluster.py" in exception.reason and exception.fits(PAGE, line) for exception in LINES)
]


def command(beginning: str) -> str:
    """The one command of the page that begins so."""
    (found,) = [line for line in COMMANDS if line.startswith(beginning)]
    return found


@pytest.fixture
def databases() -> Iterator[tuple[str, str]]:
    """Two empty databases: the system's, and one to restore a backup into."""
    with a_database(empty=True) as one, a_database(empty=True) as other:
        yield one, other


def types(folder: Path, line: str, url: str, **environment: str) -> str:
    """Runs a line of the page, with another database in the place of the one that it names."""
    program = folder / "bin" / "offhook"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m offhook "$@"\n')
        program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    paths = {"PATH": f"{program.parent}:{kept['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line.replace(URL, url)],
        cwd=folder,
        env=kept | paths | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


async def epoch(url: str) -> str:
    """The epoch by which a server goes."""
    store = await PostgresStore.open(url, lambda publications: None)
    try:
        return store.journal.epoch
    finally:
        await store.close()


async def test_from_sqlite_to_a_restored_backup(tmp_path: Path, databases: tuple[str, str]) -> None:
    system, other = databases
    types(tmp_path, "offhook app create shop", system)
    assert "has all that offhook-data/offhook.db has" in types(tmp_path, command("offhook db copy"), system)
    assert "already" in types(tmp_path, command("offhook db upgrade"), system, OFFHOOK_DATABASE_URL=system)
    begun = await epoch(system)
    types(tmp_path, command("pg_dump"), system)
    types(tmp_path, command("pg_restore"), other)
    assert "shop" in types(tmp_path, "offhook app list", other, OFFHOOK_DATABASE_URL=other)
    assert re.search(r"^ok +journal$", types(tmp_path, "offhook db check", other, OFFHOOK_DATABASE_URL=other), re.M)
    # The same server, as far as anybody can see from within: only who restores knows.
    assert await epoch(other) == begun
    types(tmp_path, command("psql"), other)
    assert await epoch(other) != begun
