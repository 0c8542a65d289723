"""``offhook db``: the database itself, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offhook.cli.config import load_settings
from offhook.cli.failures import ExitCode, Failure, failure_of
from offhook.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject, JsonValue
    from offhook.settings import Settings
    from offhook.storage.check import Checked
    from offhook.storage.copy import Content, Copied
    from offhook.storage.places import Place

app = typer.Typer(help="The database: brings it up to date, checks it, copies it.", no_args_is_help=True)


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Brings the configured database to this version's schema; makes the schema in an empty one.

    A server does the same when it starts. Do it by command to see what happens before the first server starts.
    """
    from offhook.storage.places import configured
    from offhook.storage.upgrade import upgrade_database

    with _failing(as_json):
        settings = load_settings()
        place = configured(settings)
        with _unused(settings, [place]):
            before, after = asyncio.run(upgrade_database(place))
    if as_json:
        print_json({"database": str(place), "before": before, "after": after})
    elif before == after:
        typer.echo(f"{place} is of version {after} already.")
    else:
        was = "was empty" if before is None else f"was of version {before}"
        typer.echo(f"{place} {was} and is of version {after} now.")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Checks what the configured database holds: schema, journal, presence, references. Servers may run meanwhile.

    Exits with 1 if something is not as it should be.
    """
    from offhook.storage.check import check_database
    from offhook.storage.places import configured

    with _failing(as_json):
        place = configured(load_settings())
        checked = asyncio.run(check_database(place))
    if as_json:
        faults: list[JsonValue] = [{"check": fault.check, "text": fault.text} for fault in checked.faults]
        checks: list[JsonValue] = list(checked.checks)
        answer: JsonObject = {"database": str(place), "schema": checked.revision, "ok": not faults}
        print_json(answer | {"checks": checks, "faults": faults})
    else:
        _show_check(place, checked)
    if checked.faults:
        raise typer.Exit(int(ExitCode.REFUSED))


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The database to copy: a SQLite file, or a URL.")],
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TO]", help="An empty database: a URL, or a file; the configured one unless given."),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures of the SQLite file, if it is not the folder `files` beside it."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Copy also if users have pictures that are missing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copies a whole database that nobody uses into an empty one, usually a SQLite file into PostgreSQL.

    Everything is copied in one transaction and then read back and compared, table by table; only if all is the same is
    it kept. Pictures go with it: they are files beside SQLite's database, and in PostgreSQL's itself. Stop the server
    first. What is copied is not changed.

    Example: offhook db copy offhook-data/offhook.db postgresql://offhook@db.example.com/offhook
    """
    from offhook.storage.copy import copy_database
    from offhook.storage.places import configured, place_of

    def tell(step: str, table: str) -> None:
        if not as_json:
            typer.echo(f"{step} {table}", err=True)

    with _failing(as_json):
        settings = load_settings()
        old = _named(place_of(source), settings, files)
        new = (
            configured(settings) if target is None else _named(place_of(target), settings, None if old.path else files)
        )
        with _unused(settings, [old, new]):
            copied = asyncio.run(copy_database(old, new, tell, allow_missing=allow_missing))
    if as_json:
        tables: list[JsonValue] = [
            {"table": each.table, "source": _content(each.source), "target": _content(each.target)} for each in copied
        ]
        print_json({"source": str(old), "target": str(new), "tables": tables})
    else:
        _show_copy(old, new, copied)


def _named(place: Place, settings: Settings, files: Path | None) -> Place:
    """A place with the folder of its files: the one that is given, or that of the settings if they mean this place."""
    from offhook.storage.places import configured

    own = configured(settings)
    if place.path is None:
        return place
    if files is None and own.path is not None and own.path.absolute() == place.path.absolute():
        files = own.folder
    return replace(place, folder=files)


@contextmanager
def _failing(as_json: bool) -> Iterator[None]:
    """Has whatever goes wrong end the command with one line."""
    from offhook.errors import OffhookError

    try:
        try:
            yield
        except OffhookError as error:
            raise failure_of(error.code, error.message) from error
        except OSError as error:
            raise Failure("unreachable", f"The database cannot be used: {error}", ExitCode.UNREACHABLE) from error
    except Failure as failure:
        raise failure.tell(as_json) from None


@contextmanager
def _unused(settings: Settings, places: Sequence[Place]) -> Iterator[None]:
    """Keeps servers from the data folders of SQLite files for as long as the context lasts. Raises Failure."""
    from offhook.cli.client import Holder
    from offhook.storage.lock import DataLock
    from offhook.storage.places import configured

    files = [place.path for place in places if place.path is not None]
    folders = {path.parent.absolute() for path in files if (path.parent / DataLock.FILE).exists()}
    if configured(settings).path in files and settings.data_dir.is_dir():
        folders.add(settings.data_dir.absolute())
    locks = [DataLock(folder) for folder in sorted(folders)]
    try:
        for lock in locks:
            if not lock.acquire():
                pid = Holder.of(lock).pid
                who = "Another process" if pid is None else f"Process {pid}"
                raise Failure("conflict", f"{who} uses {lock.path.parent}; stop it first")
        yield
    finally:
        for lock in locks:
            lock.release()


def _content(content: Content) -> JsonObject:
    return {"rows": content.rows, "checksum": content.checksum}


def _show_check(place: Place, checked: Checked) -> None:
    typer.echo(f"{place}, schema {checked.revision or 'none'}")
    for name in checked.checks:
        faults = [fault.text for fault in checked.faults if fault.check == name]
        level, colour = ("fail", "red") if faults else ("ok", "green")
        typer.secho(f"{level:<5}", fg=colour, nl=False)
        typer.echo(name)
        for text in faults:
            typer.echo(f"{'':<5}{text}")


def _show_copy(source: Place, target: Place, copied: Sequence[Copied]) -> None:
    rows = [
        (each.table, each.source.rows, each.source.checksum, each.target.rows, each.target.checksum) for each in copied
    ]
    columns = ("table", "rows copied", "checksum copied", "rows stored", "checksum stored")
    print_table(columns, rows, "There are no tables.")
    typer.echo(f"{target} has all that {source} has.")
