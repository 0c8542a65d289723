"""How a command fails: with one readable line and an exit code that scripts can rely on."""

from __future__ import annotations

import json
from enum import IntEnum

import typer

CLI_MODULES = frozenset({"click", "prompt_toolkit", "rich", "typer"})
"""What comes with ``offhook[cli]``; whatever else a command misses comes with ``offhook[server]``."""


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    REFUSED = 1
    """The command was understood and refused, or a check failed."""
    USAGE = 2
    """The command or a setting was wrong."""
    NOT_FOUND = 3
    """What the command names does not exist."""
    UNREACHABLE = 4
    """The server or its database could not be reached."""


class Failure(Exception):
    """A command cannot do what it was asked.

    Args:
        code: stable name of the kind of failure.
        message: one sentence for people.
        exit_code: what the process exits with.
        field: the name of the offending value, if there is one.
    """

    def __init__(
        self, code: str, message: str, exit_code: ExitCode = ExitCode.REFUSED, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.exit_code = exit_code
        self.field = field

    def tell(self, as_json: bool) -> typer.Exit:
        """Writes the failure to stderr and returns what to raise."""
        if as_json:
            body = {"error": self.code, "message": self.message}
            if self.field is not None:
                body["field"] = self.field
            typer.echo(json.dumps(body, ensure_ascii=False), err=True)
        else:
            typer.echo(f"offhook: {self.message}", err=True)
        return typer.Exit(int(self.exit_code))


EXIT_CODES = {"not_found": ExitCode.NOT_FOUND, "unavailable": ExitCode.UNREACHABLE}
"""OffhookError.code → exit code, where it is not REFUSED."""


def failure_of(code: str, message: str, field: str | None = None) -> Failure:
    """The failure for an error of the admin API."""
    return Failure(code, message, EXIT_CODES.get(code, ExitCode.REFUSED), field)


def unexpected(error: Exception) -> Failure:
    """What to say of an error that no command expects."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    package = (missing or "offhook").partition(".")[0]
    if package == "offhook":
        return Failure("internal", f"Something went wrong: {type(error).__name__}: {error}")
    extra = "cli" if package in CLI_MODULES else "server"
    text = f'This command needs {package}, which is not installed: pip install "offhook[{extra}]"'
    return Failure("not_installed", text, ExitCode.USAGE)
