"""``offhook serve``: from flags to a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from offhook.cli.config import load_settings
from offhook.cli.failures import ExitCode, Failure, failure_of
from offhook.errors import OffhookError

if TYPE_CHECKING:
    from offhook.settings import Settings


def serve(flags: Mapping[str, object], config: Path | None, workers: int, demo: bool, as_json: bool = False) -> None:
    """Serves until it is told to stop.

    Args:
        flags: settings given as flags; None where a flag was not given.
        config: the configuration file, if a flag names one.
        workers: number of processes.
        demo: whether to make the demo users first.
        as_json: print what is served as one JSON document instead of text.

    Raises:
        Failure: it cannot start.
    """
    if workers < 1:
        raise Failure("usage", f"--workers {workers}: at least one process has to serve", ExitCode.USAGE)
    settings = load_settings(flags, config)
    if workers > 1:
        from offhook.cli.supervise import check_shareable

        check_shareable(settings, workers)
    passwords: Mapping[str, str] = {}
    if demo:
        from offhook.cli.demo import demo_users

        passwords = asyncio.run(demo_users(settings))
    try:
        if workers == 1:
            _serve_alone(settings, passwords, as_json)
        else:
            from offhook.cli.supervise import supervise

            supervise(settings, lambda: load_settings(flags, config), workers, passwords, as_json)
    except OffhookError as error:
        raise failure_of(error.code, error.message) from error
    except OSError as error:
        raise Failure("unreachable", f"The server cannot start: {error}", ExitCode.UNREACHABLE) from error


def _serve_alone(settings: Settings, passwords: Mapping[str, str], as_json: bool) -> None:
    from offhook import app
    from offhook.cli.banner import text

    app.serve(settings, lambda info: typer.echo(text(info, passwords, as_json)))
