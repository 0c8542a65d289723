"""The implementations under contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.contract.brokers import RedisEngine
from tests.contract.postgres import PostgresEngine
from tests.contract.systems import Engine, SQLiteEngine

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "sqlite+memory": SQLiteEngine,
    "postgresql+memory": lambda _: PostgresEngine(),
    "postgresql+redis": lambda _: RedisEngine(),
}
"""A new one adds itself here. Each makes an implementation without any state yet, given an empty folder."""


def reopened(name: str, place: str) -> Engine:
    """An implementation with the state of another process's.

    Args:
        name: ``sqlite`` or ``postgresql``.
        place: where the state is: a folder, or a URL.
    """
    return SQLiteEngine(Path(place)) if name == "sqlite" else PostgresEngine(place)
