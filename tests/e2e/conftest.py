"""A running server, the SDK driver, and a stage on which a test puts its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.e2e.driver import Driver
from tests.e2e.stage import Stage, first_api_key
from tests.support import ServerProcess


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with default settings, for all tests that do not harm it."""
    process = ServerProcess(tmp_path_factory.mktemp("server"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def server(shared_server: ServerProcess) -> ServerProcess:
    """The server under test. Modules that need another one have their own fixture of this name."""
    return shared_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver(shared_server: ServerProcess) -> AsyncIterator[Driver]:
    """The process that runs the SDKs."""
    process = Driver(shared_server.ca_file)
    await process.start()
    yield process
    await process.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(driver: Driver, server: ServerProcess) -> AsyncIterator[Stage]:
    """Makes clients, proxies and names, and clears them away."""
    await asyncio.to_thread(first_api_key, server)
    made = Stage(driver, server)
    yield made
    print(f"{driver.log_tail()}\n{server.log()}")
    await made.clear()
