"""Clients that lose their way to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.e2e.sdk import Client
from tests.e2e.stage import SessionRecord, Stage
from tests.e2e.values import RUNTIMES, Heard, Runtime

from offhook.testing import FaultProxy


@dataclass(frozen=True, slots=True)
class Traveller:
    """A signed-in client behind a network of its own.

    Attributes:
        client: the client.
        proxy: its network.
        name: its username.
        mark: how many events it had seen when the journey began.
    """

    client: Client
    proxy: FaultProxy
    name: str
    mark: int

    async def hears(self, told: Heard, *names: str) -> None:
        """Waits until the client hears just this about these users, from the journey's beginning on."""
        await self.client.hears(told, *names, since=self.mark)

    def departs(self) -> Traveller:
        """The traveller on a new journey, which begins now."""
        return replace(self, mark=len(self.client.events))


async def travellers(stage: Stage) -> list[Traveller]:
    """One traveller for each runtime."""

    async def one(runtime: Runtime) -> Traveller:
        proxy, name = await stage.proxy(), stage.name("traveller")
        client = await stage.client(runtime, host=proxy.host)
        await client.sign_in(name)
        return Traveller(client, proxy, name, len(client.events))

    return list(await asyncio.gather(*(one(runtime) for runtime in RUNTIMES)))


async def records(stage: Stage, group: Sequence[Traveller]) -> list[SessionRecord]:
    """Their sessions, of which each has had only one."""
    return list(await asyncio.gather(*(stage.session(traveller.name) for traveller in group)))
