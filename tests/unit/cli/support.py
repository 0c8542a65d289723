"""Running commands in this process, on a data directory of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from offhook.cli.main import app


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        """What it printed, as JSON."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


class Cli:
    """Runs commands."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._runner = CliRunner()

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Outcome:
        """Runs a command, whatever comes of it. A defect shows as the exception it is."""
        result = self._runner.invoke(app, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    def done(self, *arguments: str, stdin: str | None = None) -> dict[str, object]:
        """Runs a command with ``--json`` that must succeed, and returns what it printed."""
        outcome = self(*arguments, "--json", stdin=stdin)
        assert outcome.code == 0, outcome.err
        return outcome.json
