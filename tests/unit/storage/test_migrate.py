"""The schema: made, upgraded, or refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, NullPool, create_engine

from offhook.errors import Unavailable
from offhook.storage import IncompatibleDatabase, SQLiteStore
from offhook.storage import migrate as module
from offhook.storage.migrate import REVISION, migrate
from offhook.storage.tables import metadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "offhook.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    yield engine
    engine.dispose()


def schema(path: Path) -> dict[str, str]:
    """Every table and index as SQL, without the accidents of its layout."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.replace("sessions.", "").split()) for name, sql in rows if "alembic" not in name}


def test_the_migrations_make_what_the_tables_say(engine: Engine, path: Path, tmp_path: Path) -> None:
    migrate(engine)
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}", poolclass=NullPool)
    metadata.create_all(other)
    made, said = schema(path), schema(tmp_path / "other.db")
    assert made.keys() == said.keys()
    for name in said:
        assert made[name] == said[name]


def test_the_newest_revision_is_this_versions() -> None:
    config = Config()
    config.set_main_option("script_location", "offhook.storage:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_migrating_again_changes_nothing(engine: Engine, path: Path) -> None:
    migrate(engine)
    before = path.read_bytes()
    migrate(create_engine(f"sqlite:///{path}", poolclass=NullPool))
    assert path.read_bytes() == before


def test_a_newer_database_is_refused_and_left_alone(engine: Engine, path: Path) -> None:
    migrate(engine)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(IncompatibleDatabase, match=f"schema 9999.*only {REVISION}"):
        migrate(engine)
    assert path.read_bytes() == before


def test_the_database_of_something_else_is_refused_and_left_alone(engine: Engine, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(IncompatibleDatabase):
        migrate(engine)
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused_and_left_alone(engine: Engine, path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(IncompatibleDatabase):
        migrate(engine)
    assert path.read_bytes() == b"Dear diary, " * 1000


def test_a_migration_that_fails_leaves_nothing_half_made(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = module._upgrade

    def fail_at_the_end(connection: object, stored: str | None) -> None:
        upgrade(connection, stored)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_upgrade", fail_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        migrate(engine)
    assert schema(path) == {}
    monkeypatch.undo()
    migrate(create_engine(f"sqlite:///{path}", poolclass=NullPool))
    assert "sessions" in schema(path)


async def test_a_path_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "offhook.db"):
        with pytest.raises(Unavailable, match="cannot be opened"):
            await SQLiteStore.open(path, lambda publications: None)
