"""Thousands of Kandy clients come, do what they do, and go in every way: they leave nothing in memory."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.chaos.killing import Admin, until
from tests.chaos.pages import SECRET, Page
from tests.chaos.test_leaks import at_rest, metric
from tests.kandy_client import Rule
from tests.served import served
from tests.support import ServerProcess

from offhook.bench.measure import open_files, resident_bytes
from offhook.domain.accounts import SessionPolicy, TokenPolicy
from offhook.services.applications import ApplicationChanges

WARM_UP, ROUNDS = 5, 3
EACH = 80
"""Pages of each kind in a round."""
AT_ONCE = 60
PEOPLE = 100
RULE = Rule(0.1, 5)
SOCKET_WAIT = 10.0
MAX_STAY = 6000
"""Bytes that may stay for each client: the database's caches, which after so few rounds still grow, and its bucket in a
limiter's table, which is bounded. A session that leaks is some ten kilobytes; what is left of single kinds, the tables
tell."""
TOKENS = {"algorithms": ["HS256"], "secret": SECRET}

_names = itertools.count()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(
        tmp_path / "data",
        settings={
            **{f"{name}_rate": "100000" for name in ("connect", "denial", "guess", "request")},
            **{f"{name}_burst": "1000000" for name in ("connect", "denial", "guess", "request")},
            "log_level": "error",
            "session_retention": "1",
            "history_size": "100",
        },
    )
    process.start()
    policy = {"socket_wait": SOCKET_WAIT, "socket_grace": 1.0}
    Admin(process).patch("/applications/default", {"tokens": TOKENS, "sessions": policy})
    yield process
    process.stop()


def _name() -> str:
    return f"visitor-{next(_names) % PEOPLE}@example.com"


async def _up(page: Page) -> None:
    await page.subscribe()
    page.start()
    await until(lambda: page.up or page.reason is not None, "the socket is open")


async def _work(page: Page) -> None:
    """Watches somebody, shows presence, and sends a message; it comes back to the sender."""
    watch = {"presenceWatcherRequest": {"userList": [page.name, _name()], "action": "watch"}}
    show = {"presenceRequest": {"status": "open", "activity": "busy"}}
    text = {"imRequest": {"charset": "UTF-8", "toUrl": page.name, "message": "hello", "type": "A2"}}
    for resource, body in (("presenceWatcher", watch), ("presence", show), ("instantmessage", text)):
        status, answer = await page.ask("POST", resource, msgspec.json.encode(body))
        assert status == 200, answer
    await until(lambda: page.notifications["IM"] > 0, "the message comes", lambda: _over(page))


def _over(page: Page) -> list[str]:
    return [] if page.reason is None else [page.reason]


async def unsubscribes(page: Page) -> None:
    await _up(page)
    await _work(page)
    status, answer = await page.ask("DELETE", page.subscription, b"")
    assert status == 200, answer


async def vanishes(page: Page) -> None:
    """Breaks off; its subscription is ended by an operator later."""
    await _up(page)
    await _work(page)
    await page.stop()


async def flickers(page: Page) -> None:
    """Loses its socket some times."""
    await _up(page)
    for opens in (2, 3):
        page.cut()
        await until(lambda opens=opens: page.opens == opens and page.up, "it is back")  # type: ignore[misc]
    await _work(page)


async def never_opens(page: Page) -> None:
    """Does not come for its socket: its subscription expires, or an operator ends it before."""
    await page.subscribe()


async def refused(page: Page) -> None:
    """Shows a token of somebody else."""
    page.name = f"not-{page.name}"
    status, _ = await page.ask("POST", "subscription", b'{"subscribeRequest":{"service":["IM"]}}')
    assert status == 401


async def guesses(page: Page) -> None:
    """Opens a channel that there is not."""
    page.channel = f"/websocket/{next(_names)}.forged"
    page.start()
    await until(lambda: page.reason is not None, "it gives up")
    assert set(page.answers) <= {0, 404}


KINDS: tuple[Callable[[Page], Awaitable[None]], ...] = (
    unsubscribes,
    vanishes,
    flickers,
    never_opens,
    refused,
    guesses,
)


async def visit_all(port: int, each: int) -> None:
    """One round: so many pages of each kind, mixed."""
    queue = iter([kind for _ in range(each) for kind in KINDS])

    async def visit() -> None:
        for kind in queue:
            page = Page(port, _name(), RULE)
            try:
                await kind(page)
            finally:
                await page.stop()

    await asyncio.gather(*(visit() for _ in range(AT_ONCE)))


@pytest.mark.timeout(300)
async def test_rounds_of_clients_leave_no_memory(
    server: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    port, admin = int(server.http_host.rpartition(":")[2]), Admin(server)

    async def one_round() -> None:
        await visit_all(port, EACH)
        await asyncio.to_thread(admin.post, "/sessions/end", application="default")
        await at_rest(server)
        deadline = time.monotonic() + 60
        while await metric(server, "offhook_sessions") + await metric(server, "offhook_sessions_waiting") > 0:
            assert time.monotonic() < deadline, "sessions are left"
            await asyncio.sleep(0.05)

    for _ in range(WARM_UP):
        await one_round()
    memory, files = resident_bytes(server.pid), open_files(server.pid)
    levels = []
    for _ in range(ROUNDS):
        await one_round()
        levels.append(resident_bytes(server.pid))
    count = ROUNDS * EACH * len(KINDS)
    growth = (levels[-1] - memory) / count
    figures = (
        f"{count} clients, {growth:.0f} bytes each stay, {open_files(server.pid) - files} descriptors, "
        f"levels {', '.join(f'{level / 2**20:.1f}' for level in levels)} MiB"
    )
    print(figures)
    record_property("leaks", figures)
    assert open_files(server.pid) <= files + 2
    assert growth <= MAX_STAY


async def test_a_round_of_clients_leaves_empty_tables(tmp_path: Path) -> None:
    """Looked at from inside: what is kept by session, socket or topic is empty again, the limiters' tables aside."""
    rates = {f"{name}_rate": 100_000.0 for name in ("connect", "denial", "guess", "request")}
    bursts = {f"{name}_burst": 1_000_000 for name in ("connect", "denial", "guess", "request")}
    async with served(tmp_path / "data", **rates, **bursts) as site:
        core, door = site.core, site.server._kandy
        changes = ApplicationChanges(
            sessions=SessionPolicy(socket_wait=SOCKET_WAIT, socket_grace=0.5), tokens=TokenPolicy(("HS256",), SECRET)
        )
        await core.applications.change("default", changes)
        await visit_all(site.address[1], 10)
        answer = await site.http.post(
            f"{site.url}/admin/v1/sessions/end",
            headers={"authorization": f"Bearer {site.admin_token}"},
            json={"application": "default"},
        )
        assert answer.status_code == 200
        await until(lambda: not list(door.sockets()), "all sockets are closed")
        await until(lambda: len(core.hub) == 0, "all sessions have left")
        assert core.hub._topics == {}
        assert core.sessions.unsaved == {}
        await until(lambda: not core.reaper._dirty, "all positions are saved")
        assert not site.server._websockets
        # Bounded by their capacity, and told apart by user, address or session, never by what a client makes up.
        assert len(door._guesses) == 1
        assert len(door._reconnects) <= 10 * len(KINDS)
        admission = site.server._kandy_rest._admission
        assert len(admission._addresses) == 1
        assert len(admission._users) <= PEOPLE * 2
