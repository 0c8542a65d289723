"""``offhook doctor`` on what many nodes share: PostgreSQL, Redis, the secret key."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.databases import SERVER, a_database, execute
from tests.redis_servers import redis_cluster, redis_server
from tests.unit.cli.support import Cli
from tests.unit.cli.test_doctor import levels

from offhook.cli.doctor import postgres
from offhook.cli.doctor.findings import Finding, Level
from offhook.cli.doctor.postgres import Facts
from offhook.storage.places import Place, at


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A PostgreSQL database with the tables, which the settings name."""
    monkeypatch.setenv("OFFHOOK_SECRET_KEY", "k" * 32)
    with a_database() as url:
        monkeypatch.setenv("OFFHOOK_DATABASE_URL", url)
        yield url


def told(offhook: Cli, check: str) -> str:
    """Everything that is said of a check."""
    checks = offhook("doctor", "--json").json["checks"]
    assert isinstance(checks, list)
    return " ".join(
        f"{found['level']}: {found['text']} {found['advice']}" for found in checks if found["check"] == check
    )


def test_a_database_that_is_well(offhook: Cli, database: str) -> None:
    found = levels(offhook)
    assert {found[name] for name in ("database", "durability", "connections", "clock", "broker", "secret")} == {"ok"}
    assert "Only one process may use the database" in told(offhook, "broker")
    assert "0 are running" in told(offhook, "connections")


def test_an_empty_database_and_one_of_another_version(offhook: Cli, database: str) -> None:
    asyncio.run(execute("UPDATE alembic_version SET version_num = '0001'", url=database))
    assert "of version 0001" in told(offhook, "database") and "offhook db upgrade" in told(offhook, "database")
    assert levels(offhook)["database"] == "warn"
    asyncio.run(execute("DROP SCHEMA public CASCADE", url=database))
    asyncio.run(execute("CREATE SCHEMA public", url=database))
    assert "is empty" in told(offhook, "database")
    asyncio.run(execute("CREATE TABLE diary (page text)", url=database))
    assert levels(offhook)["database"] == "fail"


def test_a_database_that_is_away(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_DATABASE_URL", "postgresql://me:hush-hush@127.0.0.1:1/offhook")
    outcome = offhook("doctor")
    assert outcome.code == 1
    assert "fail database" in outcome.out and "127.0.0.1:1/offhook cannot be used" in outcome.out
    assert "hush" not in outcome.out + outcome.err


def test_too_few_connections(offhook: Cli, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_DATABASE_POOL", "1000")
    assert levels(offhook)["connections"] == "fail"
    assert "raise max_connections so that there is room for 2" in told(offhook, "connections")


def test_processes_that_run_are_counted(offhook: Cli, database: str) -> None:
    lease = "INSERT INTO leases SELECT 'node.' || n, n, (extract(epoch FROM now()) * 1000000)::bigint + $1 FROM "
    asyncio.run(execute(f"{lease} generate_series(1, 40) AS n", 60_000_000, url=database))
    asyncio.run(execute(f"{lease} generate_series(41, 50) AS n", -60_000_000, url=database))
    assert "40 are running" in told(offhook, "connections")
    assert levels(offhook)["connections"] == "warn"


def facts(**values: object) -> Facts:
    known = {
        "max_connections": "100",
        "superuser_reserved_connections": "3",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
    }
    settings = {name: str(values.pop(name)) for name in list(values) if name in known}
    given: dict[str, object] = {
        "version": "16.1", "revision": "0001", "standby": False, "others": 0, "nodes": 0, "offset": 0.0,
        "round_trip": 0.001,
    }  # fmt: skip
    return Facts(settings=known | settings, **(given | values))  # type: ignore[arg-type]


def worst(findings: Iterator[Finding]) -> Level:
    (found,) = findings
    return found.level


def test_what_a_server_of_the_tests_cannot_be_made_to_say() -> None:
    assert worst(postgres._durability(facts(fsync="off"))) is Level.FAIL
    assert worst(postgres._durability(facts(full_page_writes="off"))) is Level.FAIL
    assert worst(postgres._durability(facts(synchronous_commit="off"))) is Level.OK
    assert worst(postgres._clock(facts(offset=-3.0))) is Level.WARN
    assert worst(postgres._clock(facts(offset=3.0, round_trip=5.0))) is Level.OK


def test_a_secret_key_for_many_machines(offhook: Cli, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFHOOK_SECRET_KEY")
    assert levels(offhook)["secret"] == "warn"
    assert "before the first start" in told(offhook, "secret")
    offhook.data_dir.mkdir(mode=0o700)
    (offhook.data_dir / "secret.key").write_text("00" * 32)
    assert "this machine's alone" in told(offhook, "secret")


async def test_a_broker_that_is_well(
    offhook: Cli, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with redis_server(tmp_path / "redis") as server:
        monkeypatch.setenv("OFFHOOK_BROKER_URL", server.url)
        assert await asyncio.to_thread(told, offhook, "broker") != ""
        assert (await asyncio.to_thread(levels, offhook))["broker"] == "ok"
        await server.run("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 60")
        await server.run("CONFIG", "SET", "maxmemory-clients", "100mb")
        text = await asyncio.to_thread(told, offhook, "broker")
        assert "cuts off who leaves 1048576 bytes unread" in text and "set maxmemory-clients to 0" in text
        # Providers keep their settings to themselves.
        await server.run("ACL", "SETUSER", "default", "-config")
        assert (await asyncio.to_thread(levels, offhook))["broker"] == "ok"
        await server.run("ACL", "SETUSER", "default", "-spublish")
        assert "allow SSUBSCRIBE and SPUBLISH" in await asyncio.to_thread(told, offhook, "broker")
        await server.run("ACL", "SETUSER", "default", "on", ">hush-hush")
        text = await asyncio.to_thread(told, offhook, "broker")
        assert text.startswith("fail: ") and "cannot be used" in text


async def test_a_broker_that_is_away_or_stands_still(
    offhook: Cli, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("offhook.cli.doctor.broker.TIMEOUT", 1.0)
    async with redis_server(tmp_path / "redis") as server:
        monkeypatch.setenv("OFFHOOK_BROKER_URL", server.url.replace("://", "://me:hush-hush@"))
        assert "hush" not in await asyncio.to_thread(told, offhook, "broker")
        monkeypatch.setenv("OFFHOOK_BROKER_URL", server.url)
        server.pause()
        with contextlib.ExitStack() as stack:
            stack.callback(server.go_on)
            assert "did not answer in time" in await asyncio.to_thread(told, offhook, "broker")
        server.kill()
        assert (await asyncio.to_thread(levels, offhook))["broker"] == "fail"


async def test_a_cluster(offhook: Cli, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with redis_cluster(tmp_path) as servers:
        seeds = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        monkeypatch.setenv("OFFHOOK_BROKER_URL", f"redis+cluster://{seeds}")
        text = await asyncio.to_thread(told, offhook, "broker")
        assert text.count("carries messages") == len(servers) and text.count("ok: ") == len(servers), text


def test_a_broker_without_a_database_to_share(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_BROKER_URL", "nonsense")
    found = levels(offhook)
    assert (found["database"], found["broker"]) == ("fail", "fail")


def test_connections_of_others_are_counted_though_they_are_not_ones_own_to_see(
    offhook: Cli, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's user is no superuser, and PostgreSQL hides from it most of what it knows of others' connections."""
    role = f"offhook_test_{secrets.token_hex(6)}"
    name = database.rpartition("/")[2]
    asyncio.run(execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush'"))
    try:
        asyncio.run(execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", url=database))
        parts = urlsplit(database)
        place = Place(url=f"postgresql://{role}:hush@{parts.hostname}:{parts.port or 5432}/{name}")
        before = asyncio.run(at(lambda: postgres._ask(place))).others

        async def with_guests() -> int:
            guests = [await asyncpg.connect(SERVER) for _ in range(20)]
            other = await asyncpg.connect(SERVER, server_settings={"application_name": "offhook"})
            try:
                return (await at(lambda: postgres._ask(place))).others
            finally:
                await asyncio.gather(*(guest.close() for guest in [*guests, other]))

        # Another system's servers on the same PostgreSQL take room, too.
        assert asyncio.run(with_guests()) >= before + 15
    finally:
        asyncio.run(execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}", url=database))
        asyncio.run(execute(f"DROP ROLE {role}"))
