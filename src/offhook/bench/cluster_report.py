"""The section of the report on several processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict

from offhook.bench.cluster import ALONE, BESIDE, SHARING, TWO, Outcome
from offhook.bench.cluster_works import MESSAGE, PRESENCE, RESUME, START

MIN_CAPACITY = 1.7
MAX_START = 1.5
KINDS = (START, RESUME, MESSAGE, PRESENCE)
MICRO, MILLI, KIB = 1e6, 1e3, 1024.0


def capacity(outcome: Outcome, kind: str) -> float:
    """Events a second that a system's processes could take if each had a core of its own, and nothing else held it up.

    Args:
        outcome: what the system needed.
        kind: of the events.
    """
    return outcome.processes / outcome.each[kind].offhook


def gain(outcomes: Mapping[str, Outcome], kind: str, to: str = BESIDE) -> float:
    """The capacity of two processes by that of one, both on PostgreSQL and Redis.

    Args:
        outcomes: what each system needed.
        kind: of the events.
        to: which system has the one process; by default one that is as disturbed as each of the two.
    """
    return capacity(outcomes[TWO], kind) / capacity(outcomes[to], kind)


def start_ratio(outcomes: Mapping[str, Outcome], to: str = SHARING) -> float:
    """What a session start costs two processes by what it costs one that is undisturbed; arguments as for ``gain``."""
    return outcomes[TWO].each[START].offhook / outcomes[to].each[START].offhook


def cluster_text(outcomes: Mapping[str, Outcome]) -> str:
    """The section as text."""
    rows: list[tuple[str, ...]] = [("CLUSTER", "PROCESSES", "OFFHOOK", "POSTGRESQL", "REDIS", "REACHED", "CAPACITY")]
    for kind in KINDS:
        for name, outcome in outcomes.items():
            spent = outcome.each[kind]
            used = [_micro(part) for part in (spent.offhook, spent.postgresql, spent.redis)]
            rows.append((kind, name, *used, f"{1 / spent.seconds:.0f}/s", f"{capacity(outcome, kind):.0f}/s"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", *_verdicts(outcomes), "", *_times(outcomes), "", *_reading()]
    return "\n".join(lines)


def cluster_document(outcomes: Mapping[str, Outcome]) -> dict[str, object]:
    """The section for JSON. Times are in seconds, memory in bytes."""
    return {
        "systems": {name: asdict(outcome) for name, outcome in outcomes.items()},
        "capacity_two_to_one": {kind: gain(outcomes, kind) for kind in KINDS},
        "capacity_two_to_one_undisturbed": {kind: gain(outcomes, kind, SHARING) for kind in KINDS},
        "min_capacity_two_to_one": MIN_CAPACITY,
        "start_two_to_one": start_ratio(outcomes),
        "max_start_two_to_one": MAX_START,
        "cores": os.cpu_count(),
    }


def _verdicts(outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = []
    for kind in KINDS:
        value = gain(outcomes, kind)
        met = "yes" if value >= MIN_CAPACITY else "no"
        lines.append(
            f"capacity of two processes to one, {kind}: {value:.2f}x"
            f"  target at least {MIN_CAPACITY:g}x  {met}  (to one undisturbed: {gain(outcomes, kind, SHARING):.2f}x)"
        )
    value = start_ratio(outcomes)
    met = "yes" if value <= MAX_START else "no"
    lines.append(
        f"CPU of a session start, two processes to one: {value:.2f}x"
        f"  target at most {MAX_START:g}x  {met}  (to one beside another: {start_ratio(outcomes, BESIDE):.2f}x,"
        f" to one on SQLite: {start_ratio(outcomes, ALONE):.2f}x)"
    )
    return lines


def _times(outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = []
    quiet = {name: outcome for name, outcome in outcomes.items() if name != BESIDE}
    for name, outcome in quiet.items():
        ways = [("a client of the same process", outcome.near)]
        if outcome.far is not None:
            ways.append(("a client of the other process", outcome.far))
        lines += [
            f"message to {where}, {name}: {latency.typical * MILLI:.1f} ms median, {latency.worst * MILLI:.1f} ms p99"
            for where, latency in ways
        ]
    lines += [f"idle session, {name}: {outcome.memory / KIB:.1f} KiB" for name, outcome in quiet.items()]
    return lines


def _reading() -> list[str]:
    return [
        "OFFHOOK, POSTGRESQL and REDIS are microseconds of CPU for each event, OFFHOOK of all its processes together.",
        f"REACHED says little: the clients, PostgreSQL and Redis share this machine's {os.cpu_count()} cores with what",
        "is measured, so that two processes have hardly more of them than one. CAPACITY is processes / CPU per event:",
        "what they could take with a core each, and PostgreSQL, Redis and the clients on cores of their own.",
        "Processes that work at the same time slow each other down, even those of separate systems: beside another,",
        "one works while another, of a separate system, does the same. Capacity is judged by that one, which has as",
        "much of the machine as each of the two; a start by one undisturbed. A capacity of more than twice that of one",
        "says that other programs disturbed the run.",
    ]


def _micro(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * MICRO:.0f}"
