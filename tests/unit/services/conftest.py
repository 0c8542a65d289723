"""A core with a real database, on a clock that stands still until it is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock

from offhook.core import Core, open_core
from offhook.domain.accounts import Application
from offhook.settings import Settings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clock of every core that is opened in the test."""
    clock = ManualClock()
    monkeypatch.setattr("offhook.core.SystemClock", lambda: clock)
    return clock


@pytest.fixture
async def core(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Core]:
    """A core with the application ``default``."""
    async with open_core(Settings(data_dir=tmp_path, durability="normal")) as core:
        await core.applications.create("default", domain="example.com", api_key="key-default")
        yield core


@pytest.fixture
async def application(core: Core) -> Application:
    return await core.applications.get("default")
