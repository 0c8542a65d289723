"""Fixtures of the command line's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from tests.unit.cli.support import Cli


@pytest.fixture
def offhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    for name in ("OFFHOOK_CONFIG", "OFFHOOK_ADMIN_URL", "OFFHOOK_ADMIN_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFFHOOK_DATA_DIR", str(tmp_path / "data"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Cli(tmp_path / "data")
    # Commands set logging up for their process, onto a stream that is gone after them.
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
