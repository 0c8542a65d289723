"""``offhook db``: upgrade, check and copy, on both engines."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.databases import a_database, execute
from tests.unit.cli.support import Cli, Outcome
from tests.unit.storage.filling import COUNTS, ROWS, add_file, file_name, filled_file

from offhook.storage.lock import DataLock
from offhook.storage.migrate import REVISION


@pytest.fixture
def empty() -> Iterator[str]:
    """An empty PostgreSQL database."""
    with a_database(empty=True) as url:
        yield url


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def engine(request: pytest.FixtureRequest, offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The settings name an empty database of this engine."""
    if request.param == "PostgreSQL":
        with a_database(empty=True) as url:
            monkeypatch.setenv("OFFHOOK_DATABASE_URL", url)
            yield url
    else:
        yield str(offhook.data_dir / "offhook.db")


def change(place: str, statement: str) -> None:
    """Does to a database what no server would do."""
    if place.startswith("postgresql:"):
        asyncio.run(execute(statement, url=place))
        return
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute(statement)


def faults(outcome: Outcome) -> list[tuple[str, str]]:
    found = outcome.json["faults"]
    assert isinstance(found, list)
    assert outcome.code == (1 if found else 0) and outcome.json["ok"] is not bool(found)
    return [(fault["check"], fault["text"]) for fault in found]


def test_upgrade_says_from_what_to_what(offhook: Cli, engine: str) -> None:
    first = offhook.done("db", "upgrade")
    assert (first["before"], first["after"]) == (None, REVISION)
    assert offhook.done("db", "upgrade")["before"] == REVISION
    assert "already" in offhook("db", "upgrade").out
    assert faults(offhook("db", "check", "--json")) == []
    change(engine, "UPDATE alembic_version SET version_num = '9999'")
    outcome = offhook("db", "upgrade")
    assert outcome.code == 1 and "knows only" in outcome.err


def test_a_database_that_is_not_up_to_date_is_not_well(offhook: Cli, engine: str) -> None:
    outcome = offhook("db", "check", "--json")
    if outcome.code == 4:
        assert "There is no database" in outcome.err
    else:
        assert [name for name, _ in faults(outcome)] == ["schema"]
    offhook.done("db", "upgrade")
    change(engine, "UPDATE alembic_version SET version_num = '0002'")
    ((name, text),) = faults(offhook("db", "check", "--json"))
    assert name == "schema" and "of version 0002" in text and "offhook db upgrade" in text


APPLICATION = (
    "INSERT INTO applications (id, name, domain, api_key, client_id, client_secret_hash, created_at, guests, enabled,"
    " sessions) VALUES (1, 'shop', 'shop.example', 'k', 'c', 'h', 0, true, true, '{}')"
)
USER = (
    "INSERT INTO users (id, application_id, name, display_name, display_key, created_at, guest, enabled, online,"
    " properties) VALUES ({0}, {1}, 'user {0}', 'u', 'u', 0, false, true, {2}, '{{}}')"
)
SESSION = (
    "INSERT INTO sessions (id, application_id, user_id, user_name, protocol, agent, address, secure, authentication,"
    " state, generation, node, started_at, connected_at, leave_at, resumes, positions, epoch, announces)"
    " VALUES ({0}, 1, {1}, 'u', 'chatkitty', '', '', true, 'guest', '{2}', 1, 'n', 0, 0, {3}, 0, '{{}}', '', {4})"
)
ENTRY = """INSERT INTO journal (id, topic, "offset", event, created_at) VALUES ({0}, '{1}', {2}, '', 0)"""
TOPIC = "INSERT INTO topics (topic, head) VALUES ('{0}', {1})"


def test_what_is_as_it_should_be(offhook: Cli, engine: str) -> None:
    offhook.done("db", "upgrade")
    for statement in (
        APPLICATION,
        *(USER.format(number, 1, "true") for number in (1, 2, 3)),
        USER.format(4, 1, "false"),
        SESSION.format(1, 1, "active", "NULL", "true"),
        # Online until a server has said otherwise, however long that has been due.
        SESSION.format(2, 2, "suspended", "1", "true"),
        SESSION.format(3, 3, "starting", "1", "true"),
        SESSION.format(4, 4, "active", "NULL", "false"),
        SESSION.format(5, 4, "suspended", "NULL", "true"),
        SESSION.format(6, 4, "ended", "1", "true"),
        # The oldest may be gone, or all.
        *(ENTRY.format(number, "a", number) for number in (3, 4, 5)),
        TOPIC.format("a", 5),
        TOPIC.format("b", 7),
    ):
        change(engine, statement)
    if engine.startswith("postgresql:"):
        for table in ("applications", "users", "sessions", "journal"):
            change(engine, f"SELECT setval('{table}_id_seq', 6)")
    assert faults(offhook("db", "check", "--json")) == []
    assert "ok   journal" in offhook("db", "check").out


def test_every_fault_is_named(offhook: Cli, engine: str) -> None:
    offhook.done("db", "upgrade")
    postgres = engine.startswith("postgresql:")
    statements = [
        APPLICATION,
        USER.format(1, 1, "true"),
        USER.format(2, 1, "false"),
        USER.format(3, 1, "true"),
        SESSION.format(2, 2, "active", "NULL", "true"),
        SESSION.format(3, 3, "suspended", "NULL", "true"),
        *(ENTRY.format(number, "holes", number) for number in (1, 3)),
        TOPIC.format("holes", 3),
        ENTRY.format(4, "short", 1),
        TOPIC.format("short", 2),
        ENTRY.format(5, "unknown", 1),
    ]
    for statement in statements:
        change(engine, statement)
    change(engine, "ALTER TABLE users DROP CONSTRAINT users_application_id_fkey" if postgres else "SELECT 1")
    change(engine, USER.format(9, 77, "false"))
    found = faults(offhook("db", "check", "--json"))
    expected = [
        ("journal", "Topic holes keeps 2 events between the offsets 1 and 3."),
        ("journal", "Topic short keeps events up to 1, and its last one is said to be 2."),
        ("journal", "Topic unknown keeps events up to 1, and is not known."),
        ("presence", "User 1 (user 1) is stored as online, and has no session that says so."),
        ("presence", "User 3 (user 3) is stored as online, and has no session that says so."),
        ("presence", "User 2 (user 2) is stored as offline, and has an active session."),
        ("references", "1 rows of users refer by application_id to applications 77, which is not there."),
    ]
    assert [fault for fault in found if fault[0] != "sequences"] == expected
    if postgres:
        assert ("sequences", "Table users has ids up to 9, and its sequence is at 0.") in found
    shown = offhook("db", "check")
    assert shown.code == 1 and "fail journal" in shown.out and expected[0][1] in shown.out


PICTURE = "UPDATE users SET picture = '/v1/files/{1}' WHERE id = {0}"
FILE = "INSERT INTO files (name, data, size, created_at) VALUES ('{0}', 'data', {1}, {2})"
LONG_AGO, NEVER = 1_600_000_000, 9_000_000_000
"""Seconds since 1970."""


def store_file(offhook: Cli, engine: str, number: int, moment: int, size: int = 4) -> None:
    """Stores a file as a server would have done at a moment."""
    if engine.startswith("postgresql:"):
        change(engine, FILE.format(file_name(number), size, moment * 1_000_000))
    else:
        os.utime(add_file(offhook.data_dir / "offhook.db", file_name(number), b"data"), (moment, moment))


def test_pictures_are_compared_with_files(offhook: Cli, engine: str) -> None:
    offhook.done("db", "upgrade")
    postgres = engine.startswith("postgresql:")
    for statement in (APPLICATION, *(USER.format(number, 1, "false") for number in (1, 2, 3, 4, 5))):
        change(engine, statement)
    for user, name in ((1, file_name(1)), (2, file_name(2)), (3, "../secret.key")):
        change(engine, PICTURE.format(user, name))
    change(engine, "UPDATE users SET picture = 'https://pictures.example/v1/files/x.png' WHERE id = 4")
    store_file(offhook, engine, 1, LONG_AGO)
    # One that was stored this moment may become somebody's in the next.
    store_file(offhook, engine, 5, NEVER)
    store_file(offhook, engine, 6, LONG_AGO, size=7)
    found = [fault for fault in faults(offhook("db", "check", "--json")) if fault[0] != "sequences"]
    expected = [
        f"User 2 (user 2) has the picture {file_name(2)}, which is not there.",
        "User 3 (user 3) has the picture ../secret.key, which is not there.",
        f"File {file_name(6)} is nobody's picture.",
    ]
    if postgres:
        expected.append(f"File {file_name(6)} had 7 bytes, and has 4.")
    assert found == [("pictures", text) for text in expected]


def test_copy_is_told_where_pictures_are(
    offhook: Cli, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offhook.done("app", "create", "shop")
    inside = offhook.data_dir / "offhook.db"
    outside = tmp_path / "apart" / "chat.db"
    outside.parent.mkdir()
    change(str(inside), APPLICATION.replace("VALUES (1, 'shop', 'shop.example'", "VALUES (9, 'a', 'a.example'"))
    change(str(inside), USER.format(1, 9, "false"))
    change(str(inside), PICTURE.format(1, file_name(1)))
    add_file(inside, file_name(1), b"data")
    inside.rename(outside)
    refused = offhook("db", "copy", str(outside), empty)
    assert refused.code == 1 and file_name(1) in refused.err and "--files" in refused.err
    copied = offhook.done("db", "copy", str(outside), empty, "--files", str(offhook.data_dir / "files"))
    tables = copied["tables"]
    assert isinstance(tables, list)
    assert [table["target"]["rows"] for table in tables if table["table"] == "files"] == [1]
    # The settings know where the files of their own database are.
    monkeypatch.setenv("OFFHOOK_DATABASE_URL", f"sqlite:///{outside}")
    other = tmp_path / "other" / "chat.db"
    offhook.done("db", "copy", str(outside), str(other))
    assert (other.parent / "files" / "01" / file_name(1)).read_bytes() == b"data"
    lossy = tmp_path / "lossy.db"
    monkeypatch.delenv("OFFHOOK_DATABASE_URL")
    offhook.done("db", "copy", str(outside), str(lossy), "--allow-missing")
    assert not (tmp_path / "files").exists()


def test_many_faults_are_counted(offhook: Cli) -> None:
    offhook.done("db", "upgrade")
    place = str(offhook.data_dir / "offhook.db")
    change(place, APPLICATION)
    with closing(sqlite3.connect(place)) as connection:
        for number in range(1, 31):
            connection.execute(USER.format(number, 1, "true"))
        connection.commit()
    found = faults(offhook("db", "check", "--json"))
    assert len(found) == 21 and found[-1] == ("presence", "There are 10 more.")


def test_a_damaged_file_is_noticed(offhook: Cli) -> None:
    offhook.data_dir.mkdir()
    path = filled_file(offhook.data_dir / "offhook.db", rows=300)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 20_000] = b"\x55" * 20_000
    path.write_bytes(damaged)
    outcome = offhook("db", "check", "--json")
    if outcome.code == 1:
        assert any(name == "damage" for name, _ in faults(outcome))
    else:
        assert outcome.code == 4 and "malformed" in outcome.err


def test_a_copy_is_shown_and_is_whole(offhook: Cli, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offhook.data_dir.mkdir()
    source = filled_file(offhook.data_dir / "offhook.db")
    outcome = offhook("db", "copy", str(source), empty, "--json")
    assert outcome.code == 0, outcome.err
    tables = outcome.json["tables"]
    assert isinstance(tables, list) and {table["table"] for table in tables} == set(COUNTS)
    assert all(table["source"] == table["target"] and table["target"]["rows"] == ROWS for table in tables)
    again = offhook("db", "copy", f"sqlite:///{source}", empty)
    assert again.code == 1 and "is not empty" in again.err
    back = offhook("db", "copy", empty, str(offhook.data_dir / "back.db"))
    assert back.code == 0 and f"has all that {empty.replace('postgres@', '')} has." in back.out
    assert "comparing users" in back.err
    monkeypatch.setenv("OFFHOOK_DATABASE_URL", empty)
    assert {name for name, _ in faults(offhook("db", "check", "--json"))} <= {"journal", "presence"}


def test_the_configured_database_is_the_target(offhook: Cli, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offhook.done("app", "create", "shop")
    monkeypatch.setenv("OFFHOOK_DATABASE_URL", empty)
    offhook.done("db", "copy", str(offhook.data_dir / "offhook.db"))
    listed = offhook.done("app", "list")["applications"]
    assert isinstance(listed, list) and [application["name"] for application in listed] == ["shop"]


def test_who_holds_the_data_folder_is_named(offhook: Cli, empty: str) -> None:
    offhook.done("app", "create", "shop")
    lock = DataLock(offhook.data_dir)
    assert lock.acquire()
    try:
        lock.write(b'{"pid": 4711, "urls": [], "nodes": []}')
        for command in (("upgrade",), ("copy", str(offhook.data_dir / "offhook.db"), empty)):
            outcome = offhook("db", *command)
            assert outcome.code == 1 and "Process 4711 uses" in outcome.err
        assert offhook("db", "check").code == 0
    finally:
        lock.release()


REFUSED = [
    (["copy", "missing.db", "postgresql://me:hush@127.0.0.1:1/x"], 4, "There is no database"),
    (["copy", "mysql://x/y", "z.db"], 1, "A database is a file"),
    (["copy", "", "z.db"], 1, "must be named"),
    (["copy", "postgresql://me:hush@127.0.0.1:1/x", "z.db"], 4, "127.0.0.1:1/x cannot be used"),
    (["copy"], 2, ""),
]


@pytest.mark.parametrize(("arguments", "code", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused(offhook: Cli, arguments: list[str], code: int, text: str) -> None:
    outcome = offhook("db", *arguments)
    assert outcome.code == code and text in outcome.err
    assert "hush" not in outcome.err and "Traceback" not in outcome.err
