"""A server that is there to be killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.killing import NODE_LEASE
from tests.support import ServerProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(
        tmp_path / "data",
        settings={
            "node_lease": str(NODE_LEASE),
            # Clients here do in seconds what others do in hours.
            **{f"{name}_rate": "10000" for name in ("connect", "request")},
            **{f"{name}_burst": "100000" for name in ("connect", "request")},
            "log_level": "warning",
        },
    )
    process.start()
    yield process
    process.stop()
