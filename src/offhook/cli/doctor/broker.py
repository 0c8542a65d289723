"""The broker: whether Redis is there, new enough, and carries messages from one connection to another."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from offhook.cli.doctor.findings import Finding, fail, ok, warn
from offhook.errors import OffhookError

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from offhook.broker.mesh import Address, Servers
    from offhook.settings import Settings

TIMEOUT = 5.0
"""Seconds that a server has for all questions."""
OLDEST_REDIS = 7
MESSAGES = 50
"""Messages whose way is measured."""
SLOW = 0.02
"""Seconds from node to node above which there is a warning."""
SMALL_BUFFER = 8 * 1024 * 1024
"""Bytes that may wait for a hearer below which a busy moment cuts it off."""

_LIMIT = "client-output-buffer-limit"


@dataclass(frozen=True, slots=True)
class Redis:
    """What a server says of itself, and how it did.

    Attributes:
        name: ``Redis`` or ``Valkey``.
        version: e.g. ``7.0.15``.
        cluster_state: ``ok``, or what the cluster says; None for a single server.
        buffer: bytes that may wait for a hearer, 0 if without a limit; None if the server does not tell.
        clients_memory: its setting ``maxmemory-clients``; None if it does not tell.
        times: seconds that each message took from one connection to another.
    """

    name: str
    version: str
    cluster_state: str | None
    buffer: int | None
    clients_memory: str | None
    times: tuple[float, ...]


class Unfit(Exception):
    """A server does not do what is needed.

    Args:
        text: what it did, in one sentence.
        advice: what to do.
    """

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.text = text
        self.advice = advice


def check_broker(settings: Settings) -> Iterator[Finding]:
    """The broker, if it is Redis."""
    from offhook.broker.opening import MEMORY
    from offhook.storage.opening import on_postgresql

    if settings.broker_url == MEMORY:
        shared = " Only one process may use the database: more need broker_url." if on_postgresql(settings) else ""
        yield ok("broker", f"Events stay in the one process.{shared}")
        return
    from offhook.broker.mesh import parse_broker_url

    try:
        servers = parse_broker_url(settings.broker_url)
    except OffhookError as error:
        yield fail("broker", f"{error.message.rstrip('.')}.", "correct broker_url")
        return
    for seed in servers.seeds:
        yield from _look(settings, servers, seed)


def _look(settings: Settings, servers: Servers, seed: Address) -> Iterator[Finding]:
    from redis.exceptions import RedisError

    where = f"{seed[0]}:{seed[1]}"
    prefix = settings.broker_prefix or "offhook"
    try:
        found = asyncio.run(asyncio.wait_for(_ask(servers, seed, prefix), TIMEOUT))
    except Unfit as error:
        yield fail("broker", f"{where}: {error.text}", error.advice)
        return
    except (OSError, TimeoutError, RedisError) as error:
        reason = str(error).rstrip(".") or "it did not answer in time"
        text = f"{where} cannot be used: {reason}."
        yield fail("broker", text, "see broker_url, and whether the server lets this machine in")
        return
    yield from _told(where, found)


def _told(where: str, found: Redis) -> Iterator[Finding]:
    times = sorted(found.times)
    middle, worst = times[len(times) // 2], times[-1]
    text = (
        f"{found.name} {found.version} at {where} carries messages in {middle * 1000:.2f} ms, "
        f"the slowest of {len(times)} in {worst * 1000:.2f} ms."
    )
    if found.cluster_state not in (None, "ok"):
        yield fail("broker", f"{text} Its cluster is {found.cluster_state}.", "see CLUSTER INFO on the server")
    elif middle > SLOW:
        yield warn("broker", text, "have servers and broker nearer to each other")
    else:
        yield ok("broker", text)
    if found.buffer is not None and 0 < found.buffer < SMALL_BUFFER:
        text = f"{where} cuts off who leaves {found.buffer} bytes unread (client-output-buffer-limit pubsub)."
        way = f"allow {SMALL_BUFFER} bytes at least; until then busy moments make nodes read PostgreSQL instead"
        yield warn("broker", text, way)
    if found.clients_memory not in (None, "0"):
        text = f"{where} cuts off clients beyond maxmemory-clients {found.clients_memory}."
        yield warn("broker", text, "set maxmemory-clients to 0: nodes that hear much need much room for a moment")


async def _ask(servers: Servers, seed: Address, prefix: str) -> Redis:
    link = servers.dial(seed)
    try:
        await link.connect()  # type: ignore[no-untyped-call]
        facts = _facts(await _say(link, "INFO"))
        name, version = _version(facts)
        state = _facts(await _say(link, "CLUSTER", "INFO")).get("cluster_state") if servers.cluster else None
        times = await _measure(servers, seed, f"{prefix}:doctor:{secrets.token_hex(8)}")
        buffer, memory = await _limits(link)
    finally:
        await link.disconnect()
    return Redis(name, version, state, buffer, memory, times)


def _version(facts: dict[str, str]) -> tuple[str, str]:
    """Name and version of a server; every Valkey is new enough."""
    if "valkey_version" in facts:
        return "Valkey", facts["valkey_version"]
    version = facts.get("redis_version", "0")
    if int(version.partition(".")[0]) < OLDEST_REDIS:
        raise Unfit(f"It is Redis {version}.", f"use Redis {OLDEST_REDIS} or newer, or Valkey")
    return "Redis", version


async def _limits(link: AbstractConnection) -> tuple[int | None, str | None]:
    """The limit on what waits for a hearer, and that on all clients; None each if the server keeps it to itself."""
    from redis.exceptions import ResponseError

    try:
        limits = _pairs(await _say(link, "CONFIG", "GET", _LIMIT)).get(_LIMIT)
        memory = _pairs(await _say(link, "CONFIG", "GET", "maxmemory-clients")).get("maxmemory-clients")
    except ResponseError:
        return None, None
    words = (limits or "").split()
    return int(words[words.index("pubsub") + 1]) if "pubsub" in words else None, memory


async def _measure(servers: Servers, seed: Address, channel: str) -> tuple[float, ...]:
    """Sends messages from one connection to another on a sharded channel. Returns how long each took, in seconds."""
    from redis.exceptions import MovedError

    try:
        return await _send_and_hear(servers, seed, channel)
    except MovedError as moved:
        # The channel is another server's of the cluster.
        return await _send_and_hear(servers, (moved.host, moved.port), channel)


async def _send_and_hear(servers: Servers, address: Address, channel: str) -> tuple[float, ...]:
    from redis.exceptions import ResponseError

    hearing, sending = servers.dial(address), servers.dial(address)
    times = []
    try:
        for link in (hearing, sending):
            await link.connect()  # type: ignore[no-untyped-call]
        try:
            await _say(hearing, "SSUBSCRIBE", channel)
            for number in range(MESSAGES):
                begun = time.perf_counter()
                heard = await _say(sending, "SPUBLISH", channel, str(number))
                if heard != 1:
                    raise Unfit(f"A message was heard by {heard} instead of 1.", "name the same server for all nodes")
                message = await hearing.read_response(push_request=True)
                times.append(time.perf_counter() - begun)
                if not isinstance(message, list) or _text(message[-1]) != str(number):
                    raise Unfit("A message came as another.", "restart the server")
        except ResponseError as error:
            if "MOVED" in type(error).__name__.upper():
                raise
            raise Unfit(
                f"It refuses sharded channels: {error}.", "allow SSUBSCRIBE and SPUBLISH to its user"
            ) from error
    finally:
        await asyncio.gather(hearing.disconnect(), sending.disconnect())
    return tuple(times)


async def _say(link: AbstractConnection, *words: str) -> object:
    await link.send_command(*words)
    return cast(object, await link.read_response(push_request=True))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _facts(reply: object) -> dict[str, str]:
    """What INFO answers, by name."""
    lines = [line.partition(":") for line in _text(reply).splitlines() if ":" in line]
    return {name: value.strip() for name, _, value in lines}


def _pairs(reply: object) -> dict[str, str]:
    """What CONFIG GET answers, by name."""
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in reply.items()}
    items = [_text(item) for item in reply] if isinstance(reply, list) else []
    return dict(zip(items[::2], items[1::2], strict=False))
