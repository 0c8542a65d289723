"""A core that can be opened again on the same data."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.unit.gateways.chatkitty.conftest import BASE_URL, Client, Connect, gateway_of

from offhook.core import Core, open_core
from offhook.gateways.background import settle
from offhook.gateways.chatkitty.connection import Connection
from offhook.gateways.chatkitty.gateway import Opening
from offhook.server.timers import TimerWheel
from offhook.settings import Settings


@contextlib.asynccontextmanager
async def started(data_dir: Path) -> AsyncIterator[tuple[Core, Connect]]:
    """A core, and what makes clients of it; at the end it stops without a word to them, as if killed."""
    timers = TimerWheel(tick=0.01)
    timers.start(asyncio.get_running_loop())
    async with open_core(Settings(data_dir=data_dir)) as core:
        gateway = gateway_of(core, timers)
        yield core, lambda: Client(Connection(gateway, Opening("key-default", "127.0.0.1", False, BASE_URL)))
        await settle()
    timers.stop()
