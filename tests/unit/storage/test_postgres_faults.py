"""The PostgreSQL store when connections break, the server is away, and others are in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.contract.systems import a_user, an_application
from tests.databases import a_database, apart, execute

from offhook.domain.accounts import Application, User, UserFilter
from offhook.domain.events import Topic, UserUpdated, application_topic
from offhook.errors import Conflict, InvalidInput, Unavailable
from offhook.ports import Publication, Transaction
from offhook.storage.postgres import DatabaseClock, PostgresStore
from offhook.storage.postgres.blobs import AT_ONCE
from offhook.storage.postgres.driver import connect
from offhook.storage.postgres.house import LOCK
from offhook.storage.postgres.performer import fate_of
from offhook.storage.postgres.pool import Link, Pool
from offhook.storage.postgres.publishing import Receipt

COMMIT = b"COMMIT\0"


class Proxy:
    """Stands between a store and its server, and can be away, or lose a commit or the answer to it."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._server = (place.hostname or "127.0.0.1", place.port or 5432)
        self._name = f"{place.username}@%s{place.path}"
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lose_commits = 0
        """Commits that are still to be lost on the way to the server."""
        self.losing: Callable[[], Awaitable[None]] | None = None
        """What is to happen to the server as a commit is lost, before anybody can reach it again."""
        self._reachable = asyncio.Event()
        self._reachable.set()
        self.lose_answers = 0
        """Commits whose answers are still to be lost."""

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return "postgresql://" + self._name % f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in self._writers:
            writer.transport.abort()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._reachable.wait()
        up_reader, up_writer = await asyncio.open_connection(*self._server)
        mine = {writer, up_writer}
        self._writers |= mine
        losing = asyncio.Event()

        async def up() -> None:
            while data := await reader.read(65536):
                if COMMIT in data and self.lose_commits:
                    self.lose_commits -= 1
                    await self._lose()
                    return
                if COMMIT in data and self.lose_answers:
                    self.lose_answers -= 1
                    losing.set()
                up_writer.write(data)

        async def down() -> None:
            while data := await up_reader.read(65536):
                if losing.is_set():
                    return
                writer.write(data)
            await self._reachable.wait()

        pumps = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for each in mine:
            each.transport.abort()
        self._writers -= mine

    async def _lose(self) -> None:
        if self.losing is not None:
            self._reachable.clear()
            await self.losing()
            self._reachable.set()


@pytest.fixture
def url() -> Iterator[str]:
    with a_database() as url:
        yield url


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
def told() -> list[Publication]:
    return []


@pytest.fixture
async def store(proxy: Proxy, told: list[Publication]) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(proxy.url, told.extend, pool_size=4, history_size=4)
    yield store
    await store.close()


@pytest.fixture
async def application(store: PostgresStore) -> Application:
    return await store.transact(lambda tx: tx.applications.add(an_application()))


def kill_connections(url: str) -> None:
    """Ends all connections to the database, and returns when they are gone."""
    name = url.rpartition("/")[2]
    sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    apart(execute(sql, name))


def adding(application: Application, name: str, interrupt: Callable[[int], None]) -> Callable[[Transaction], User]:
    """A unit of work that is interrupted midway, and told how often it ran by then."""
    runs = 0

    def work(tx: Transaction) -> User:
        nonlocal runs
        runs += 1
        user = tx.users.add(a_user(application.id, name))
        tx.publish(application_topic(application.id), UserUpdated(user))
        interrupt(runs)
        return tx.users.set_online(user, True)

    return work


async def stored(store: PostgresStore, application: Application) -> list[str]:
    found = await store.query(lambda tx: tx.applications.get(application.id))
    assert found is not None
    return [event.user.name for _, event in (await store.journal.read(application_topic(application.id), 0, 99)).events]  # type: ignore[union-attr]


async def test_work_whose_connection_broke_is_done_on_another(
    store: PostgresStore, application: Application, url: str, told: list[Publication]
) -> None:
    work = adding(application, "alice", lambda runs: kill_connections(url) if runs == 1 else None)
    user = await store.transact(work)
    assert user.online
    assert await store.query(lambda tx: tx.users.count(application.id, UserFilter())) == 1
    assert await stored(store, application) == ["alice"]
    assert [publication.position.offset for publication in told] == [1]


async def test_work_whose_connections_break_again_and_again_is_given_up(
    store: PostgresStore, application: Application, url: str, told: list[Publication]
) -> None:
    runs: list[int] = []

    def interrupt(run: int) -> None:
        runs.append(run)
        kill_connections(url)

    with pytest.raises(Unavailable):
        await store.transact(adding(application, "alice", interrupt))
    assert 2 <= len(runs) <= 5
    assert await store.query(lambda tx: tx.users.count(application.id, UserFilter())) == 0
    assert told == []


async def test_a_commit_that_was_done_though_unanswered_is_told_as_done(
    store: PostgresStore, application: Application, proxy: Proxy, told: list[Publication]
) -> None:
    runs: list[int] = []
    proxy.lose_answers = 1
    await store.transact(adding(application, "alice", runs.append))
    assert proxy.lose_answers == 0
    assert runs == [1]
    assert await stored(store, application) == ["alice"]
    assert [publication.position.offset for publication in told] == [1]


async def test_a_commit_that_was_lost_on_the_way_is_done_again(
    store: PostgresStore, application: Application, proxy: Proxy, told: list[Publication]
) -> None:
    runs: list[int] = []
    proxy.lose_commits = 1
    await store.transact(adding(application, "alice", runs.append))
    assert proxy.lose_commits == 0
    assert runs == [1, 2]
    assert await store.query(lambda tx: tx.users.count(application.id, UserFilter())) == 1
    assert await stored(store, application) == ["alice"]
    assert [publication.position.offset for publication in told] == [1]


async def test_a_server_that_is_away_is_told_within_bounded_time_and_used_again_when_it_is_back(
    store: PostgresStore, application: Application, proxy: Proxy
) -> None:
    await proxy.stop()
    began = time.monotonic()
    outcomes = await asyncio.gather(
        *(store.transact(lambda tx: tx.applications.list()) for _ in range(20)),
        *(store.query(lambda tx: tx.applications.list()) for _ in range(20)),
        store.journal.heads([application_topic(1)]),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert time.monotonic() - began < 20
    await proxy.start()
    assert await store.query(lambda tx: tx.applications.list()) == [application]
    assert await store.transact(lambda tx: tx.users.add(a_user(application.id)))


async def test_a_server_that_is_back_in_time_goes_unnoticed(
    store: PostgresStore, application: Application, proxy: Proxy
) -> None:
    await proxy.stop()
    waiting = asyncio.create_task(store.transact(lambda tx: tx.users.add(a_user(application.id))))
    await asyncio.sleep(0)
    await proxy.start()
    assert (await waiting).name == "alice"


async def test_what_another_holds_for_too_long_is_unavailable(
    store: PostgresStore, application: Application, url: str
) -> None:
    user = await store.transact(lambda tx: tx.users.add(a_user(application.id)))
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    await connection.execute("SELECT 1 FROM users FOR UPDATE")
    with pytest.raises(Unavailable):
        await store.transact(lambda tx: tx.users.get(application.id, user.id))
    await connection.close()
    assert await store.transact(lambda tx: tx.users.get(application.id, user.id)) == user


async def test_who_waits_too_long_for_a_connection_is_told(url: str) -> None:
    clock = DatabaseClock()

    async def opened() -> Link:
        return Link(await connect(url), "epoch", clock)

    pool = Pool(opened, 1, 0.05)
    first = await pool.acquire()
    with pytest.raises(Unavailable, match="keep up"):
        await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.release(first)
    assert await waiting is first
    # The place of a connection that broke is the next one's.
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.release(first, broken=True)
    second = await waiting
    assert second is not first and pool.opened == 1
    pool.release(second)
    await pool.close()
    assert pool.opened == 0
    with pytest.raises(Unavailable, match="closed"):
        await pool.acquire()


async def test_a_text_with_nul_is_invalid_and_harms_nothing(store: PostgresStore, application: Application) -> None:
    with pytest.raises(InvalidInput):
        await store.transact(lambda tx: tx.users.add(a_user(application.id, "a\0b")))
    with pytest.raises(InvalidInput):
        await store.query(lambda tx: tx.users.by_name(application.id, "a\0b"))
    assert await store.query(lambda tx: tx.users.count(application.id, UserFilter())) == 0


async def test_work_that_goes_on_after_a_conflict_keeps_what_it_did(
    store: PostgresStore, application: Application
) -> None:
    def work(tx: Transaction) -> User:
        user = tx.users.add(a_user(application.id, "alice"))
        for taken in (lambda: tx.applications.add(application), lambda: tx.users.add(a_user(application.id, "alice"))):
            with pytest.raises(Conflict):
                taken()
        return user

    user = await store.transact(work)
    assert await store.query(lambda tx: tx.users.by_name(application.id, "alice")) == user


async def test_one_node_at_a_time_prunes(store: PostgresStore, application: Application, url: str) -> None:
    topic = application_topic(application.id)
    user = a_user(application.id)
    other = await asyncpg.connect(url)
    await other.execute("SELECT pg_advisory_lock($1)", LOCK)

    async def publish() -> int:
        await store.transact(lambda tx: tx.publish(topic, UserUpdated(user)))
        return await store.journal.oldest(topic)

    for _ in range(50):
        assert await publish() == 1
    await other.close()
    async with asyncio.timeout(10):
        while await publish() < 46:
            pass
    recorded = await store.journal.read(topic, 0, 100)
    assert [offset for offset, _ in recorded.events] == list(range(recorded.oldest, recorded.head + 1))


async def test_another_history_is_another_epoch(store: PostgresStore, application: Application, url: str) -> None:
    before = store.journal.epoch
    topic = application_topic(application.id)
    other = await PostgresStore.open(url, lambda publications: None)
    assert other.journal.epoch == before
    await other.close()
    await execute("UPDATE meta SET value = 'another/00000001' WHERE key = 'history'", url=url)
    kill_connections(url)
    position = await store.query(lambda tx: tx.head(topic))
    assert position.epoch == store.journal.epoch != before
    other = await PostgresStore.open(url, lambda publications: None)
    assert other.journal.epoch == position.epoch
    await other.close()


async def test_the_clock_goes_by_the_databases(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600 * 10**9
    local = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: local() + hour)
    clock = DatabaseClock()
    connection = await connect(url)
    assert await clock.set(connection) == pytest.approx(-3600, abs=5)
    told = await connection.fetchval("SELECT clock_timestamp()")
    assert abs(clock.now() - told) < timedelta(seconds=1)
    # It never goes back, and waits where it is ahead.
    ahead = DatabaseClock()
    shown = ahead.now()
    await ahead.set(connection)
    assert ahead.now() == shown > datetime.now(UTC) + timedelta(minutes=59)
    connection.terminate()


async def test_neither_errors_nor_logs_tell_the_password(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "hunter2-secret"
    for url in (
        f"postgresql://someone:{secret}@127.0.0.1:1/none",
        f"postgresql://someone:{secret}@127.0.0.1:{proxy.port}/no_such_database",
        f"postgresql://someone:{secret}@127.0.0.1:notaport/none",
        f"postgresql://someone:{secret}@127.0.0.1/none?sslmode=strange",
    ):
        with pytest.raises((Unavailable, InvalidInput)) as caught:
            await PostgresStore.open(url, lambda publications: None)
        shown: BaseException | None = caught.value
        while shown is not None:
            assert secret not in str(shown)
            shown = shown.__cause__
    assert secret not in "".join(capsys.readouterr())


async def test_nodes_with_another_key_are_refused(store: PostgresStore, url: str) -> None:
    await store.bind_key("one")
    await store.bind_key("one")
    other = await PostgresStore.open(url, lambda publications: None)
    with pytest.raises(InvalidInput, match="secret_key"):
        await other.bind_key("another")
    await other.bind_key("one")
    await other.close()


PICTURE = "ab" * 32 + ".png"


async def test_files_are_unavailable_while_the_server_is_away(store: PostgresStore, proxy: Proxy) -> None:
    await store.blobs.put(PICTURE, b"pixels")
    await proxy.stop()
    began = time.monotonic()
    outcomes = await asyncio.gather(
        *(store.blobs.get(PICTURE) for _ in range(10)),
        store.blobs.put("cd" * 32 + ".png", b"more"),
        store.blobs.delete(PICTURE),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert time.monotonic() - began < 20
    await proxy.start()
    assert await store.blobs.get(PICTURE) == b"pixels"
    assert await store.blobs.get("cd" * 32 + ".png") is None


async def test_files_whose_connection_broke_are_stored_and_read_on_another(store: PostgresStore, url: str) -> None:
    kill_connections(url)
    await store.blobs.put(PICTURE, b"pixels")
    kill_connections(url)
    assert await store.blobs.get(PICTURE) == b"pixels"
    kill_connections(url)
    await store.blobs.delete(PICTURE)
    assert await store.blobs.get(PICTURE) is None


async def test_files_leave_connections_to_everything_else(
    store: PostgresStore, application: Application, url: str
) -> None:
    await store.blobs.put(PICTURE, b"pixels")
    other = await asyncpg.connect(url)
    await other.execute("BEGIN")
    await other.execute("LOCK TABLE files IN ACCESS EXCLUSIVE MODE")
    reading = [asyncio.create_task(store.blobs.get(PICTURE)) for _ in range(20)]
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'files'::regclass AND NOT granted"
    async with asyncio.timeout(5):
        while await other.fetchval(waiting) < AT_ONCE:
            pass
    for number in range(20):
        assert await store.transact(lambda tx, name=f"u{number}": tx.users.add(a_user(application.id, name)))  # type: ignore[misc]
    assert await other.fetchval(waiting) == AT_ONCE
    await other.execute("ROLLBACK")
    await other.close()
    assert set(await asyncio.gather(*reading)) == {b"pixels"}


@pytest.mark.parametrize(
    ("offset", "encoded", "fate"),
    [
        (5, b"mine", "committed"),
        (5, b"other", "aborted"),
        (6, b"mine", "aborted"),
        # Pruned, for all that anybody can know.
        (3, b"mine", None),
    ],
)
async def test_a_receipt_that_is_gone_by_its_age_proves_nothing(offset: int, encoded: bytes, fate: str | None) -> None:
    with a_database() as url:
        connection = await connect(url)
        await connection.execute("INSERT INTO topics (topic, head) VALUES ('user.1', 5)")
        for number in (4, 5):
            await connection.execute(
                """INSERT INTO journal (topic, "offset", event, created_at) VALUES ('user.1', $1, 'mine', 7)""", number
            )
        xid = await connection.fetchval("SELECT pg_current_xact_id()::text")
        receipt = Receipt(Topic("user.1"), offset, encoded, 7)
        assert await fate_of(connection, xid, receipt) == fate
        nowhere = Receipt(Topic("user.2"), offset, encoded, 7)
        assert await fate_of(connection, xid, nowhere) == "aborted"
        await connection.close()
