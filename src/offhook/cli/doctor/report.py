"""Runs the checks and shows what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from offhook.cli.config import load_settings
from offhook.cli.doctor import broker, data, machine, network
from offhook.cli.doctor.findings import Finding, Level, fail, ok
from offhook.cli.failures import ExitCode, Failure
from offhook.cli.output import print_json

if TYPE_CHECKING:
    from offhook.domain.values import JsonValue
    from offhook.settings import Settings

MACHINE: tuple[Callable[[Settings], Iterable[Finding]], ...] = (
    machine.check_python,
    data.check_directory,
    data.check_space,
    data.check_database,
    broker.check_broker,
    data.check_secret,
    network.check_server,
    network.check_tls,
    network.check_turn,
    machine.check_clock,
    machine.check_open_files,
    data.check_functions,
)
"""The checks that need settings, in the order of the report."""

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


def examine(as_json: bool) -> int:
    """Runs every check and prints the findings.

    Returns:
        The exit code: REFUSED if something failed, else OK.
    """
    findings = list(_examine())
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        checks: list[JsonValue] = [
            {"check": f.check, "level": f.level.value, "text": f.text, "advice": f.advice} for f in findings
        ]
        print_json({"ok": not failed, "checks": checks})
    else:
        for finding in findings:
            typer.secho(f"{finding.level.value:<5}", fg=COLOURS[finding.level], nl=False)
            typer.echo(f"{finding.check:<12}{finding.text}")
            if finding.advice:
                typer.echo(f"{'':<17}-> {finding.advice}")
    return int(ExitCode.REFUSED if failed else ExitCode.OK)


def _examine() -> Iterator[Finding]:
    try:
        settings = load_settings()
    except Failure as failure:
        yield fail("settings", failure.message, "correct the setting; the others were not looked at")
        return
    yield ok("settings", "Every setting is of its form.")
    for check in MACHINE:
        yield from check(settings)
