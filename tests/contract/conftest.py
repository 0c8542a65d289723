"""Every test of this folder runs against every implementation. A new one adds itself to ``ENGINES``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.contract.systems import Engine, SQLiteEngine, System

ENGINES: dict[str, Callable[[Path], Engine]] = {"sqlite+memory": SQLiteEngine}


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An implementation without any state yet."""
    return ENGINES[request.param](tmp_path)


@pytest.fixture
async def system(engine: Engine) -> AsyncIterator[System]:
    """A store and a broker, open and empty."""
    system = await engine.open()
    yield system
    await system.close()
