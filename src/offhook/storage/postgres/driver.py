"""What the store uses of a driver's connection, and how it is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import asyncpg

from offhook.errors import InvalidInput

CONNECT_TIMEOUT = 4.0
"""Seconds in which a connection must be made."""
STATEMENT_TIMEOUT = 10.0
"""Seconds that a statement may take on the server."""
LOCK_TIMEOUT = 4.0
"""Seconds that a statement may wait for what another transaction holds."""
IDLE_TIMEOUT = 10.0
"""Seconds after which the server ends a transaction of whose process nothing is heard any more."""
ANSWER_TIMEOUT = STATEMENT_TIMEOUT + 2.0
"""Seconds after which a server that answers nothing at all counts as gone."""


class Connection(Protocol):
    """A connection of asyncpg's."""

    async def fetch(self, query: str, *parameters: object) -> Sequence[Any]: ...
    async def fetchrow(self, query: str, *parameters: object) -> Any: ...
    async def fetchval(self, query: str, *parameters: object) -> Any: ...
    async def execute(self, query: str, *parameters: object) -> str: ...
    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None: ...
    def is_closed(self) -> bool: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


async def connect(url: str, *, answer_timeout: float = ANSWER_TIMEOUT) -> Connection:
    """Opens a connection, set up for a server.

    Args:
        url: ``postgresql://user:password@host:port/name?sslmode=…``, with any parameter that the driver knows.
        answer_timeout: seconds that a statement may take, the way there and back included.

    Raises:
        InvalidInput: the URL is not of that form.
        OSError, asyncpg.PostgresError, TimeoutError: the server is away, or refuses.
    """
    try:
        opened = await asyncpg.connect(
            url,
            timeout=CONNECT_TIMEOUT,
            command_timeout=answer_timeout,
            statement_cache_size=512,
            max_cached_statement_lifetime=0,
            server_settings={
                "application_name": "offhook",
                "statement_timeout": _milliseconds(STATEMENT_TIMEOUT),
                "lock_timeout": _milliseconds(LOCK_TIMEOUT),
                "idle_in_transaction_session_timeout": _milliseconds(IDLE_TIMEOUT),
                # What is acknowledged is on the disk, whatever the server does by default.
                "synchronous_commit": "on",
                "default_transaction_isolation": "read committed",
                "client_min_messages": "error",
                # Statements are small; compiling one costs more than any of them.
                "jit": "off",
            },
        )
    except (ValueError, asyncpg.ClientConfigurationError):
        # What the driver says may hold the URL, and with it the password.
        raise InvalidInput(
            "database_url must be like postgresql://user:password@host:port/name", "database_url"
        ) from None
    return cast(Connection, opened)


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
