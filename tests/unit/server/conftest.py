"""What is logged during these tests goes through the server's own pipeline."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from offhook.server.logs import configure_logging


@pytest.fixture(autouse=True)
def logs_as_in_the_server() -> Iterator[None]:
    """Logging as the server has it, into a buffer, for one test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("debug", "json", io.StringIO())
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
