"""CONNECT: a session is started or resumed, and CONNECTED says so (ChatKitty protocol notes, 2.2, 2.3 and 2.7)."""

from __future__ import annotations

from typing import cast

import structlog

from offhook import __version__
from offhook.codes import CloseReason, EndReason
from offhook.domain.sessions import Client
from offhook.domain.values import JsonObject
from offhook.errors import AccessDenied, OffhookError
from offhook.gateways.chatkitty.gateway import Gateway, Opening
from offhook.protocols import stomp
from offhook.protocols.chatkitty import auth_params
from offhook.services.hub import LiveSession, Outlet
from offhook.services.signing import SessionToken

HEART_BEAT_MS = 10_000
"""What CONNECTED promises and asks for; clients close after twice this without a sign of life."""
MAX_AGENT = 200

log = structlog.get_logger(__name__)


async def open_session(
    gateway: Gateway, opening: Opening, frame: stomp.Frame, outlet: Outlet
) -> tuple[LiveSession, bool]:
    """Resumes the session that the client names, or starts one.

    Args:
        gateway: the services.
        opening: what was known before.
        frame: the CONNECT.
        outlet: the session's connection.

    Returns:
        The session, held, and whether it was resumed.

    Raises:
        OffhookError: the client gets no session.
    """
    username = frame.header("StompX-User") or opening.user or ""
    agent = "".join(c if c.isprintable() else " " for c in (frame.header("StompX-User-Agent") or "")[:MAX_AGENT])
    client = Client("chatkitty", agent, opening.address, opening.secure)
    application = await gateway.applications.by_api_key(opening.api_key)
    token = frame.header("StompX-Auth-Session-ID")
    if token is not None:
        live = await gateway.sessions.resume(application, username, token, client, outlet)
        if live is not None:
            return live, True
    params = _auth_params(frame.header("StompX-Auth-Params") or opening.auth_params)
    return await gateway.sessions.start(application, username, params, client, outlet), False


def connected(gateway: Gateway, frame: stomp.Frame, live: LiveSession, resumed: bool) -> bytes:
    """The CONNECTED that answers a CONNECT."""
    headers = {
        "version": stomp.VERSION,
        "session": gateway.sessions.token_of(live),
        "heart-beat": f"{HEART_BEAT_MS},{HEART_BEAT_MS}",
        "server": f"offhook/{__version__}",
    }
    token = frame.header("StompX-Auth-Session-ID")
    if token is not None and SessionToken.decode(token, gateway.signer) is not None:
        # The JavaScript clients ignore this; others can tell whether they must fetch everything anew.
        headers["recovered"] = "complete" if resumed and live.recovered else "lost"
    return stomp.encode("CONNECTED", headers)


async def abandon(gateway: Gateway, live: LiveSession, resumed: bool) -> None:
    """The client went away before it got to know that its session goes on, or that it has a new one."""
    if not resumed:
        # Nobody can come back to a session that nobody heard of.
        try:
            await gateway.sessions.end_live(live, EndReason.CLIENT)
            return
        except OffhookError as error:
            log.warning("end_failed", session=live.id, error=error.message)
    await gateway.sessions.suspend(live, CloseReason.PEER_LOST)


def _auth_params(text: str | None) -> JsonObject:
    try:
        return cast(JsonObject, auth_params.decode(text))
    except auth_params.AuthParamsError as error:
        raise AccessDenied(str(error)) from None
