"""The Python of the documents is typed, runs, and prints what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT, Proof, Unit, of
from tests.docs.conftest import ReaderOf
from tests.docs.exceptions import ELSEWHERE, LOOSELY_TYPED
from tests.docs.reader import Reader

PYTHON = of(Proof.STEPS, Proof.PROGRAM, Proof.TESTS, Proof.FUNCTIONS)
RUN = [unit for unit in of(Proof.STEPS, Proof.PROGRAM) if unit.title not in ELSEWHERE]


def program(unit: Unit) -> str:
    """A whole program: steps become what ``python -m asyncio`` makes of them."""
    if unit.proof is not Proof.STEPS:
        return unit.text
    body = textwrap.indent(unit.text, "    ")
    return f"import asyncio\n\n\nasync def main() -> None:\n{body}\n\nasyncio.run(main())\n"


def folder_of(unit: Unit) -> str:
    """The name of a package for the files of a page."""
    return re.sub(r"\W", "_", unit.page)


def test_python_is_typed(tmp_path: Path) -> None:
    folders = {folder_of(unit) for unit in PYTHON}
    for folder in folders:
        (tmp_path / folder).mkdir()
    files = []
    for number, unit in enumerate(PYTHON):
        text = re.sub(r"^from functions import", f"from {folder_of(unit)}.functions import", program(unit), flags=re.M)
        if unit.page in LOOSELY_TYPED:
            text = f"# mypy: allow-untyped-defs\n{text}"
        default = "functions.py" if unit.proof is Proof.FUNCTIONS else f"steps_{number}.py"
        file = tmp_path / folder_of(unit) / (unit.title or default)
        file.write_text(text)
        files.append(file)
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", "--follow-imports=silent"),
            *("--config-file", str(tmp_path / "mypy.ini"), "--python-version", "3.11"),
            *map(str, files),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "MYPYPATH": f"{tmp_path}:{ROOT / 'src'}",
            "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "docs"),
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def runs(reader: Reader, unit: Unit) -> list[str]:
    """Runs a program on the reader's server; returns the lines that it printed."""
    file = reader.folder / (unit.title or "steps.py")
    file.write_text(reader.fills_in(program(unit)))
    environment = {"OFFHOOK_HMAC_KEY": hmac_key(reader)} if "OFFHOOK_HMAC_KEY" in unit.text else {}
    done = reader.runs([sys.executable, str(file)], environment=environment)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stderr == ""
    return done.stdout.splitlines()


def hmac_key(reader: Reader) -> str:
    """What the page tells to look up."""
    shown = reader.types("offhook app show default --secrets")
    found = re.search(r"hmac key\W+(\w{64})", shown)
    assert found is not None, shown
    return found[1]


@pytest.mark.parametrize("unit", RUN, ids=str)
def test_python_does_what_it_says(unit: Unit, reader_of: ReaderOf) -> None:
    reader = reader_of(unit)
    for shell in of(Proof.SHELL):
        # What a program needs is made by the commands above it.
        if shell.page == unit.page == "docs/guides/tokens.md":
            for line in shell.blocks[0].lines:
                reader.types(line)
    printed = runs(reader, unit)
    shown = [line for output in of(Proof.OUTPUT) if output.page == unit.page for line in output.text.splitlines()]
    assert not shown or printed == [line for line in shown if line]


@pytest.mark.parametrize("unit", of(Proof.TESTS), ids=str)
def test_tests_pass(unit: Unit, reader_of: ReaderOf, tmp_path: Path) -> None:
    assert unit.title is not None
    for functions in of(Proof.FUNCTIONS):
        if functions.page == unit.page:
            (tmp_path / "functions.py").write_text(functions.text)
    (tmp_path / unit.title).write_text(unit.text)
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"),
            *("--rootdir", str(tmp_path), unit.title),
        ],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
