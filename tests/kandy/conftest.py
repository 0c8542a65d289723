"""Unmodified Kandy.js in Chromium against a running server. Opt-in: the SDKs are not ours to ship.

``OFFHOOK_KANDY_SDKS`` names a folder with sub-folders like ``link-5.2.0``, each with the vendor's ``kandy.js``;
``OFFHOOK_QUICKSTARTS`` names a folder with the vendor's quickstart pages.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.e2e.driver import Driver
from tests.kandy.products import SDKS_VARIABLE, Product, products
from tests.kandy.stage import KandyStage
from tests.support import ServerProcess

HERE = Path(__file__).parent
PRODUCTS = products()

NOBODY = Product("link", (5, 2, 0), HERE / "kandy.js")
"""Stands for the builds where there are none, so that what is skipped can be seen."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips all tests of this folder where the SDKs are not at hand."""
    skip = pytest.mark.skip(reason=f"Kandy.js is proprietary: name a folder with its builds in {SDKS_VARIABLE}")
    for item in items:
        if HERE in item.path.parents and not PRODUCTS:
            item.add_marker(skip)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives each test that takes one the builds: ``product`` all, ``link`` and ``uc`` those of a family."""
    builds = PRODUCTS or [NOBODY]
    families = {
        "product": builds,
        "link": [build for build in builds if build.link],
        "plugin": [build for build in builds if build.plugin],
        "uc": [build for build in builds if not build.link],
    }
    for name, chosen in families.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, chosen or [NOBODY], ids=str, scope="session")


@pytest.fixture(scope="session")
def newest() -> Product:
    """The newest build, for bystanders."""
    return (PRODUCTS or [NOBODY])[0]


@pytest.fixture(scope="session")
def builds() -> list[Product]:
    """All builds, for scenarios that mostly wait and are played with all of them at once."""
    return PRODUCTS


@pytest.fixture(scope="session")
def kandy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with default settings, for all tests that do not harm it."""
    process = ServerProcess(tmp_path_factory.mktemp("kandy"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def server(kandy_server: ServerProcess) -> ServerProcess:
    """The server under test. Modules that need another one have their own fixture of this name."""
    return kandy_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver(kandy_server: ServerProcess) -> AsyncIterator[Driver]:
    """The process that runs the browser."""
    process = Driver(kandy_server.ca_file)
    await process.start()
    yield process
    await process.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(driver: Driver, server: ServerProcess) -> AsyncIterator[KandyStage]:
    """Makes pages, users, proxies and applications, and clears them away."""
    made = await asyncio.to_thread(KandyStage, driver, server)
    yield made
    print(f"{driver.log_tail()}\n{server.log()}")
    await made.clear()


@pytest.fixture(scope="session")
def quickstarts() -> Path:
    """The folder with the vendor's quickstart pages."""
    folder = os.environ.get("OFFHOOK_QUICKSTARTS")
    if not folder:
        pytest.skip("The quickstarts are the vendor's documentation: name a folder with them in OFFHOOK_QUICKSTARTS")
    return Path(folder)
