"""The writes of one tick of the event loop, joined."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Flushing(Protocol):
    """A connection that keeps what it is given to send until it is told to write it."""

    def flush(self) -> None:
        """Writes it."""


class Outbox:
    """The connections that sent something in this tick.

    A client often gets several messages in one tick: the receipts of a burst of subscriptions, or the events of one
    commit. A system call is most of what a small message costs, so those of a tick share one.
    """

    __slots__ = ("_connections",)

    def __init__(self) -> None:
        self._connections: list[Flushing] = []

    def add(self, connection: Flushing) -> None:
        """The connection has its first unsent message of this tick."""
        if not self._connections:
            asyncio.get_running_loop().call_soon(self._flush)
        self._connections.append(connection)

    def _flush(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.flush()
