"""Two servers that share nothing but PostgreSQL and Redis: whatever is done at one is so at the other."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from tests.chaos.killing import Admin
from tests.chaos.person import Person
from tests.chaos.stomp_client import Connection, Frame
from tests.cluster import Cluster, running
from tests.kandy_client import Account, KandyClient, Refused, Rule
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

PNG = b"\x89PNG\r\n\x1a\n"
PASSWORD = "correct horse: bättery"
LEASE, GRACE = 1.0, 2.0
AT_ONCE = 1.0
"""Seconds within which the end of a session closes its socket, wherever it is."""
PATIENCE = 15.0
_numbers = itertools.count(1)


@contextlib.contextmanager
def two_servers(folder: Path, **settings: str) -> Iterator[Cluster]:
    """Two servers that soon notice who is gone, and live as long as the context."""
    with running(folder, node_lease=str(LEASE), log_level="warning", **settings) as made:
        policy = {"leave_grace": GRACE, "socket_grace": GRACE}
        Admin(made.nodes[0]).patch("/applications/default", {"sessions": policy})
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with two_servers(tmp_path_factory.mktemp("cluster")) as made:
        yield made


class Scene:
    """Clients at two servers, cleared away in the end."""

    def __init__(self, cluster: Cluster) -> None:
        self.one, self.two = cluster.nodes
        self.clients = contextlib.AsyncExitStack()

    async def user(self, name: str) -> str:
        """Makes a user, at the first server. Returns its whole name."""
        whole = f"{name}-{next(_numbers)}@example.com"
        await asyncio.to_thread(Admin(self.one).post, "/applications/default/users", name=whole, password=PASSWORD)
        return whole

    async def kandy(
        self, at: ServerProcess, name: str, socket_at: ServerProcess | None = None, **how: object
    ) -> KandyClient:
        """A subscribed client of a server; its socket may be at another one."""
        client = KandyClient(at.url, Account(name, PASSWORD, uc=bool(how.get("uc"))), Rule(0.25, 80))
        self.clients.push_async_callback(client.close)
        client.socket_at = None if socket_at is None else socket_at.url
        await client.subscribe()
        return client

    async def person(self, at: ServerProcess, name: str) -> Person:
        """A ChatKitty client of a server that comes back by itself, and updates itself until told otherwise."""
        person = Person(rtm(at), name, next(_numbers))
        self.clients.push_async_callback(person.stop)
        person.start()
        async with asyncio.timeout(PATIENCE):
            await person.ready.wait()
        return person


@pytest_asyncio.fixture(loop_scope="session")
async def scene(cluster: Cluster) -> AsyncIterator[Scene]:
    made = Scene(cluster)
    async with made.clients:
        yield made


def rtm(node: ServerProcess) -> str:
    """Where ChatKitty's clients connect."""
    return f"ws://{node.http_host}/rtm/websocket?api-key={node.api_key}"


async def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> float:
    """Waits until a condition holds. Returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience, f"waited {patience} s in vain: {what}"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def last(client: KandyClient, name: str) -> tuple[str, str]:
    """How a client sees a user now."""
    seen = client.presence.get(name)
    return (seen[-1].status, seen[-1].note) if seen else ("", "")


def online(person: Person, name: str) -> list[bool]:
    """What a ChatKitty client was told of somebody's presence."""
    return [is_online for _, is_online in person.presence.get(name, [])]


async def test_a_subscription_of_one_opens_its_socket_at_the_other(scene: Scene) -> None:
    alice, bob = await scene.user("alice"), await scene.user("bob")
    there = await scene.kandy(scene.one, alice, socket_at=scene.two)
    here = await scene.kandy(scene.one, bob, uc=True)
    await there.watch(bob)
    await until(lambda: last(there, bob)[0] == "open", "bob is seen")
    for number in range(20):
        await here.send(alice, f"number {number}")
        await there.send(bob, f"number {number}")
    await here.show("open", "busy", "in a call")
    await until(lambda: len(there.texts) == len(here.texts) == 20, "all messages")
    assert [text.text for text in there.texts] == [text.text for text in here.texts]
    assert [text.text for text in there.texts] == [f"number {number}" for number in range(20)]
    await until(lambda: last(there, bob) == ("open", "in a call"), "bob's presence")
    assert there.duplicates == here.duplicates == 0
    # It renews and ends at the one; its socket is at the other.
    await there.renew()
    await there.ask("DELETE", there._path)
    seconds = await until(lambda: not there.up.is_set() or there.reason is not None, "its socket closes", 8.0)
    print(f"closed after {seconds:.2f} s")


async def test_a_session_of_one_is_resumed_at_the_other(scene: Scene) -> None:
    mover, talker = await scene.user("mover"), await scene.user("talker")
    heard: list[Frame] = []
    headers = {"StompX-User": mover, "StompX-Auth-Params": f'{{"password": "{PASSWORD}"}}'}
    other = await scene.kandy(scene.two, talker)
    async with Connection(rtm(scene.one), headers, lambda *_: None, heard.append) as connection:
        user = await connection.relay("/application/v1/user.relay")
        assert isinstance(user, dict)
        await connection.subscribe("contacts", f"/topic/v1.users.{user['id']}.contacts")
        await other.show("open", "away", "before")
        await until(lambda: len(heard) >= 1, "what happens at the other server")
        session = connection.connected.headers["session"]
    for note in ("first", "second", "third"):
        await other.show("open", "busy" if note == "second" else "away", note)
    missed: list[Frame] = []
    back = {**headers, "StompX-Auth-Session-ID": session}
    async with Connection(rtm(scene.two), back, lambda *_: None, missed.append) as connection:
        assert connection.connected.headers["recovered"] == "complete"
        await connection.subscribe("contacts", f"/topic/v1.users.{user['id']}.contacts")
        await until(lambda: len(missed) >= 3, "what was missed")
        await other.show("open", "away", "live")
        await until(lambda: len(missed) >= 4, "what comes")
        ids = [frame.headers["message-id"] for frame in missed]
        assert len(set(ids)) == 4 and not set(ids) & {frame.headers["message-id"] for frame in heard[:-1]}


@pytest.mark.parametrize("manner", ["end", "password", "disable", "delete"])
async def test_an_end_at_one_closes_the_socket_at_the_other(scene: Scene, manner: str) -> None:
    name, bystander = await scene.user("target"), await scene.user("bystander")
    client, other = await scene.kandy(scene.two, name), await scene.kandy(scene.two, bystander)
    admin, path = Admin(scene.one), f"/applications/default/users/{name}"
    if manner == "end":
        (session,) = await asyncio.to_thread(admin.sessions, name, "live")
        await asyncio.to_thread(admin.post, f"/sessions/{session['id']}/end")
    elif manner == "password":
        await asyncio.to_thread(admin._ask, "PUT", f"{path}/password", json={"password": "another one"})
    elif manner == "disable":
        await asyncio.to_thread(admin.patch, path, {"enabled": False})
    else:
        await asyncio.to_thread(admin._ask, "DELETE", path)
    seconds = await until(lambda: client.reason == "GONE", "it is told", AT_ONCE)
    print(f"{manner}: told after {seconds * 1000:.0f} ms")
    if manner == "password":
        with pytest.raises(Refused):
            await client.subscribe()
    assert other.reason is None and other.up.is_set()


async def test_a_new_login_at_one_ends_the_oldest_at_the_other(scene: Scene) -> None:
    name = await scene.user("much")
    limit = await asyncio.to_thread(Admin(scene.one).get, "/applications/default")
    sessions = limit["sessions"]
    assert isinstance(sessions, dict)
    nodes = (scene.one, scene.two)
    clients = [await scene.kandy(nodes[number % 2], name) for number in range(sessions["max_sessions"] + 1)]
    await until(lambda: clients[0].reason == "GONE", "the oldest one goes")
    assert all(client.reason is None for client in clients[1:])


async def test_presence_across_servers_and_protocols(scene: Scene) -> None:
    watcher = await scene.person(scene.one, f"watcher-{next(_numbers)}@example.com")
    name = await scene.user("visitor")
    visitor = await scene.kandy(scene.two, name)
    await visitor.watch(watcher.name)
    await until(lambda: online(watcher, name) == [True], "the visitor comes")
    await until(lambda: last(visitor, watcher.name)[0] == "open", "the watcher is seen")
    await visitor.unsubscribe()
    await until(lambda: online(watcher, name) == [True, False], "the visitor goes")
    assert watcher.wrongs == []


async def test_a_block_at_one_counts_at_the_other(scene: Scene) -> None:
    blocked = await scene.user("blocked")
    blocker = f"blocker-{next(_numbers)}@example.com"
    record = await asyncio.to_thread(Admin(scene.two).get, f"/applications/default/users/{blocked}")
    client = await scene.kandy(scene.two, blocked)
    await client.watch(blocker)
    async with Connection(rtm(scene.one), {"StompX-User": blocker}, lambda *_: None, lambda _: None) as connection:
        user = await connection.relay("/application/v1/user.relay")
        assert isinstance(user, dict)
        await connection.subscribe("users", f"/topic/v1.users.{user['id']}.users")
        await until(lambda: last(client, blocker)[0] == "open", "the blocker is seen")
        await connection.act(f"/application/v1/users/{record['id']}.block", "block", {})
        await until(lambda: last(client, blocker)[0] == "closed", "the blocker is hidden")
        with pytest.raises(Refused):
            await client.send(blocker, "hello?")


async def test_a_picture_of_one_is_shown_by_the_other(scene: Scene) -> None:
    name = f"vain-{next(_numbers)}@example.com"
    url = "/v1/streams/users/{}/display-picture"
    async with (
        Connection(rtm(scene.one), {"StompX-User": name}, lambda *_: None, lambda _: None) as connection,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        user = await connection.relay("/application/v1/user.relay")
        answer = await connection.relay("/application/v1/user.write_file_access_grant.relay")
        assert isinstance(user, dict) and isinstance(answer, dict)
        headers = {"Grant": str(answer["grant"])}
        shown: list[str] = []
        # Whoever uploaded it, both servers show it, and neither shows the one before it any more.
        for node, picture in ((scene.one, PNG + os.urandom(1_000_000)), (scene.two, PNG + b"another")):
            files = {"file": ("me.png", picture, "image/png")}
            stored = await http.post(node.url + url.format(user["id"]), headers=headers, files=files)
            assert stored.status_code == 200, stored.text
            shown.append(urlsplit(stored.json()["displayPictureUrl"]).path)
            for other in (scene.one, scene.two):
                fetched = await http.get(other.url + shown[-1])
                assert (fetched.status_code, fetched.headers["content-type"]) == (200, "image/png")
                assert fetched.content == picture
        for other in (scene.one, scene.two):
            assert (await http.get(other.url + shown[0])).status_code == 404
            assert not (other.data_dir / "files").exists()


async def test_who_is_at_a_server_that_is_killed_goes_on_at_the_other(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with two_servers(tmp_path_factory.mktemp("mortal")) as cluster:
        scene = Scene(cluster)
        async with scene.clients:
            stays, goes, watches = [await scene.user(name) for name in ("stays", "goes", "watches")]
            witness = await scene.kandy(scene.two, watches)
            mover, ghost = await scene.kandy(scene.one, stays), await scene.kandy(scene.one, goes)
            await witness.watch(stays, goes)
            await until(lambda: (last(witness, stays)[0], last(witness, goes)[0]) == ("open", "open"), "both are seen")
            told = len(witness.presence[stays])
            mover.socket_at = scene.two.url
            await asyncio.to_thread(scene.one.kill)
            await ghost.vanish()
            await witness.send(stays, "while you were away")
            seconds = await until(lambda: len(mover.texts) == 1, "it goes on at the other server")
            print(f"back after {seconds:.2f} s")
            seconds = await until(lambda: last(witness, goes)[0] == "closed", "who does not come back has left")
            assert seconds < LEASE + GRACE + 3.0
            assert len(witness.presence[stays]) == told, "nobody saw anything of the one who came back"
            assert mover.reason is None and mover.opens == 2


async def test_a_server_that_is_restarted_hands_its_clients_over(tmp_path_factory: pytest.TempPathFactory) -> None:
    with two_servers(tmp_path_factory.mktemp("drained"), drain_seconds="1") as cluster:
        scene = Scene(cluster)
        async with scene.clients:
            names = [await scene.user(f"mover-{number}") for number in range(6)]
            witness = await scene.kandy(scene.two, await scene.user("witness"))
            movers = [await scene.kandy(scene.one, name) for name in names]
            await witness.watch(*names)
            await until(lambda: all(last(witness, name)[0] == "open" for name in names), "all are seen")
            for mover in movers:
                mover.socket_at = scene.two.url
            stopping = asyncio.create_task(asyncio.to_thread(scene.one.stop))
            for number in range(10):
                for name in names:
                    await witness.send(name, f"number {number}")
            await stopping
            await until(lambda: all(len(mover.texts) == 10 for mover in movers), "every message comes")
            for mover in movers:
                assert [text.text for text in mover.texts] == [f"number {number}" for number in range(10)]
                assert mover.closes == [1012] and mover.reason is None
            assert all(len(witness.presence[name]) == 1 for name in names), "presence does not flicker"
