"""Runs all measurements and reports them."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from offhook.bench import cluster_works, figures, kandy_figures, sdk_figures
from offhook.bench.client import LoadFailed
from offhook.bench.cluster import Outcome, measure_cluster
from offhook.bench.cluster_report import cluster_document, cluster_text
from offhook.bench.cluster_works import ClusterSizes
from offhook.bench.figures import QUICK, TOGETHER, Sizes
from offhook.bench.processes import RunningFloor, running_floor, running_server
from offhook.bench.seed import Seeded, seed
from offhook.bench.shared import Servers, ServersMissing

MAX_START = 600.0
MAX_DELIVERY = 1.6
MAX_TOGETHER = 0.6
MAX_SESSION = 24.0
MAX_RELAY = 50.0
MAX_SUBSCRIPTION = 900.0
MAX_NOTIFICATION = 2.0
MAX_SUBSCRIBED = 20.0
MAX_CLIENT = 60.0
MAX_CLIENT_EVENT = 2.0
MICRO, MILLI, KIB = 1e6, 1e3, 1024.0
CHATKITTY, KANDY, SDK, CLUSTER = "chatkitty", "kandy", "sdk", "cluster"
SECTIONS = (CHATKITTY, KANDY, SDK, CLUSTER)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    Attributes:
        name: what was measured.
        value: in ``unit``.
        unit: of ``value`` and ``floor``.
        floor: what the bare server needed in the same run, if there is such a thing.
        target: what must not be exceeded, if anything: by the ratio if ``relative``, else by the value.
        relative: see ``target``.
        base: what the ratio is to, where it is not the floor.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    target: float | None = None
    relative: bool = False
    base: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value by the base, or the floor."""
        below = self.base if self.base is not None else self.floor
        return None if not below else self.value / below

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        judged = self.ratio if self.relative else self.value
        return None if self.target is None or judged is None else judged <= self.target


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured.

    Attributes:
        figures: of one process.
        cluster: of several processes; None if it was not measured.
        note: why it was not, if it should have been.
    """

    figures: Sequence[Figure]
    cluster: Mapping[str, Outcome] | None = None
    note: str | None = None


async def measure(sizes: Sizes, data_dir: Path, sections: Collection[str] = SECTIONS) -> list[Figure]:
    """Runs all measurements of one process.

    Args:
        sizes: how much of each.
        data_dir: an empty folder.
        sections: which of them.

    Raises:
        LoadFailed: a server or a client did not do what it should.
    """
    parts = [(CHATKITTY, _chatkitty), (KANDY, _kandy), (SDK, _sdk)]
    chosen = [part for name, part in parts if name in sections]
    if not chosen:
        return []
    users = max(sizes.sessions, sizes.receivers, sizes.idle, sizes.idle_tls)
    users = max(users, sizes.clients // 2 + sdk_figures.WARM)
    subscribers = max(sizes.sessions, sizes.receivers + 3, sizes.idle, sizes.clients // 2 + sdk_figures.WARM + 2)
    seeded = await seed(data_dir, users, max(sizes.logins, TOGETHER + 1), subscribers)
    async with running_floor() as floor:
        return [figure for part in chosen for figure in await part(floor, seeded, sizes, data_dir)]


async def measure_all(
    sizes: Sizes, cluster_sizes: ClusterSizes, servers: Servers, folder: Path, sections: Collection[str] = SECTIONS
) -> Report:
    """Runs all measurements, those of several processes only where there are PostgreSQL and Redis.

    Args:
        sizes: how much of what one process does.
        cluster_sizes: how much of what several do.
        servers: PostgreSQL and Redis.
        folder: an empty one.
        sections: which of them.

    Raises:
        LoadFailed: a server or a client did not do what it should.
    """
    figures = await measure(sizes, folder / "data", sections)
    if CLUSTER not in sections:
        return Report(figures)
    try:
        return Report(figures, await measure_cluster(cluster_sizes, servers, folder / "cluster"))
    except ServersMissing as error:
        return Report(figures, note=f"Cluster: left out, {error}.")


async def _chatkitty(floor: RunningFloor, seeded: Seeded, sizes: Sizes, data_dir: Path) -> list[Figure]:
    async with running_server(data_dir) as server:
        fan = await figures.fan_out(server, floor, seeded, sizes)
    async with running_server(data_dir) as server:
        start = await figures.session_start(server, seeded, sizes)
        bare_start = await figures.handshake_floor(floor, sizes)
        peace, busy, relays = await figures.relay_latency(server, seeded, sizes)
        start_tls = await figures.session_start(server, seeded, sizes, tls=True)
    async with running_server(data_dir) as server:
        weight = await figures.memory(server, seeded, sizes.idle)
    async with running_server(data_dir) as server:
        weight_tls = await figures.memory(server, seeded, sizes.idle_tls, tls=True)
    each = f"1 to {sizes.receivers}"
    return [
        Figure("session start", start * MICRO, "us CPU", bare_start * MICRO, MAX_START),
        Figure("session start, TLS", start_tls * MICRO, "us CPU"),
        Figure(f"delivery, {each}", fan.single * MICRO, "us CPU", fan.floor * MICRO, MAX_DELIVERY, relative=True),
        Figure(f"delivery, {each}, clients ACK", fan.acked * MICRO, "us CPU", fan.floor * MICRO),
        Figure(
            f"delivery, {each}, {TOGETHER} together (batches of {fan.batch:.1f})",
            fan.together * MICRO,
            "us CPU",
            fan.floor_together * MICRO,
            MAX_TOGETHER,
            relative=True,
            base=fan.single * MICRO,
        ),
        Figure(f"idle session, {sizes.idle} of them", weight / KIB, "KiB", target=MAX_SESSION),
        Figure(f"idle session, {sizes.idle_tls} of them, TLS", weight_tls / KIB, "KiB"),
        Figure("relay p99, nobody logs in", peace * MILLI, "ms"),
        Figure(f"relay p99, {sizes.logins} log in ({relays} relays)", busy * MILLI, "ms", target=MAX_RELAY),
    ]


async def _kandy(floor: RunningFloor, seeded: Seeded, sizes: Sizes, data_dir: Path) -> list[Figure]:
    async with running_server(data_dir) as server:
        start = await kandy_figures.subscription_start(server, seeded, sizes)
        bare_start = await kandy_figures.two_handshakes_floor(floor, sizes)
    async with running_server(data_dir) as server:
        told = await kandy_figures.notifications(server, floor, seeded, sizes)
    async with running_server(data_dir) as server:
        weight = await kandy_figures.memory(server, seeded, sizes.idle)
    return [
        Figure("subscription and socket", start * MICRO, "us CPU", bare_start * MICRO, MAX_SUBSCRIPTION),
        Figure("message to one client, request and all", told.message * MICRO, "us CPU", told.message_floor * MICRO),
        Figure(
            "message, each further client",
            told.device * MICRO,
            "us CPU",
            told.device_floor * MICRO,
            MAX_NOTIFICATION,
            relative=True,
        ),
        Figure(
            f"presence, 1 to {sizes.receivers} watchers",
            told.presence * MICRO,
            "us CPU",
            told.presence_floor * MICRO,
            MAX_NOTIFICATION,
            relative=True,
        ),
        Figure(f"idle subscription, {sizes.idle} of them", weight / KIB, "KiB", target=MAX_SUBSCRIBED),
    ]


async def _sdk(floor: RunningFloor, seeded: Seeded, sizes: Sizes, data_dir: Path) -> list[Figure]:
    """The Python SDK: what its clients cost the process that runs them."""
    async with running_server(data_dir) as server:
        kinds = await sdk_figures.clients(server, floor, seeded, sizes)
    section = []
    for kind, cost in kinds.items():
        each = f"Python SDK, {sizes.clients // 2} {kind} clients"
        section += [
            Figure(f"{each}: start", cost.start * MICRO, "us CPU", cost.bare_start * MICRO),
            Figure(
                f"{each}: event",
                cost.event * MICRO,
                "us CPU",
                cost.bare_event * MICRO,
                MAX_CLIENT_EVENT,
                relative=True,
            ),
            Figure(f"{each}: idle", cost.memory / KIB, "KiB", cost.bare_memory / KIB, MAX_CLIENT),
        ]
    return section


def table(figures: Sequence[Figure]) -> str:
    """The figures as text."""
    rows = [("FIGURE", "VALUE", "FLOOR", "RATIO", "TARGET", "MET")]
    for figure in figures:
        target = "" if figure.target is None else f"{figure.target:g}{'x' if figure.relative else f' {figure.unit}'}"
        rows.append(
            (
                figure.name,
                f"{figure.value:.1f} {figure.unit}",
                "" if figure.floor is None else f"{figure.floor:.1f}",
                "" if figure.ratio is None else f"{figure.ratio:.2f}x",
                target,
                {None: "", True: "yes", False: "no"}[figure.met],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def text(report: Report, seconds: float) -> str:
    """What was measured, as text."""
    parts = [table(report.figures)] if report.figures else []
    if report.cluster is not None:
        parts.append(cluster_text(report.cluster))
    if report.note is not None:
        parts.append(report.note)
    return "\n\n".join([*parts, f"Measured in {seconds:.0f} s."])


def document(report: Report, seconds: float) -> str:
    """What was measured, as JSON."""
    lines = [{**asdict(figure), "ratio": figure.ratio, "met": figure.met} for figure in report.figures]
    several = None if report.cluster is None else cluster_document(report.cluster)
    parts = {"figures": lines, "cluster": several, "note": report.note, "seconds": round(seconds, 1)}
    return jsonlib.dumps(parts, indent=2)


def run(
    quick: bool = False,
    json: bool = False,
    servers: Servers | None = None,
    sections: Collection[str] = SECTIONS,
) -> int:
    """Measures this machine and prints the figures.

    Args:
        quick: fewer sessions and events; the figures are rougher.
        json: print JSON instead of a table.
        servers: PostgreSQL and Redis for the section on several processes; those of this machine unless given.
        sections: what is measured.

    Returns:
        0 if it could be measured, whatever the figures are; 1 if not, with the reason on standard error.
    """
    import uvloop

    began = time.monotonic()
    sizes = (QUICK, cluster_works.QUICK) if quick else (Sizes(), ClusterSizes())
    try:
        with tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder:
            report = uvloop.run(measure_all(*sizes, servers or Servers(), Path(folder), sections))
    except LoadFailed as error:
        sys.stderr.write(f"offhook bench: {error}\n")
        return 1
    seconds = time.monotonic() - began
    sys.stdout.write(f"{document(report, seconds) if json else text(report, seconds)}\n")
    return 0
