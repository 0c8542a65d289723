"""What the network sees: the running server, and its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from offhook.cli.doctor.findings import Finding, fail, ok, warn
from offhook.errors import InvalidInput

if TYPE_CHECKING:
    from offhook.settings import Settings

RENEW = timedelta(days=14)
"""A certificate with less time left is worth a warning."""
TIMEOUT = 5.0
"""Seconds a server has to answer."""


def check_server(settings: Settings) -> Iterator[Finding]:
    """Who holds the data directory, and whether it answers."""
    from offhook.cli.client import Holder
    from offhook.storage.lock import DataLock

    if not settings.data_dir.is_dir():
        yield ok("server", "No server has run here yet.")
        return
    lock = DataLock(settings.data_dir)
    try:
        if lock.acquire():
            lock.release()
            yield ok("server", "No server is running on this data directory.")
            return
        holder = Holder.of(lock)
    except OSError as error:
        yield fail("server", f"The lock cannot be used: {error.strerror}.", "give this user the data directory")
        return
    if holder.url is None:
        text = f"Process {holder.pid or '(unknown)'} holds the data directory but serves nothing yet."
        yield warn("server", text, "look again in a moment; then look at that process")
        return
    for path, what in (("/healthz", "is alive"), ("/readyz", "is ready")):
        yield _ask(holder.url.rstrip("/") + path, what)


def _ask(url: str, what: str) -> Finding:
    import httpx

    try:
        response = httpx.get(url, timeout=TIMEOUT, trust_env=False)
    except httpx.HTTPError as error:
        return fail("server", f"{url} does not answer: {error}.", "look at the server's log, then restart it")
    if response.status_code == 200:
        return ok("server", f"{url} says that the server {what}.")
    text = f"{url} answers {response.status_code}: {response.text[:200]}"
    return fail("server", text, "the answer names the check that failed")


def check_tls(settings: Settings) -> Iterator[Finding]:
    """The certificate: valid, for how long, for which names, and whether the key fits."""
    if settings.tls_dev:
        yield ok("tls", f"A development authority signs; clients must trust {settings.data_dir}/tls/authority.pem.")
        return
    if settings.tls_cert is None or settings.tls_key is None:
        if settings.public_url is not None and settings.public_url.startswith("https:"):
            yield ok("tls", f"TLS is left to the proxy in front, at {settings.public_url}.")
        else:
            text = "TLS is not served, and Kandy.js opens its notification socket by wss only."
            way = "set tls_dev to try it; in production tls_cert and tls_key, or a proxy and public_url"
            yield warn("tls", text, way)
        return
    from offhook.server.tls import Certificates, certificate_info

    try:
        info = certificate_info(settings.tls_cert)
        Certificates(settings.tls_cert, settings.tls_key)
    except InvalidInput as error:
        yield fail("tls", error.message, "name a PEM certificate chain and its own key")
        return
    now = datetime.now(UTC)
    left = info.expires_in(now)
    names = ", ".join(info.names) or "no name at all"
    until = f"until {info.not_after:%Y-%m-%d}, for {names}"
    if left <= timedelta(0):
        yield fail("tls", f"The certificate was valid {until}.", "renew it; clients refuse it")
    elif info.not_before > now:
        yield fail("tls", f"The certificate is valid from {info.not_before:%Y-%m-%d}.", "wait, or check the clock")
    elif not info.names:
        yield fail("tls", f"The certificate is valid {until}.", "clients refuse it; get one with names")
    elif left < RENEW:
        yield warn("tls", f"The certificate is valid {until}.", "renew it now; SIGHUP makes the server load it")
    else:
        yield ok("tls", f"The certificate is valid {until}.")


def check_turn(settings: Settings) -> Iterator[Finding]:
    """The secret that the TURN server must share. The TURN server itself is not asked: it may be anywhere."""
    if settings.turn_secret is not None:
        yield ok("turn", "The TURN server must have the setting turn_secret as its static-auth-secret.")
    else:
        text = "turn_secret is not set: the TURN server's static-auth-secret must be what offhook turn-secret prints."
        yield ok("turn", text)
