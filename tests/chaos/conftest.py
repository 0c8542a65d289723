"""A server that is there to be killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.killing import NODE_LEASE
from tests.support import ServerProcess

UNLIMITED = {
    "node_lease": str(NODE_LEASE),
    # Clients here do in seconds what others do in hours.
    **{f"{name}_rate": "10000" for name in ("connect", "request")},
    **{f"{name}_burst": "100000" for name in ("connect", "request")},
    "log_level": "warning",
}
"""Settings of a server that is to be killed often."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(
        tmp_path / "data",
        settings=UNLIMITED,
    )
    process.start()
    yield process
    process.stop()
