"""What ``offhook quickstart`` prints: a line for everything that happens, and a table at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from offhook.cli.output import print_table
from offhook.cli.quickstart.player import Line, Tally

if TYPE_CHECKING:
    from offhook.cli.quickstart.place import Place
    from offhook.domain.values import JsonObject

MARKS = {"step": "▸", "event": "·", "value": "=", "passed": "✓", "failed": "✗", "skipped": "-"}
"""How lines of each kind begin."""


class Report:
    """Prints what happens, as text or as JSON: one object a line.

    Args:
        as_json: print JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def place(self, place: Place) -> None:
        """Says which server it is."""
        if self._as_json:
            _json({"kind": "server", "url": place.url, "own": place.own})
        elif place.own:
            typer.echo(f"Started a server for this, with two users, at {place.url}; it is stopped at the end.")
        else:
            typer.echo(f"Playing against {place.url}.")

    def quickstart(self, name: str, title: str) -> None:
        """Says which quickstart begins."""
        if not self._as_json:
            typer.echo(f"\n{name}: {title}")

    def line(self, line: Line) -> None:
        """Prints a line."""
        if self._as_json:
            _json(line.json())
            return
        name = f"{line.name}: " if line.text else line.name
        # Both are shown on a terminal; what a server sends must not steer it.
        typer.echo(f"  {line.offset:7.3f} {MARKS[line.kind]} {plain(name + line.text)}")

    def stopped(self, place: Place) -> None:
        """Says that the command's own server is gone."""
        if place.own and not self._as_json:
            typer.echo("\nThe server is stopped, and its data deleted.")

    def summary(self, tallies: Sequence[Tally]) -> None:
        """Prints how the quickstarts went."""
        good = not any(tally.failed for tally in tallies)
        if self._as_json:
            _json({"kind": "summary", "passed": good, "quickstarts": [_counts(tally) for tally in tallies]})
            return
        typer.echo("")
        rows = [
            (
                tally.quickstart,
                "failed" if tally.failed else "passed",
                tally.passed,
                len(tally.failed),
                tally.skipped,
                tally.events,
                f"{tally.seconds:.2f}",
            )
            for tally in tallies
        ]
        print_table(("QUICKSTART", "RESULT", "PASSED", "FAILED", "SKIPPED", "EVENTS", "SECONDS"), rows, "Nothing.")
        for tally in tallies:
            for step, why in tally.failed.items():
                typer.echo(f"{tally.quickstart}, {plain(step)}: {plain(why)}")


def _counts(tally: Tally) -> JsonObject:
    return {
        "quickstart": tally.quickstart,
        "passed": tally.passed,
        "failed": dict(tally.failed),
        "skipped": tally.skipped,
        "events": tally.events,
        "seconds": round(tally.seconds, 3),
    }


def _json(value: JsonObject) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def plain(text: str) -> str:
    """A text on one line, without what would steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)
