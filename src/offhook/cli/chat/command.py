"""The command ``offhook chat``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from offhook.cli.chat.room import Chatter, Room, Screen, told
from offhook.cli.chat.terminal import Lines, PipedLines, TypedLines, at_terminal, each, showing
from offhook.cli.failures import ExitCode, Failure
from offhook.cli.quickstart.place import API_KEY, DEFAULT_URL, NO_PATH, Person, Place, checked_ca, checked_url, known
from offhook.cli.quickstart.report import plain
from offhook.cli.quickstart.signals import cancel_on_signals
from offhook.errors import OffhookError

if TYPE_CHECKING:
    from offhook.client.transport import Transport

ChatProtocol = Literal["chatkitty", "link", "uc"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says.

    Attributes:
        username: who chats.
        protocol: how.
        url: of the server.
        api_key: of its application, for ChatKitty.
        ca_file: PEM file with the server's authority.
        password_stdin: whether the first line of standard input is the password.
        guest: come without a password, which only ChatKitty knows.
        to: whom messages go to at first.
    """

    username: str
    protocol: ChatProtocol = "link"
    url: str = DEFAULT_URL
    api_key: str | None = None
    ca_file: Path | None = None
    password_stdin: bool = False
    guest: bool = False
    to: str | None = None


def chat(wanted: Wanted) -> ExitCode:
    """Chats until the user leaves.

    Returns:
        OK if the user left, REFUSED if the server ended it.

    Raises:
        Failure: it cannot begin.
    """
    if wanted.guest and (wanted.protocol != "chatkitty" or wanted.password_stdin):
        message = "--guest is for --protocol chatkitty, and without a password"
        raise Failure("usage", message, ExitCode.USAGE, "guest")
    place = Place(checked_url(wanted.url), wanted.api_key, checked_ca(wanted.ca_file))
    if place.below and wanted.protocol != "chatkitty":
        raise Failure("usage", NO_PATH, ExitCode.USAGE, "url")
    piped = PipedLines(sys.stdin.buffer)
    person = Person(wanted.username, _password(wanted, piped))
    typed = at_terminal()
    try:
        return asyncio.run(_chat(wanted, place, person, TypedLines() if typed else piped, typed))
    except KeyboardInterrupt:
        return ExitCode.OK
    except asyncio.CancelledError:
        raise Failure("terminated", "Ended by a signal") from None


async def _chat(wanted: Wanted, place: Place, person: Person, lines: Lines, typed: bool) -> ExitCode:
    # Whoever is sent away, by a closed window too, is not to be shown as here.
    cancel_on_signals()
    if wanted.protocol == "chatkitty":
        place = await known(place)
        if place.api_key is None:
            message = f"Name the application's API key with --api-key or {API_KEY}"
            raise Failure("usage", message, ExitCode.USAGE, "api-key")
    with showing(typed) as show:
        screen = Screen(show)
        async with place.transport() as transport:
            chatter = _chatter(wanted.protocol, place, person, transport, screen)
            try:
                try:
                    await chatter.start()
                except OffhookError as error:
                    raise _failure(error) from error
                await _talk(Room(chatter, screen, wanted.to), lines, screen)
            finally:
                with suppress(OffhookError):
                    await chatter.close()
    if screen.unread is not None:
        raise screen.unread
    return ExitCode.REFUSED if screen.failed else ExitCode.OK


async def _talk(room: Room, lines: Lines, screen: Screen) -> None:
    await room.begin()

    def prompt() -> None:
        if isinstance(lines, TypedLines):
            lines.prompt(room.to or "")

    async def take(line: str) -> bool:
        on = await room.take(line)
        prompt()
        return on

    prompt()
    await each(lines, take, screen.ended)


def _chatter(protocol: ChatProtocol, place: Place, person: Person, transport: Transport, screen: Screen) -> Chatter:
    if protocol == "chatkitty":
        from offhook.cli.chat.chatkitty import ChatKittyChatter

        return ChatKittyChatter(place, person, transport, screen)
    from offhook.cli.chat.kandy import KandyChatter

    return KandyChatter(protocol, place, person, transport, screen)


def _password(wanted: Wanted, piped: PipedLines) -> str:
    if wanted.guest:
        return ""
    if wanted.password_stdin:
        password = _first(piped)
    elif sys.stdin.isatty():
        password = str(typer.prompt(f"Password of {wanted.username}", hide_input=True, err=True))
    else:
        raise Failure("usage", "There is no terminal to ask for a password; see --password-stdin", ExitCode.USAGE)
    if not password:
        raise Failure("usage", "There is no password on standard input", ExitCode.USAGE)
    return password


def _first(piped: PipedLines) -> str | None:
    try:
        return piped.first()
    except UnicodeDecodeError:
        raise Failure("usage", "The password on standard input must be UTF-8", ExitCode.USAGE) from None


def _failure(error: OffhookError) -> Failure:
    from offhook.client.errors import ConnectionFailed, TimedOut

    cause = error.__cause__ or error.__context__
    away = isinstance(error, ConnectionFailed | TimedOut) or isinstance(cause, ConnectionFailed | TimedOut)
    # The words may be the server's, which are not to steer the terminal.
    return Failure(error.code, plain(told(error)), ExitCode.UNREACHABLE if away else ExitCode.REFUSED)
