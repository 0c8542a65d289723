"""The client of the admin API: to a running server, or to services opened in this process."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlsplit

import httpx

from offhook.cli.failures import ExitCode, Failure, failure_of
from offhook.errors import OffhookError

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject
    from offhook.settings import Settings
    from offhook.storage.lock import DataLock

URL = "OFFHOOK_ADMIN_URL"
"""Environment variable: URL of a server elsewhere."""
TOKEN = "OFFHOOK_ADMIN_TOKEN"  # noqa: S105 - the variable's name
"""Environment variable: that server's admin token."""
API = "/admin/v1"
TIMEOUT = 30.0
"""Seconds for one request."""
PATIENCE = 10.0
"""Seconds to wait for a server that starts or stops, or for another command on the same data."""


def segment(name: str) -> str:
    """A name as one segment of a path. Names made of dots alone would otherwise mean a parent folder."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


class AdminClient:
    """Asks the admin API.

    Args:
        http: the HTTP client, with base URL and token.
        place: what it is connected to, for messages.
    """

    def __init__(self, http: httpx.AsyncClient, place: str) -> None:
        self._http = http
        self._place = place

    async def get(self, path: str, params: Mapping[str, str | int | None] | None = None) -> JsonObject:
        """Reads. Parameters that are None are left out. Raises Failure."""
        given = {name: str(value) for name, value in (params or {}).items() if value is not None}
        return await self._ask("GET", path, params=given)

    async def send(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        """Changes. Raises Failure."""
        return await self._ask(method, path, body=body)

    async def _ask(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: JsonObject | None = None
    ) -> JsonObject:
        try:
            response = await self._http.request(method, API + path, params=params or None, json=body)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            what = str(error) or type(error).__name__
            raise Failure("unreachable", f"Cannot reach {self._place}: {what}", ExitCode.UNREACHABLE) from error
        return self._read(response)

    def _read(self, response: httpx.Response) -> JsonObject:
        try:
            value: object = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            message = f"{self._place} is no Offhook server: it answered {response.status_code} without JSON"
            raise Failure("unreachable", message, ExitCode.UNREACHABLE)
        if response.is_success:
            return cast("JsonObject", value)
        field = value.get("field")
        message = str(value.get("message", "The server refused the request"))
        raise failure_of(str(value.get("error", "error")), message, field if isinstance(field, str) else None)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the data directory.

    Attributes:
        pid: its process id, or None.
        url: where its admin API answers; None while it is no server, or not one yet.
    """

    pid: int | None
    url: str | None

    @staticmethod
    def of(lock: DataLock) -> Holder:
        """Reads what the holder of a lock said of itself; it may not have said anything yet."""
        try:
            value: object = json.loads(lock.read() or b"{}")
        except ValueError:
            value = {}
        info = value if isinstance(value, dict) else {}
        pid, urls = info.get("pid"), info.get("urls")
        plain = [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []
        plain = [url for url in plain if url.startswith("http://")]
        return Holder(pid if isinstance(pid, int) else None, reachable(plain[0]) if plain else None)


def reachable(url: str) -> str:
    """The URL of a listener on every address, as this machine reaches it."""
    parts = urlsplit(url)
    for anywhere, here in (("0.0.0.0", "127.0.0.1"), ("::", "[::1]")):  # noqa: S104 - compared, not bound
        if parts.hostname == anywhere:
            return parts._replace(netloc=f"{here}:{parts.port or 80}").geturl()
    return url


@asynccontextmanager
async def open_admin(settings: Settings) -> AsyncIterator[AdminClient]:
    """Connects to the admin API of the system that the settings name.

    That is the server at ``OFFHOOK_ADMIN_URL`` if it is set; else the server that runs on the data directory;
    else, if none does, the same API on services opened in this process for as long as the context lasts.

    Raises:
        Failure: there is no way to it.
    """
    url = os.environ.get(URL)
    if url:
        async with _remote(url, _token(settings.data_dir), trust_env=True) as client:
            yield client
        return
    lock, holder = await _find(settings.data_dir)
    if holder is not None:
        async with _remote(str(holder.url), _token(settings.data_dir), trust_env=False) as client:
            yield client
        return
    try:
        async with _local(settings) as client:
            yield client
    finally:
        lock.release()


async def _find(data_dir: Path) -> tuple[DataLock, Holder | None]:
    """Takes the lock of the data directory, or finds the server that has it."""
    from offhook.storage.lock import DataLock, note

    try:
        os.makedirs(data_dir, mode=0o700, exist_ok=True)
        lock = DataLock(data_dir)
        deadline = time.monotonic() + PATIENCE
        while not lock.acquire():
            holder = Holder.of(lock)
            if holder.url is not None and await _answers(holder.url):
                return lock, holder
            if time.monotonic() > deadline:
                raise Failure("unreachable", _busy(data_dir, holder), ExitCode.UNREACHABLE)
            await asyncio.sleep(0.05)
        lock.write(note(os.getpid(), (), ()))
    except OSError as error:
        message = f"Cannot use the data directory {data_dir}: {error.strerror or error}"
        raise Failure("unreachable", message, ExitCode.UNREACHABLE) from error
    return lock, None


def _busy(data_dir: Path, holder: Holder) -> str:
    who = "Another process" if holder.pid is None else f"Process {holder.pid}"
    return f"{who} uses {data_dir} but answers no requests; try again, or see offhook doctor"


async def _answers(url: str) -> bool:
    """Whether a server answers there; what a crashed one left behind names a server that is gone."""
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as http:
        try:
            await http.get(f"{url.rstrip('/')}/healthz")
        except httpx.TransportError:
            return False
        return True


def _token(data_dir: Path) -> str:
    from offhook.gateways.admin_token import read_token

    token = os.environ.get(TOKEN)
    if not token:
        try:
            token = read_token(data_dir)
        except OSError as error:
            message = f"Cannot read the admin token in {data_dir}: {error.strerror or error}"
            raise Failure("unreachable", message, ExitCode.UNREACHABLE) from error
    if not token or not token.isascii():
        message = f"There is no admin token in {data_dir}; set {TOKEN}"
        raise Failure("unauthenticated", message)
    return token


@asynccontextmanager
async def _remote(url: str, token: str, *, trust_env: bool) -> AsyncIterator[AdminClient]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise Failure("unreachable", f"{url} is no http or https URL", ExitCode.UNREACHABLE)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=trust_env) as http:
        yield AdminClient(http, url)


@asynccontextmanager
async def _local(settings: Settings) -> AsyncIterator[AdminClient]:
    from starlette.applications import Starlette

    from offhook.core import open_core
    from offhook.gateways.admin import admin_routes, ensure_token
    from offhook.server.logs import configure_logging

    configure_logging("warning", settings.log_format)
    try:
        async with open_core(settings) as core:
            token = ensure_token(settings.data_dir)
            transport = httpx.ASGITransport(Starlette(routes=admin_routes(core, token)))
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://offhook", headers=headers) as http:
                yield AdminClient(http, str(settings.data_dir))
    except OffhookError as error:
        raise failure_of(error.code, error.message) from error
    except OSError as error:
        message = f"Cannot use the data directory {settings.data_dir}: {error.strerror or error}"
        raise Failure("unreachable", message, ExitCode.UNREACHABLE) from error
