"""A PostgreSQL database: whether it is there, fit to be used, and set up to keep what it is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offhook.cli.doctor.findings import Finding, fail, ok, warn
from offhook.errors import OffhookError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from offhook.settings import Settings
    from offhook.storage.places import Place

CLOCK_ROUNDS = 7
"""How often the database is asked for the time; the quickest answer counts."""
CLOCK_OFFSET = 1.0
"""Seconds by which this machine's clock may differ from the database's."""
SLOW = 0.02
"""Seconds of a round trip above which there is a warning: a session's start takes several."""
PROCESSES = 2
"""Processes for which there must be connections: while one is replaced, there are two."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a PostgreSQL server says of itself.

    Attributes:
        version: e.g. ``15.4``.
        revision: of Offhook's schema; None if the database is empty.
        settings: values of the settings that matter, by name.
        standby: whether it takes no changes.
        others: connections that are not this system's, on all databases.
        nodes: nodes of Offhook that have a lease now.
        offset: how much later it is here than there, in seconds.
        round_trip: seconds that the quickest answer took.
    """

    version: str
    revision: str | None
    settings: dict[str, str]
    standby: bool
    others: int
    nodes: int
    offset: float
    round_trip: float


_SETTINGS = (
    "max_connections",
    "superuser_reserved_connections",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "server_version",
)
# What kind a connection of another user is, only users with special rights may know; whose it is, all.
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
AND (coalesce(application_name, '') NOT LIKE 'offhook%' OR datname <> current_database())"""
_NODES = """
SELECT count(*) FROM leases
WHERE name LIKE 'node.%' AND expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"""


def check_postgres(settings: Settings) -> Iterator[Finding]:
    """The PostgreSQL database that the settings name."""
    from offhook.storage.places import at, configured

    try:
        place = configured(settings)
        facts = asyncio.run(at(lambda: _ask(place)))
    except OffhookError as error:
        yield fail(
            "database", f"{error.message.rstrip('.')}.", "see database_url, and whether the server lets this machine in"
        )
        return
    yield from _schema(place, facts)
    yield from _durability(facts)
    yield from _room(settings, facts)
    yield from _clock(facts)


def _ask(place: Place) -> Facts:
    from sqlalchemy import text

    from offhook.storage.migrate import stored_revision
    from offhook.storage.places import opened

    with opened(place) as connection:
        revision = stored_revision(connection)
        values = {name: str(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in _SETTINGS}
        return Facts(
            values["server_version"].partition(" ")[0],
            revision,
            values,
            bool(connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one()),
            int(connection.execute(text(_OTHERS)).scalar_one()),
            0 if revision is None else int(connection.execute(text(_NODES)).scalar_one()),
            *_compare_clocks(connection),
        )


def _compare_clocks(connection: Connection) -> tuple[float, float]:
    """How much later it is here than there, and how long the quickest answer took, in seconds."""
    from sqlalchemy import text

    rounds = []
    for _ in range(CLOCK_ROUNDS):
        begun, steady = time.time(), time.monotonic()
        there = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        taken = time.monotonic() - steady
        rounds.append((taken, begun + taken / 2 - there))
    taken, offset = min(rounds)
    return offset, taken


def _schema(place: Place, facts: Facts) -> Iterator[Finding]:
    from offhook.storage.migrate import REVISION

    where = f"{place} (PostgreSQL {facts.version}, {facts.round_trip * 1000:.1f} ms away)"
    if facts.standby:
        yield fail("database", f"{where} is a standby and takes no changes.", "name the primary in database_url")
    elif facts.revision is None:
        yield ok("database", f"{where} is empty; the first start makes its tables.")
    elif facts.revision != REVISION:
        text = f"{where} is of version {facts.revision}, this program of {REVISION}."
        yield warn("database", text, "offhook db upgrade updates an older one; a newer one needs a newer Offhook")
    elif facts.round_trip > SLOW:
        yield warn("database", f"{where} is of this version.", "have servers and database nearer to each other")
    else:
        yield ok("database", f"{where} is of this version ({facts.revision}).")


def _durability(facts: Facts) -> Iterator[Finding]:
    for name in ("fsync", "full_page_writes"):
        if facts.settings[name] != "on":
            text = f"The server's setting {name} is {facts.settings[name]}: a power cut may destroy the database."
            yield fail("durability", text, f"set {name} = on in postgresql.conf")
            return
    if facts.settings["synchronous_commit"] in ("off", "local"):
        text = f"The server's synchronous_commit is {facts.settings['synchronous_commit']}; Offhook's own is on."
        yield ok("durability", text)
    else:
        yield ok("durability", "What is acknowledged is on the server's disk.")


def _room(settings: Settings, facts: Facts) -> Iterator[Finding]:
    most = int(facts.settings["max_connections"]) - int(facts.settings["superuser_reserved_connections"])
    room = (most - facts.others) // settings.database_pool
    need = max(facts.nodes + 1, PROCESSES)
    text = (
        f"The server has room for {max(0, room)} processes of {settings.database_pool} connections each "
        f"(max_connections {facts.settings['max_connections']}, {facts.others} used by others); "
        f"{facts.nodes} are running."
    )
    if room >= need:
        yield ok("connections", text)
    else:
        # One more than run: a process that is replaced overlaps with its successor.
        way = f"raise max_connections so that there is room for {need}, or lower database_pool"
        yield (fail if room < 1 else warn)("connections", text, way)


def _clock(facts: Facts) -> Iterator[Finding]:
    uncertain = facts.round_trip / 2
    text = f"This machine's clock is {facts.offset:+.3f} s from the database's, within {uncertain:.3f} s."
    if abs(facts.offset) - uncertain > CLOCK_OFFSET:
        advice = "let NTP keep both; sessions go by the database's clock, but certificates and tokens by this one"
        yield warn("clock", text, advice)
    else:
        yield ok("clock", text)
