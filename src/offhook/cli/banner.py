"""What ``offhook serve`` says once it listens: where it is, and what to try next."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import offhook
from offhook.cli.client import reachable

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject
    from offhook.server.info import ServeInfo


def text(info: ServeInfo, passwords: Mapping[str, str], as_json: bool) -> str:
    """What to say once a server listens.

    Args:
        info: what is served, and where.
        passwords: demo users' names → passwords; empty if there are none.
        as_json: as one JSON document.
    """
    if as_json:
        return json.dumps(summary(info, passwords), indent=2, ensure_ascii=False)
    return "\n".join(banner(info, passwords))


def summary(info: ServeInfo, passwords: Mapping[str, str]) -> JsonObject:
    """What the banner says, for programs."""
    application = info.application
    return {
        "urls": [endpoint.url + info.base_path for endpoint in info.endpoints],
        "application": None if application is None else application.name,
        "api_key": None if application is None else application.api_key,
        "authority": None if info.authority is None else str(info.authority.resolve()),
        "data_dir": str(info.data_dir.resolve()),
        "kandy": None if (place := _secure_place(info)) is None else {"host": place[0], "port": place[1]},
        "demo_users": dict(passwords),
    }


def banner(info: ServeInfo, passwords: Mapping[str, str]) -> Iterator[str]:
    """The banner's lines."""
    urls = [endpoint.url + info.base_path for endpoint in info.endpoints]
    yield ""
    yield f"  Offhook {offhook.__version__} is serving"
    yield ""
    for url in urls:
        yield f"    {url}"
    yield ""
    application = info.application
    if application is not None:
        guests = "guests may sign in" if application.guests else "no guests"
        yield f"  application   {application.name} ({guests})"
        yield f"  API key       {application.api_key}"
    for name, password in passwords.items():
        yield f"  demo user     {name}  password {password}"
    yield f"  data          {info.data_dir.resolve()}"
    if info.authority is not None:
        authority = info.authority.resolve()
        yield ""
        yield "  TLS is by a development authority; clients must trust it:"
        yield f"    Node           export NODE_EXTRA_CA_CERTS={authority}"
        yield f"    curl, Python   export SSL_CERT_FILE={authority}"
        yield "    browsers       import that file as an authority for web sites"
    if application is not None:
        yield ""
        yield "  Try next, with an unmodified ChatKitty SDK:"
        yield from _snippet(urls, application.api_key)
        yield ""
        yield from _kandy(info, passwords)
    yield ""
    program = _program()
    yield f"  In another terminal:  {program} quickstart   {program} session list   {program} doctor"
    yield "  Ctrl-C stops the server."
    yield ""


def _program() -> str:
    """How to call this program from the same folder."""
    if shutil.which("offhook"):
        return "offhook"
    called = sys.argv[0]
    return "python -m offhook" if called.endswith(".py") else os.path.relpath(called)


def _snippet(urls: list[str], api_key: str) -> Iterator[str]:
    parts = urlsplit(reachable(urls[0]))
    host, secure = parts.netloc + parts.path, str(parts.scheme == "https").lower()
    yield f"    new ChatKitty({{ apiKey: '{api_key}', host: '{host}', isSecure: {secure} }})"
    yield f"    getSdkClient('{api_key}', {{ $environment: {{ host: '{host}', secure: {secure} }} }})"


def _kandy(info: ServeInfo, passwords: Mapping[str, str]) -> Iterator[str]:
    """What a page with Kandy.js needs. Its newer versions open their notification socket by wss only."""
    place = _secure_place(info)
    if info.base_path:
        yield "  Kandy.js knows no base path: let the proxy pass /rest/, /v2.0/ and /websocket/ on to it."
        return
    if place is None:
        yield "  Kandy.js needs TLS: serve it with --tls-dev to try it, or by a proxy in front."
        return
    host, port = place
    where = f"'{host}', port: '{port}'"
    yield f"  Kandy.js connects to the host {host}, port {port}:"
    yield f"    Link   create({{ authentication: {{ server: {{ base: {where} }} }},"
    yield f"                    subscription: {{ websocket: {{ server: {where} }} }} }})"
    yield f"    UC     create({{ authentication: {{ subscription: {{ server: {where} }},"
    yield f"                                      websocket: {{ server: {where} }} }} }})"
    for name, password in list(passwords.items())[:1]:
        yield f"    as     {{ username: '{name}', password: '{password}' }}"


def _secure_place(info: ServeInfo) -> tuple[str, int] | None:
    """Host and port of the TLS listener as a page on this machine reaches it; None if there is none."""
    endpoint = next((endpoint for endpoint in info.endpoints if endpoint.scheme == "https"), None)
    if endpoint is None:
        return None
    here = endpoint.host in ("0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104 - compared, not bound
    return "localhost" if here else endpoint.host, endpoint.port
