"""What ``offhook serve`` says once it listens: where it is, and what to try next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

import offhook
from offhook.cli.client import reachable

if TYPE_CHECKING:
    from offhook.app import ServeInfo
    from offhook.domain.values import JsonObject


def print_banner(info: ServeInfo, passwords: Mapping[str, str]) -> None:
    """Prints the banner.

    Args:
        info: what is served, and where.
        passwords: demo users' names → passwords; empty if there are none.
    """
    typer.echo("\n".join(banner(info, passwords)))


def summary(info: ServeInfo, passwords: Mapping[str, str]) -> JsonObject:
    """What the banner says, for programs."""
    application = info.application
    return {
        "urls": [endpoint.url + info.base_path for endpoint in info.endpoints],
        "application": None if application is None else application.name,
        "api_key": None if application is None else application.api_key,
        "authority": None if info.authority is None else str(info.authority.resolve()),
        "data_dir": str(info.data_dir.resolve()),
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
    program = _program()
    yield f"  In another terminal:  {program} session list   {program} doctor   {program} --help"
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
