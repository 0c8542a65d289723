"""The documentation as a site: built without a warning, and without anything of other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT


def test_the_site_is_built(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 15
    foreign = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?://[^\"]+)")
    assert {str(page): found for page in pages if (found := foreign.findall(page.read_text()))} == {}
    # Marks of docstrings that are no Markdown.
    marks = re.compile(r":(?:class|func|meth|mod|data|attr):<code>|::</p>|<p>::")
    assert {str(page): found for page in pages if (found := marks.findall(page.read_text()))} == {}
