"""What all commands share: running against the admin API, and showing the answer as JSON or for people."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from offhook.cli.config import load_settings
from offhook.cli.failures import ExitCode, Failure

if TYPE_CHECKING:
    from offhook.cli.client import AdminClient
    from offhook.domain.values import JsonObject, JsonValue
    from offhook.settings import Settings

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Page: TypeAlias = Annotated[int, typer.Option(min=0, help="Page of the list, from 0.")]
Size: TypeAlias = Annotated[int, typer.Option(min=1, max=500, help="Items a page.")]
DEFAULT_APPLICATION = "default"

PIPE_WIDTH = 240
"""Columns of a table that is read by no terminal."""


def run(
    work: Callable[[AdminClient], Awaitable[JsonObject]], show: Callable[[JsonObject], None], as_json: bool
) -> None:
    """Runs a command's work against the admin API and shows its answer.

    Args:
        work: asks the API.
        show: shows the answer to people.
        as_json: print the answer as it is instead.
    """
    try:
        answer = asyncio.run(_work(load_settings(), work))
    except Failure as failure:
        raise failure.tell(as_json) from None
    if as_json:
        print_json(answer)
    else:
        show(answer)


async def _work(settings: Settings, work: Callable[[AdminClient], Awaitable[JsonObject]]) -> JsonObject:
    from offhook.cli.client import open_admin

    async with open_admin(settings) as admin:
        return await work(admin)


def print_json(value: JsonObject) -> None:
    """Prints one JSON document."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def confirm(question: str, yes: bool) -> None:
    """Asks before something is lost - only a person at a terminal; scripts mean what they say."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)


def read_password(prompt: str | None) -> str:
    """A password from the first line of standard input, or typed twice if a prompt is given."""
    if prompt is not None:
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True))
    line = sys.stdin.buffer.readline()
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Failure("usage", "The password on standard input must be UTF-8", ExitCode.USAGE) from None
    if not text:
        raise Failure("usage", "There is no password on standard input", ExitCode.USAGE)
    return text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[JsonValue]], empty: str) -> None:
    """Prints a table, or a sentence if it has no rows."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    if not table.row_count:
        typer.echo(empty)
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)


def print_fields(fields: Iterable[tuple[str, JsonValue]]) -> None:
    """Prints names and values, one pair a line."""
    pairs = list(fields)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        typer.echo(f"{name:<{width}}  {cell(value)}")


def print_page(answer: JsonObject, what: str) -> None:
    """Says which part of a list was shown, unless it was all of it."""
    page = answer["page"]
    if isinstance(page, dict) and isinstance(page["pages"], int) and page["pages"] > 1:
        typer.echo(f"Page {page['number']} of 0-{page['pages'] - 1}; {page['total']} {what} in all.")


def cell(value: JsonValue) -> str:
    """A value as text for people."""
    match value:
        case None:
            return "-"
        case True:
            return "yes"
        case False:
            return "no"
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def objects(value: JsonValue) -> list[JsonObject]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def moment(value: JsonValue) -> str:
    """A timestamp of the API, to the second, for people."""
    return value[:19].replace("T", " ") if isinstance(value, str) else "-"
