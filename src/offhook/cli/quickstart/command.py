"""The command ``offhook quickstart``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from offhook.cli.failures import ExitCode, Failure
from offhook.cli.quickstart.place import (
    API_KEY,
    DEFAULT_URL,
    NO_PATH,
    Person,
    Place,
    checked_ca,
    checked_url,
    known,
    own_place,
    read_people,
    why_silent,
)
from offhook.cli.quickstart.player import Player, Tally
from offhook.cli.quickstart.report import Report
from offhook.cli.quickstart.signals import cancel_on_signals

if TYPE_CHECKING:
    from offhook.client.transport import Transport

    Play = Callable[[Player, Place, Person, Transport], Awaitable[None]]

QUICKSTARTS = {
    "kandy-uc": "Kandy UC: connecting and disconnecting",
    "kandy-link": "Kandy Link: credentials, subscribing and unsubscribing",
    "chatkitty": "ChatKitty: user sessions",
}
"""The quickstarts by name, in the order in which they are played."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says.

    Attributes:
        names: of the quickstarts to play; all if empty.
        url: of the server; None looks for one.
        api_key: of its application.
        users: usernames to play with; the first plays Kandy's, the last ChatKitty's.
        password_file: file with their passwords.
        password_stdin: whether those come from standard input.
        ca_file: PEM file with the server's authority.
        own: start a server, whatever else there is.
        as_json: print JSON.
    """

    names: Sequence[str] = ()
    url: str | None = None
    api_key: str | None = None
    users: Sequence[str] = ()
    password_file: Path | None = None
    password_stdin: bool = False
    ca_file: Path | None = None
    own: bool = False
    as_json: bool = False


def quickstart(wanted: Wanted) -> ExitCode:
    """Plays quickstarts and prints what happens.

    Returns:
        OK if every step did what its quickstart says, else REFUSED.

    Raises:
        Failure: there is nothing to play with.
    """
    if unknown := [name for name in wanted.names if name not in QUICKSTARTS]:
        known_names = ", ".join(QUICKSTARTS)
        message = f"There is no quickstart {unknown[0]}; there are {known_names}"
        raise Failure("usage", message, ExitCode.USAGE, "NAME")
    if wanted.own and (wanted.url is not None or wanted.users):
        raise Failure("usage", "--own excludes --url and --user: its server and users are its own", ExitCode.USAGE)
    people = read_people(wanted.users, wanted.password_file, wanted.password_stdin)
    url = None if wanted.url is None else checked_url(wanted.url)
    place = Place(url or DEFAULT_URL, wanted.api_key, checked_ca(wanted.ca_file), people)
    try:
        return asyncio.run(_play(wanted, place))
    except asyncio.CancelledError:
        raise Failure("terminated", "Ended by a signal before all was played") from None


async def _play(wanted: Wanted, place: Place) -> ExitCode:
    # A server of its own must not be left behind.
    cancel_on_signals()
    report = Report(wanted.as_json)
    names = [name for name in QUICKSTARTS if name in wanted.names or not wanted.names]
    tallies: list[Tally] = []
    async with _server(wanted, place, names) as found:
        report.place(found)
        start = time.monotonic()
        for name in names:
            report.quickstart(name, QUICKSTARTS[name])
            player = Player(name, report.line, start)
            person = found.people[-1] if name == "chatkitty" else found.people[0]
            async with found.transport() as transport:
                tallies.append(await player.play(_play_of(name)(player, found, person, transport)))
    report.stopped(found)
    report.summary(tallies)
    return ExitCode.REFUSED if any(tally.failed for tally in tallies) else ExitCode.OK


def _play_of(name: str) -> Play:
    from offhook.cli.quickstart import chatkitty, kandy_link, kandy_uc

    return {"kandy-uc": kandy_uc.play, "kandy-link": kandy_link.play, "chatkitty": chatkitty.play}[name]


@asynccontextmanager
async def _server(wanted: Wanted, place: Place, names: Sequence[str]) -> AsyncIterator[Place]:
    """The server that was named, or that answers where one usually does, or a new one."""
    silent = None if wanted.own else await why_silent(place)
    if not wanted.own and silent is None:
        yield _complete(await known(place), names)
    elif wanted.url is not None:
        message = f"No Offhook server answers at {place.url}: {silent}"
        raise Failure("unreachable", message, ExitCode.UNREACHABLE)
    elif wanted.users or wanted.api_key:
        message = f"No server answers at {place.url}; name the one of those users and that key with --url"
        raise Failure("unreachable", message, ExitCode.UNREACHABLE)
    else:
        async with own_place() as own:
            yield own


def _complete(place: Place, names: Sequence[str]) -> Place:
    """Checks that all is known that the quickstarts need."""
    if place.below and any(name.startswith("kandy") for name in names):
        raise Failure("usage", NO_PATH, ExitCode.USAGE, "url")
    if not place.people:
        message = f"A server answers at {place.url}: name two users of its with --user, or use --own for another server"
        raise Failure("usage", message, ExitCode.USAGE, "user")
    if "chatkitty" in names and place.api_key is None:
        raise Failure("usage", f"Name the application's API key with --api-key or {API_KEY}", ExitCode.USAGE, "api-key")
    return place
