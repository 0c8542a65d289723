"""The Redis servers of a system: one, or the masters of a cluster, and which channel belongs to which."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit, urlunsplit

import structlog
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import MovedError

from offhook.broker.link import Link, Listener
from offhook.broker.wire import CONNECT_TIMEOUT
from offhook.errors import InvalidInput

CLUSTER = "+cluster"
SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
REFRESH_EVERY = 15.0
"""Seconds between looks at a cluster's layout in peace."""
REFRESH_PAUSE = 0.25
"""Seconds between such looks while there is a reason for them."""
ASK_TIMEOUT = 2.0

Address = tuple[str, int]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Servers:
    """What a broker's URL says.

    Attributes:
        seeds: where to connect to, or to ask for the cluster's servers.
        cluster: whether it is a cluster.
        url: for one server, as the client library understands it.
    """

    seeds: tuple[Address, ...]
    cluster: bool
    url: str = field(repr=False)

    def dial(self, address: Address) -> AbstractConnection:
        """An unconnected connection to one of the servers."""
        options = dict(parse_url(self.url))
        kind = cast(Callable[..., AbstractConnection], options.pop("connection_class", Connection))
        for name in ("host", "port", "db" if self.cluster else ""):
            options.pop(name, None)
        options |= {
            "host": address[0],
            "port": address[1],
            "protocol": 3,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": None,
            "socket_keepalive": True,
        }
        return kind(**options)


class _Unusable(Exception):
    """Why a URL cannot be used, in words that quote nothing of it."""


def parse_broker_url(url: str) -> Servers:
    """Reads ``redis://``, ``rediss://``, ``redis+cluster://`` and ``rediss+cluster://`` URLs.

    A cluster's may name several servers, separated by commas.

    Raises:
        InvalidInput: it is none of these.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise _Unusable(f"its scheme is not one of {', '.join(SCHEMES)}")
        credentials, at, hosts = parts.netloc.rpartition("@")
        seeds: list[Address] = []
        for host in hosts.split(","):
            seed = urlsplit(f"//{host}")
            if not seed.hostname:
                raise _Unusable("it names no host")
            seeds.append((seed.hostname, seed.port or 6379))
        cluster = parts.scheme.endswith(CLUSTER)
        if len(seeds) > 1 and not cluster:
            raise _Unusable("only a cluster has several hosts")
        scheme = parts.scheme.removesuffix(CLUSTER)
        single = urlunsplit((scheme, f"{credentials}{at}{hosts.split(',')[0]}", parts.path, parts.query, ""))
        servers = Servers(tuple(seeds), cluster, single)
        servers.dial(seeds[0])
    except _Unusable as error:
        raise InvalidInput(f"broker_url cannot be used: {error}", "broker_url") from None
    except (ValueError, TypeError):
        # The libraries' words quote what they stumbled over, which may be part of a password.
        text = "its host, port or options cannot be read; in a name or password, write / ? # [ ] @ : % as %2F and so on"
        raise InvalidInput(f"broker_url cannot be used: {text}", "broker_url") from None
    return servers


class Mesh:
    """All servers, as if they were one.

    Args:
        servers: where they are.
        listener: hears of everything on any of them.
    """

    def __init__(self, servers: Servers, listener: Listener) -> None:
        self._servers = servers
        self._listener = listener
        self._links: dict[Address, Link] = {}
        self._slots: list[Link | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._wanted: dict[bytes, Link | None] = {}
        self._refresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._broken = 0

    def start(self) -> None:
        """Begins to connect."""
        for seed in self._servers.seeds:
            self._link(seed)
        self._task = asyncio.create_task(self._keep_in_line(), name="redis servers")

    async def close(self) -> None:
        """Closes all connections."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links.values()))
        self._links.clear()

    def _link(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            link = Link(lambda: self._servers.dial(address), self._listener, f"{address[0]}:{address[1]}")
            self._links[address] = link
            link.start()
        return link

    def of(self, channel: bytes) -> Link | None:
        """The server to which a channel belongs, if that is known."""
        if not self._servers.cluster:
            return self._links.get(self._servers.seeds[0])
        return self._slots[key_slot(channel)]

    @property
    def steady(self) -> bool:
        """Whether every server answers in time and every channel has one."""
        if not self._links or not all(link.steady for link in self._links.values()):
            return False
        return not self._servers.cluster or None not in self._slots

    @property
    def complete(self) -> bool:
        """Whether all channels that are wanted are heard."""
        return self.steady and all(link.complete for link in self._links.values())

    @property
    def breaks(self) -> int:
        """How many connections have broken."""
        return self._broken + sum(link.breaks for link in self._links.values())

    def want(self, channel: bytes) -> None:
        """Hears a channel, wherever it belongs."""
        link = self._wanted[channel] = self.of(channel)
        if link is not None:
            link.want(channel)

    def unwant(self, channel: bytes) -> None:
        """Hears a channel no longer."""
        link = self._wanted.pop(channel, None)
        if link is not None:
            link.unwant(channel)

    def heard(self, channel: bytes) -> bool:
        """Whether a channel is heard now."""
        link = self._wanted.get(channel)
        return link is not None and link.heard(channel)

    def reachable(self, channel: bytes) -> bool:
        """Whether the server of a channel is known and answers in time."""
        link = self.of(channel)
        return link is not None and link.steady

    def publish(self, channel: bytes, data: bytes) -> bool:
        """Publishes without waiting. Returns False if it cannot be sent."""
        link = self.of(channel)
        return link is not None and link.publish(channel, data)

    async def tell(self, channel: bytes, data: bytes, within: float) -> int | None:
        """Publishes and asks how many heard it. Returns None, at once if the server is away, if that cannot be said."""
        link = self.of(channel)
        if link is None or not link.steady:
            return None
        reply = await link.ask(within, b"SPUBLISH", channel, data)
        if isinstance(reply, MovedError):
            # The layout is looked at again, too, but this need not wait for that.
            now = self._links.get((reply.host, reply.port))
            reply = await now.ask(within, b"SPUBLISH", channel, data) if now is not None and now.steady else None
        return reply if isinstance(reply, int) else None

    # --- layout -----------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """The layout may have changed."""
        self._refresh.set()

    async def _keep_in_line(self) -> None:
        while True:
            if self._servers.cluster:
                layout = await self._ask_layout()
                if layout:
                    await self._follow(layout)
                else:
                    for seed in self._servers.seeds:
                        self._link(seed)
            for link in self._links.values():
                link.again()
            await asyncio.sleep(REFRESH_PAUSE)
            self._refresh.clear()
            calm = self.complete
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_EVERY if calm else REFRESH_PAUSE):
                    await self._refresh.wait()

    async def _ask_layout(self) -> Mapping[tuple[int, int], Address] | None:
        for address, link in list(self._links.items()):
            if link.talks:
                reply = await link.ask(ASK_TIMEOUT, b"CLUSTER", b"SLOTS")
                layout = _layout(reply, address[0])
                if layout:
                    return layout
        return None

    async def _follow(self, layout: Mapping[tuple[int, int], Address]) -> None:
        slots: list[Link | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for (first, last), address in layout.items():
            link = self._link(address)
            slots[first : last + 1] = [link] * (last + 1 - first)
        moved = slots != self._slots
        self._slots = slots
        if moved:
            for channel, before in list(self._wanted.items()):
                now = self.of(channel)
                if now is not before:
                    self._wanted[channel] = now
                    if before is not None:
                        before.unwant(channel)
                    if now is not None:
                        now.want(channel)
            self._listener.turned()
        used = set(layout.values())
        for address in [address for address in self._links if address not in used]:
            link = self._links.pop(address)
            self._broken += link.breaks
            await link.close()
            self._listener.turned()


def _layout(reply: object, asked: str) -> Mapping[tuple[int, int], Address] | None:
    """Reads the answer to CLUSTER SLOTS: first and last slot, and their master."""
    if not isinstance(reply, list):
        return None
    layout: dict[tuple[int, int], Address] = {}
    for entry in reply:
        match entry:
            case [int(first), int(last), [host, int(port), *_], *_]:
                layout[first, last] = (host.decode() if isinstance(host, bytes) and host else asked, port)
            case _:
                log.warning("redis_layout_unreadable")
                return None
    return layout
