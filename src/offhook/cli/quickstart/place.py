"""Which server the SDK's commands connect to, and as whom: named by flags, found here, or started for once."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from offhook.cli.failures import ExitCode, Failure

if TYPE_CHECKING:
    from offhook.client.transport import Transport
    from offhook.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8686"
API_KEY = "OFFHOOK_API_KEY"
"""Environment variable: the application's API key."""
ANSWER_SECONDS = 2.0
"""How long a server on this machine may take to show that it is there."""
ANSWER_SECONDS_AWAY = 15.0
"""The same for one elsewhere."""
NO_PATH = "Kandy's clients know no path: name the server without one, or take ChatKitty's"
"""What to say to a URL with a path, where it cannot be told."""
_HERE = frozenset({"127.0.0.1", "::1", "localhost"})
_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the server.

    Attributes:
        name: full username.
        password: theirs; never shown.
    """

    name: str
    password: str

    def __repr__(self) -> str:
        return f"Person(name={self.name!r})"


@dataclass(frozen=True, slots=True)
class Place:
    """A server.

    Attributes:
        url: its ``http`` or ``https`` URL, without a slash at the end.
        api_key: of the application, for ChatKitty's clients; None if it is not known.
        ca_file: PEM file with the authority of its certificate; None for the usual ones.
        people: users who may be played with; empty if none are known.
        own: whether it was started for this command alone.
    """

    url: str
    api_key: str | None = None
    ca_file: Path | None = None
    people: tuple[Person, ...] = ()
    own: bool = False

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def host(self) -> str:
        """Host, port and path as ChatKitty's ``host`` wants them."""
        parts = urlsplit(self.url)
        return parts.netloc + parts.path

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.url).hostname in _HERE

    @property
    def below(self) -> bool:
        """Whether it is served below a path, which Kandy's clients cannot be told."""
        return bool(urlsplit(self.url).path)

    def transport(self, timeout: float = 15.0) -> Transport:
        """A transport that trusts this server. Proxies named by the environment do not lead to this machine."""
        from offhook.client.transport import Transport

        verify = True if self.ca_file is None else self.ca_file
        return Transport(verify=verify, timeout=timeout, trust_env=not self.here)

    def kandy(self, product: str) -> dict[str, object]:
        """The configuration of Kandy's quickstarts, filled in.

        Args:
            product: ``link`` or ``uc``.
        """
        parts = urlsplit(self.url)
        port = parts.port or (443 if self.secure else 80)
        rest = {"protocol": parts.scheme, "port": port}
        socket = {"protocol": "wss" if self.secure else "ws", "server": parts.hostname, "port": port}
        if product == "uc":
            return {"authentication": {"subscription": {**rest, "server": parts.hostname}, "websocket": socket}}
        return {
            "authentication": {"server": {**rest, "base": parts.hostname}},
            "subscription": {"websocket": socket},
        }


def checked_url(url: str) -> str:
    """A URL of a server as the commands use it.

    Raises:
        Failure: it is none.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username is not None:
        raise Failure("usage", f"{url} is no URL of a server: http://HOST:PORT or https://HOST:PORT", ExitCode.USAGE)
    return url.rstrip("/")


def checked_ca(ca_file: Path | None) -> Path | None:
    """A file with authorities.

    Raises:
        Failure: it cannot be used.
    """
    import ssl

    if ca_file is not None:
        try:
            ssl.create_default_context(cafile=str(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise Failure("usage", f"Cannot use {ca_file} as authority: {error}", ExitCode.USAGE) from None
    return ca_file


def read_people(names: Sequence[str], password_file: Path | None, password_stdin: bool) -> tuple[Person, ...]:
    """The users named on the command line; their passwords are lines in the same order.

    Args:
        names: usernames.
        password_file: file with the passwords.
        password_stdin: take them from standard input instead; else they are asked for at a terminal.

    Raises:
        Failure: there are too few passwords, or no way to them.
    """
    if password_file is not None and password_stdin:
        raise Failure("usage", "--password-file and --password-stdin exclude each other", ExitCode.USAGE)
    if not names:
        if password_file is not None or password_stdin:
            raise Failure("usage", "Whose passwords are these? Name users with --user", ExitCode.USAGE)
        return ()
    if password_file is None and not password_stdin:
        return tuple(Person(name, _ask(name)) for name in names)
    try:
        if password_file is not None:
            text = password_file.read_text(encoding="utf-8")
        else:
            text = b"".join(sys.stdin.buffer.readline() for _ in names).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure("usage", f"Cannot read the passwords: {error}", ExitCode.USAGE) from None
    passwords = [line for line in text.splitlines() if line]
    if len(passwords) < len(names):
        message = f"There are {len(passwords)} passwords for {len(names)} users; each stands in a line of its own"
        raise Failure("usage", message, ExitCode.USAGE)
    return tuple(Person(name, password) for name, password in zip(names, passwords, strict=False))


def _ask(name: str) -> str:
    import typer

    if not sys.stdin.isatty():
        raise Failure("usage", f"There is no password for {name}; see --password-stdin", ExitCode.USAGE)
    return str(typer.prompt(f"Password of {name}", hide_input=True, err=True))


async def why_silent(place: Place) -> str | None:
    """Why no Offhook server answers there, in words; None if one does."""
    from offhook.client.errors import ClientError

    async with place.transport(ANSWER_SECONDS if place.here else ANSWER_SECONDS_AWAY) as transport:
        try:
            answer = await transport.request("GET", f"{place.url}/healthz")
        except ClientError as error:
            return error.message
    return None if answer.ok else f"/healthz was answered with status {answer.status}"


async def known(place: Place) -> Place:
    """Completes what is known of a server from its data folder, if it is the one that serves that folder.

    That gives the API key of the application ``default``, and the demo users of ``offhook serve --demo``. Whatever
    the place says already is kept.
    """
    if place.api_key is None and (key := os.environ.get(API_KEY)):
        place = replace(place, api_key=key)
    if place.api_key is not None and place.people:
        return place
    settings = _settings_of(place.url)
    if settings is None:
        return place
    if not place.people:
        place = replace(place, people=_demo_people(settings.data_dir))
    if place.api_key is None:
        from offhook.cli.client import URL, open_admin

        # Where the environment names a server elsewhere, the key would be that one's.
        if not os.environ.get(URL):
            with suppress(Failure):
                async with open_admin(settings) as admin:
                    answer = await admin.get("/applications/default")
                place = replace(place, api_key=str(answer["api_key"]))
    return place


@asynccontextmanager
async def own_place() -> AsyncIterator[Place]:
    """Starts a server on free ports, with a temporary data folder and two users; both are gone afterwards.

    Raises:
        Failure: it cannot be started.
    """
    from offhook.testing import ServerFailed, ServerMissing, TestServer

    passwords = {f"{name}@example.com": secrets.token_urlsafe(12) for name in ("alice", "bob")}
    people = tuple(Person(name, password) for name, password in passwords.items())
    try:
        async with TestServer(users=passwords) as server:
            yield Place(server.url, server.api_key, None, people, own=True)
    except ServerMissing as error:
        raise Failure(error.code, error.message, ExitCode.USAGE) from error
    except ServerFailed as error:
        raise Failure(error.code, error.message, ExitCode.UNREACHABLE) from error


def _settings_of(url: str) -> Settings | None:
    """The settings of this folder, if the server at a URL is the one that runs on them; None if that is not known."""
    try:
        from offhook.cli.config import load_settings
        from offhook.storage.lock import DataLock

        settings = load_settings()
        if not settings.data_dir.is_dir():
            return None
        lock = DataLock(settings.data_dir)
        note: object = json.loads(lock.read() or b"{}")
        listeners = note.get("urls") if isinstance(note, Mapping) else None
        if not isinstance(listeners, list) or not any(_leads_to(url, str(each)) for each in listeners):
            return None
        if lock.acquire():
            # The note was left by a server that was killed: whoever answers at its address now is another.
            lock.release()
            return None
    except (ModuleNotFoundError, Failure, OSError, ValueError):
        # Only the SDK and the command line are installed, or this folder is no server's.
        return None
    return settings


def _leads_to(url: str, listener: str) -> bool:
    """Whether a URL is that of a listener, by whichever name of this machine."""
    asked, there = urlsplit(url), urlsplit(listener)
    port = asked.port or (443 if asked.scheme == "https" else 80)
    if (asked.scheme, port, asked.path) != (there.scheme, there.port, there.path.rstrip("/")):
        return False
    if asked.hostname in _HERE:
        return there.hostname in _HERE or there.hostname in _ANYWHERE
    return asked.hostname == there.hostname


def _demo_people(data_dir: Path) -> tuple[Person, ...]:
    from offhook.cli.demo import FILE

    try:
        kept: object = json.loads((data_dir / FILE).read_text())
    except (OSError, ValueError):
        return ()
    if not isinstance(kept, Mapping):
        return ()
    return tuple(Person(str(name), str(password)) for name, password in kept.items())
