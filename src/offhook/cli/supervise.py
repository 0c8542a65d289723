"""``offhook serve --workers N``: several processes on the same ports, as one service."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import typer

from offhook.cli.failures import ExitCode, Failure
from offhook.errors import InvalidInput
from offhook.server.binding import Slot, bind_slots
from offhook.server.logs import configure_logging
from offhook.server.supervisor import Patience, Supervisor
from offhook.server.workers import Worker, WorkerFailed
from offhook.settings import Settings
from offhook.storage.lock import DataLock, note

COMMAND = (sys.executable, "-P", "-m", "offhook.cli.worker")
"""The program that a worker is. It imports nothing from the working directory, as the program ``offhook`` does not."""
STOP_MARGIN = 20.0
"""Seconds beyond the drain in which a worker that stops must have ended."""
PORT_PATIENCE = 5.0
"""Seconds that the workers of a supervisor which was killed have to leave their ports."""
FIXED = frozenset(
    {
        "host",
        "port",
        "tls_port",
        "metrics_port",
        "data_dir",
        "database_url",
        "broker_url",
        "broker_prefix",
        "secret_key",
        "drain_seconds",
    }
)
"""Settings that cannot change while the workers are replaced one by one: all of them share what these name, and the
supervisor gives each its time to leave."""


class Brief(msgspec.Struct, frozen=True):
    """What a worker is told besides its sockets.

    Attributes:
        settings: all of them, as JSON.
        passwords: demo users' names → passwords, for the announcement.
        as_json: the announcement's form.
    """

    settings: str
    passwords: Mapping[str, str]
    as_json: bool


def supervise(
    settings: Settings,
    read: Callable[[], Settings],
    workers: int,
    passwords: Mapping[str, str],
    as_json: bool,
    command: Sequence[str] = COMMAND,
) -> None:
    """Serves from several processes until told to stop.

    Args:
        settings: all of them.
        read: reads them anew. May raise Failure.
        workers: how many processes serve.
        passwords: demo users' names → passwords, to be announced.
        as_json: announce what is served as one JSON document instead of text.
        command: the program that serves.

    Raises:
        Failure: it cannot start, or not go on.
        OSError: the data folder cannot be used.
    """
    configure_logging(settings.log_level, settings.log_format)
    lock = DataLock(settings.data_dir)
    left_behind = lock.read()
    if not lock.acquire():
        raise Failure("conflict", f"Another Offhook uses the data folder {settings.data_dir}")
    try:
        supervisor = Supervisor(
            _slots(settings, workers, patient=bool(left_behind)),
            command,
            _brief(settings, passwords, as_json),
            reload=lambda: _brief(reread(settings, read), passwords, as_json),
            started=_announce,
            changed=lambda serving: lock.write(_note(serving)),
            patience=Patience(stop=settings.drain_seconds + STOP_MARGIN),
        )
        asyncio.run(supervisor.run())
    except InvalidInput as error:
        raise Failure(error.code, error.message) from error
    except WorkerFailed as error:
        raise Failure(error.reason, error.message, _exit_code(error.exit_code)) from error
    finally:
        lock.release()


def check_shareable(settings: Settings, workers: int) -> None:
    """Refuses several processes on what only one can use.

    Raises:
        Failure: the database or the broker is such.
    """
    unfit = [
        f"{name} (now {value.partition(':')[0]})"
        for name, value, alone in (
            ("database_url", settings.database_url or "sqlite", "sqlite"),
            ("broker_url", settings.broker_url, "memory"),
        )
        if value.partition(":")[0] == alone
    ]
    if unfit:
        message = (
            f"--workers {workers}: several processes need PostgreSQL and Redis; set database_url to postgresql://… and "
            f"broker_url to redis://…: {' and '.join(unfit)} serve{'' if len(unfit) > 1 else 's'} one process only"
        )
        raise Failure("usage", message, ExitCode.USAGE)


def _slots(settings: Settings, workers: int, patient: bool) -> list[Slot]:
    """Binds the ports; waits for those that workers of a supervisor which was killed may still have."""
    deadline = time.monotonic() + (PORT_PATIENCE if patient else 0.0)
    while True:
        try:
            return bind_slots(settings, workers)
        except InvalidInput:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def _brief(settings: Settings, passwords: Mapping[str, str], as_json: bool) -> str:
    return msgspec.json.encode(Brief(settings.model_dump_json(), passwords, as_json)).decode()


def reread(settings: Settings, read: Callable[[], Settings]) -> Settings:
    """Reads the settings for workers that replace others one by one.

    Args:
        settings: those of the start.
        read: reads them anew. May raise Failure.

    Raises:
        InvalidInput: they cannot be read, or workers with them cannot serve beside workers with the former ones.
    """
    try:
        new = read()
    except Failure as failure:
        raise InvalidInput(failure.message) from failure
    fixed = [name for name in sorted(FIXED) if getattr(new, name) != getattr(settings, name)]
    if new.tls != settings.tls:
        fixed.append("tls")
    if fixed:
        raise InvalidInput(f"{', '.join(fixed)} changed, which takes effect at the next start only", fixed[0])
    configure_logging(new.log_level, new.log_format)
    return new


def _note(serving: Sequence[Worker]) -> bytes:
    reports = [worker.report for worker in serving if worker.report is not None]
    return note(os.getpid(), reports[0].urls if reports else (), [report.node for report in reports])


def _announce(serving: Sequence[Worker]) -> None:
    """Says what is served. All workers have the same to say."""
    if serving and serving[0].report is not None:
        typer.echo(serving[0].report.announcement)


def _exit_code(code: int) -> ExitCode:
    return ExitCode(code) if code in tuple(ExitCode) and code else ExitCode.REFUSED
