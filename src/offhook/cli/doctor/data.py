"""The data directory: rights, space, database; and the functions module."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from offhook.cli.doctor.findings import Finding, fail, ok, warn
from offhook.cli.doctor.postgres import check_postgres
from offhook.errors import OffhookError

if TYPE_CHECKING:
    from offhook.settings import Settings

LITTLE_SPACE = 1024**3
"""Bytes free below which there is a warning."""
NO_SPACE = 100 * 1024**2
"""Bytes free below which a server should not start."""


def check_directory(settings: Settings) -> Iterator[Finding]:
    """The data directory: there, writable, and nobody else's to read."""
    path = settings.data_dir
    if not path.exists():
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield ok("data", f"{path} will be made at the first start.")
        else:
            yield fail("data", f"{path} cannot be made.", f"make it, or let this user write to {parent}")
        return
    if not path.is_dir() or not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield fail("data", f"{path} is no folder that this user may write to.", "give it to this user")
        return
    open_to_others = [
        item.name for item in (path, *_secrets(path)) if item.exists() and stat.S_IMODE(item.stat().st_mode) & 0o077
    ]
    if open_to_others:
        yield warn(
            "data",
            f"Others on this machine may look into {', '.join(open_to_others)}.",
            f"chmod -R go= {path}",
        )
    else:
        yield ok("data", f"{path} can be written, and by this user alone.")


def _secrets(path: Path) -> list[Path]:
    return [path / name for name in ("admin.token", "secret.key", "demo-users.json")]


def check_space(settings: Settings) -> Iterator[Finding]:
    """Free space on the data directory's disk."""
    folder = settings.data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / 1024**3:.1f} GiB are free on the disk of {settings.data_dir}."
    if free < NO_SPACE:
        yield fail("disk", text, "make room: nothing can be stored on a full disk")
    elif free < LITTLE_SPACE:
        yield warn("disk", text, "make room soon, or lower session_retention and history_seconds")
    else:
        yield ok("disk", text)


def check_database(settings: Settings) -> Iterator[Finding]:
    """The database: whole, and of this version."""
    from offhook.core import check_engines
    from offhook.storage.migrate import REVISION
    from offhook.storage.opening import on_postgresql
    from offhook.storage.sqlite import database_path

    try:
        check_engines(settings)
        if on_postgresql(settings):
            yield from check_postgres(settings)
            return
        path = database_path(settings)
    except OffhookError as error:
        yield fail("database", f"{error.message.rstrip('.')}.", "correct database_url and broker_url")
        return
    if not path.exists():
        yield ok("database", f"{path} will be made at the first start.")
        return
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        try:
            damage = [row[0] for row in connection.execute("PRAGMA quick_check(1)") if row[0] != "ok"]
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        yield fail("database", f"{path} cannot be read: {error}.", "restore it from a backup")
        return
    if damage:
        yield fail("database", f"{path} is damaged: {damage[0]}.", "stop the server and restore a backup")
    elif revision == REVISION:
        yield ok("database", f"{path} is whole and of this version ({revision}).")
    else:
        text = f"{path} is of version {revision}, this program of {REVISION}."
        yield warn("database", text, "a start updates an older one; a newer one needs a newer Offhook")


def check_secret(settings: Settings) -> Iterator[Finding]:
    """The key that all nodes of a system must share."""
    from offhook.storage.opening import on_postgresql

    path = settings.data_dir / "secret.key"
    if settings.secret_key is not None:
        yield ok("secret", "secret_key is set; every machine must have the same.")
    elif not on_postgresql(settings):
        yield ok("secret", f"It is made and kept in {path}.")
    elif path.exists():
        text = f"secret_key is not set; the key in {path} is this machine's alone."
        yield warn("secret", text, "if there is more than one machine, set the same secret_key on all of them")
    else:
        text = "secret_key is not set: each machine would make one of its own, and refuse what the others sign."
        yield warn("secret", text, "set the same secret_key on all machines before the first start")


def check_functions(settings: Settings) -> Iterator[Finding]:
    """The module with the authentication functions: whether it can be imported."""
    if settings.functions is None:
        yield ok("functions", "None are set; passwords, tokens and webhooks decide.")
        return
    from offhook.functions.loader import load_functions

    try:
        count = len(load_functions(settings.functions))
    except OffhookError as error:
        yield fail("functions", error.message, "correct the module, or the setting functions")
        return
    yield ok("functions", f"{settings.functions} binds {count} function{'' if count == 1 else 's'}.")
