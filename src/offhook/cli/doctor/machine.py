"""The machine: Python, clock, limits."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import offhook
from offhook.cli.doctor.findings import Finding, fail, ok, warn

if TYPE_CHECKING:
    from offhook.settings import Settings

CLOCK_TEST = 0.2
"""Seconds for which the two clocks are compared."""
CLOCK_DRIFT = 0.05
"""Seconds by which they may differ after that."""
SPARE_FILES = 200
"""Open files a server needs besides its connections."""


def versions() -> list[tuple[str, str]]:
    """Names and versions of Offhook and what it runs on."""
    packages = [(name, _version(name)) for name in ("uvloop", "uvicorn", "starlette", "sqlalchemy")]
    return [
        ("offhook", offhook.__version__),
        ("python", platform.python_version()),
        ("platform", platform.platform()),
        *packages,
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def check_python(settings: Settings) -> Iterator[Finding]:
    """Python and the event loop."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    if _version("uvloop") == "not installed":
        yield warn("python", f"{python} without uvloop.", "install uvloop: the server is much faster with it")
    else:
        yield ok("python", f"{python} with uvloop {_version('uvloop')}; Offhook {offhook.__version__}.")


def check_clock(settings: Settings) -> Iterator[Finding]:
    """The clock of day: whether it runs steadily and lies after what it wrote before."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(CLOCK_TEST)
    drift = abs((time.time() - wall) - (time.monotonic() - steady))
    now = datetime.now(UTC)
    database = settings.sqlite_path
    advice = "set the clock and let NTP keep it; tokens and session times depend on it"
    if drift > CLOCK_DRIFT:
        yield fail("clock", f"The clock jumped by {drift:.3f} s while it was watched.", advice)
    elif database.exists() and database.stat().st_mtime > time.time() + 1:
        yield fail("clock", "The clock lies before the last change of the database.", advice)
    else:
        text = f"It is {now:%Y-%m-%d %H:%M:%S} UTC and the clock runs steadily; no time server was asked."
        yield ok("clock", text)


def check_open_files(settings: Settings) -> Iterator[Finding]:
    """The limit on open files: each connection is one, and each process has its own limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = SPARE_FILES + (settings.database_pool if settings.database_url else 0)
    needed = settings.max_connections + spare
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield ok("open files", f"The limit is enough for {settings.max_connections} connections.")
        return
    text = f"The limit of {soft} open files is too low for {settings.max_connections} connections."
    way = f"ulimit -n {needed}" if hard == resource.RLIM_INFINITY or hard >= needed else "LimitNOFILE= of its service"
    yield warn("open files", text, f"raise it ({way}), or lower max_connections to {max(1, soft - spare)}")
