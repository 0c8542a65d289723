"""The JavaScript of the documents: with ChatKitty's SDKs it runs in Node; Kandy's is at least JavaScript."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT, Proof, Unit, of
from tests.docs.conftest import ReaderOf

JS = ROOT / "tests" / "e2e" / "js"
ESBUILD = JS / "node_modules" / ".bin" / "esbuild"
BANNER = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);"


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders in which ``@chatkitty/core`` of a version is installed: bundled, for Node cannot import 1.x as it is."""
    folders = {}
    for version in ("core-1.11.0", "core-2.106.2"):
        folder = tmp_path_factory.mktemp(version)
        package = folder / "node_modules" / "@chatkitty" / "core"
        default = f"export {{ default }} from '{version}';" if version.startswith("core-1") else ""
        bundled = subprocess.run(
            [
                ESBUILD,
                "--bundle",
                "--format=esm",
                "--platform=node",
                f"--banner:js={BANNER}",
                f"--outfile={package}/index.js",
            ],
            input=f"export * from '{version}'; {default}",
            cwd=JS,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert bundled.returncode == 0, bundled.stderr
        (package / "package.json").write_text(json.dumps({"type": "module", "main": "index.js"}))
        # Node 20 has no WebSocket of its own.
        socket = (JS / "node_modules" / "ws" / "wrapper.mjs").as_uri()
        (folder / "socket.mjs").write_text(f"import WebSocket from '{socket}'; globalThis.WebSocket = WebSocket;\n")
        folders[version] = folder
    return folders


@pytest.mark.parametrize("unit", of(Proof.NODE), ids=str)
def test_chatkitty_runs(unit: Unit, reader_of: ReaderOf, packages: dict[str, Path]) -> None:
    reader = reader_of(unit)
    folder = packages["core-2.106.2" if "connectApi" in unit.text else "core-1.11.0"]
    file = folder / "program.mjs"
    file.write_text(f"{reader.fills_in(unit.text)}\nprocess.exit(0);\n")
    before = reader.sessions()
    done = reader.runs(["node", "--import", (folder / "socket.mjs").as_uri(), str(file)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert reader.sessions() > before
    shown = [line for output in of(Proof.OUTPUT) if output.page == unit.page for line in output.text.splitlines()]
    assert not shown or done.stdout.splitlines() == shown


@pytest.mark.parametrize("unit", of(Proof.PAGE, Proof.SCRIPT, Proof.HTML), ids=str)
def test_it_is_javascript(unit: Unit, tmp_path: Path) -> None:
    scripts = [unit.text]
    if unit.proof is Proof.HTML:
        scripts = re.findall(r"<script>\n(.*?)</script>", unit.text, re.DOTALL)
        assert scripts
    for script in scripts:
        file = tmp_path / ("script.mjs" if unit.proof is Proof.SCRIPT else "script.cjs")
        file.write_text(script)
        checked = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True, timeout=30)
        assert checked.returncode == 0, checked.stderr
