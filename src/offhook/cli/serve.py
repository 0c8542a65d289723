"""``offhook serve``: from flags to a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from offhook.cli.config import load_settings
from offhook.cli.failures import ExitCode, Failure, failure_of
from offhook.errors import OffhookError


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
    if workers != 1:
        message = (
            f"--workers {workers}: more than one process needs PostgreSQL and Redis, which this version does not have; "
            "one process serves many thousand connections"
        )
        raise Failure("usage", message, ExitCode.USAGE)
    settings = load_settings(flags, config)
    passwords: Mapping[str, str] = {}
    if demo:
        from offhook.cli.demo import demo_users

        passwords = asyncio.run(demo_users(settings))

    from offhook import app
    from offhook.cli.banner import print_banner, summary
    from offhook.cli.output import print_json

    def announce(info: app.ServeInfo) -> None:
        if as_json:
            print_json(summary(info, passwords))
        else:
            print_banner(info, passwords)

    try:
        app.serve(settings, announce)
    except OffhookError as error:
        raise failure_of(error.code, error.message) from error
    except OSError as error:
        raise Failure("unreachable", f"The server cannot start: {error}", ExitCode.UNREACHABLE) from error
