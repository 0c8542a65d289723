"""Clients of the SDK on networks and servers that fail in every way: they hang nowhere, and miss nothing in silence.

A failure prints the seed; set OFFHOOK_CHAOS_SEED to it to have the same choices again (not the same timing).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest
from tests.chaos.killing import NODE_LEASE, seed
from tests.chaos.sdk_pair import KandyPair, KandyUcPair, KittyPair, Pair

from offhook.testing import BlockingTestServer, FaultProxy, TestServer, leaks

LIMIT = 40.0
"""Seconds for all of one test; a coroutine that hangs shows as no more than this."""
RATE = 30_000

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[BlockingTestServer]:
    with TestServer(settings={"node_lease": str(NODE_LEASE), "log_level": "error"}) as server:
        yield server


Fault = Callable[[Pair, random.Random], Awaitable[None]]


async def cut(pair: Pair, choices: random.Random) -> None:
    """Connections are reset at random moments, sometimes while the listener comes back."""
    for _ in range(5):
        await pair.hears_more(choices.randrange(1, 5))
        async with pair.comes_back():
            pair.proxy.cut()
            for _ in range(choices.randrange(3)):
                await asyncio.sleep(choices.uniform(0, 0.1))
                pair.proxy.cut()


async def stall(pair: Pair, choices: random.Random) -> None:
    """Nothing comes through until the listener has given the connection up; then what was held back does."""
    losses = pair.losses
    async with pair.comes_back():
        pair.proxy.stall()
        await pair.until(lambda: pair.losses > losses, "the listener notices")
        await pair.says_more(5)
        pair.proxy.flow()
    await pair.hears_more(3)


async def half_open(pair: Pair, choices: random.Random) -> None:
    """The path is dead, and only silence tells: once with a server that does not know it either, once with."""
    for close_upstream in (False, True):
        async with pair.comes_back():
            pair.proxy.half_open(close_upstream=close_upstream)
            await pair.says_more(3)
        await pair.hears_more(3)


async def slow(pair: Pair, choices: random.Random) -> None:
    """Little comes through at a time; frames come in pieces."""
    pair.proxy.slow(RATE)
    await pair.hears_more(10)
    async with pair.comes_back():
        pair.proxy.cut()
    await pair.hears_more(5)
    pair.proxy.slow(None)
    await pair.hears_more(5)


async def duplicate(pair: Pair, choices: random.Random) -> None:
    """Every message of the server comes twice, at the start of a connection, too."""
    pair.proxy.duplicate_messages()
    await pair.hears_more(15)
    async with pair.comes_back():
        pair.proxy.cut()
    await pair.hears_more(10)
    pair.proxy.duplicate_messages(False)


async def cut_in_frames(pair: Pair, choices: random.Random) -> None:
    """The connection ends after any number of bytes: in a frame, in a handshake, in the answer to a request."""
    for _ in range(6):
        pair.proxy.cut_after(choices.randrange(1, 3000))
        await pair.proxy.spent()
    await pair.hears_more(5)


async def truncate(pair: Pair, choices: random.Random) -> None:
    """As when it is cut in frames, but the end looks orderly."""
    for _ in range(6):
        pair.proxy.truncate_after(choices.randrange(1, 3000))
        await pair.proxy.spent()
    await pair.hears_more(5)


async def go_away(pair: Pair, choices: random.Random) -> None:
    """There is no network for a while, and every attempt to come back is refused."""
    losses = pair.losses
    async with pair.comes_back():
        pair.proxy.go_away()
        await pair.until(lambda: pair.losses > losses, "the listener notices")
        await pair.says_more(30)
        await pair.proxy.accept()
    await pair.hears_more(30)


async def restart(pair: Pair, choices: random.Random) -> None:
    """The server is told to end, and started again."""
    async with pair.comes_back():
        await asyncio.to_thread(pair.server.restart)
    await pair.hears_more(3)


async def kill(pair: Pair, choices: random.Random) -> None:
    """The server dies at a random moment."""
    await asyncio.sleep(choices.uniform(0, 0.1))
    async with pair.comes_back():
        await asyncio.to_thread(pair.server.kill)
        await asyncio.to_thread(pair.server.start)
    await pair.hears_more(3)


FAULTS: tuple[Fault, ...] = (
    cut,
    stall,
    half_open,
    slow,
    duplicate,
    cut_in_frames,
    truncate,
    go_away,
    restart,
    kill,
)


@pytest.mark.parametrize("kind", [KittyPair, KandyPair, KandyUcPair], ids=["chatkitty", "kandy-link", "kandy-uc"])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
async def test_nothing_is_missed_in_silence(
    server: BlockingTestServer, kind: type[Pair], fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    choices = random.Random(seed())
    async with asyncio.timeout(LIMIT), leaks(), FaultProxy(server.host) as proxy:
        pair = kind(server, proxy, next(_numbers))
        async with pair.talk():
            await fault(pair, choices)
    figures = (
        f"{len(pair.acknowledged)} acknowledged, {len(pair.heard)} heard, {pair.asked} questions, "
        f"{pair.losses} losses, told of a gap {pair.heard.count(None)} times"
    )
    print(figures)
    record_property("faults", figures)
    wrongs = pair.check()
    assert not wrongs, "\n".join(wrongs)
