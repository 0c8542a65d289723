"""Every test of this folder runs against every implementation; see ``engines.ENGINES``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.contract.engines import ENGINES
from tests.contract.systems import Engine, System


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An implementation without any state yet."""
    engine = ENGINES[request.param](tmp_path)
    yield engine
    engine.remove()


@pytest.fixture
def another(
    request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A second one of the same kind, with a state of its own."""
    another = ENGINES[request.node.callspec.params["engine"]](tmp_path_factory.mktemp("another"))
    yield another
    another.remove()


@pytest.fixture
async def system(engine: Engine) -> AsyncIterator[System]:
    """A store and a broker, open and empty."""
    system = await engine.open()
    yield system
    await system.close()
