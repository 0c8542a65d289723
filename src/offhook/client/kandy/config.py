"""The configuration of a client, in the dictionaries that Kandy.js takes (Kandy protocol notes, 1.2)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from offhook.client.kandy.errors import CONFIGURATION, KandyError
from offhook.client.kandy.section import Section
from offhook.client.reconnect import NEVER, Reconnect
from offhook.protocols.kandy.paths import UC_VERSION

Product = Literal["link", "uc"]
SERVICES = ("call", "IM", "Presence")
"""What UC subscribes to unless it is told otherwise."""
OTHER_SECTIONS = frozenset({"call", "logs", "media", "request", "messaging", "callhistory", "presence", "webrtc"})
"""Sections of Kandy.js whose unknown keys are nothing to wonder about: they are of calls and the like."""

_PLACEHOLDER = re.compile(r"\$\w*\$?|\.\.\.|<.*>")
_log = logging.getLogger("offhook.kandy")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is.

    Attributes:
        scheme: ``https``, ``http``, ``wss`` or ``ws``.
        host: a name or address; empty if none was given.
        port: always written into URLs.
        key: the key that the host has in the configuration, for errors.
    """

    scheme: str
    host: str
    port: int
    key: str

    @property
    def base(self) -> str:
        """The URL without a path.

        Raises:
            KandyError: ``configuration``: there is no host, only a placeholder for one, or it is none.
        """
        host = self.host
        if not host:
            raise KandyError(CONFIGURATION, f"{self.key} is missing: it must name the server")
        if _PLACEHOLDER.fullmatch(host):
            raise KandyError(CONFIGURATION, f"{self.key} is still the placeholder {host}: it must name the server")
        if ":" in host and not host.startswith("["):
            import ipaddress

            try:
                ipaddress.IPv6Address(host)
            except ValueError:
                raise KandyError(
                    CONFIGURATION, f"{self.key} must be a host alone: the port and the protocol have their own keys"
                ) from None
            host = f"[{host}]"
        if re.search(r"[\s/?#@\\]", host):
            raise KandyError(CONFIGURATION, f"{self.key} must be a host alone, without a path")
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration, with defaults for what is not given.

    Attributes:
        product: whose protocol is spoken.
        rest: where requests go.
        version: of the telephony API in paths.
        uc_version: of UC's own API in paths.
        websocket: where notification sockets are opened.
        expires: seconds that a subscription is to live without a renewal.
        services: what ``connect`` subscribes to; None if the configuration does not say.
        localization: sent with subscriptions.
        use_turn: whether TURN credentials are asked for.
        notification_type: sent with subscriptions.
        unavailable_retries: how often a subscription is asked for again when the server asked to be left alone.
        early_refresh_margin: seconds before the end of its access token at which UC gets another one.
        ping_interval: seconds between signs of life on the socket.
        reconnect: the policy that the configuration names; None if it names none.
        token_on_socket: whether bearer tokens are shown on the socket's URL.
        id_cache_length: how many notifications are remembered, to drop them should they come again.
        agent_header: whether requests say what kind of client they are of.
    """

    product: Product
    rest: Endpoint
    websocket: Endpoint
    version: str = "1"
    uc_version: str = UC_VERSION
    expires: float = 3600.0
    services: tuple[str, ...] | None = None
    localization: str = "English_US"
    use_turn: bool = True
    notification_type: str = "WebSocket"
    unavailable_retries: int = 3
    early_refresh_margin: float = 300.0
    ping_interval: float = 30.0
    reconnect: Reconnect | None = None
    token_on_socket: bool = True
    id_cache_length: int = 100
    agent_header: bool = True


def parse(values: Mapping[str, object], product: Product | None = None) -> Config:
    """Reads a configuration.

    Keys may be written as Kandy.js writes them (``pingInterval``) or as Python does (``ping_interval``), at every
    level. Keys that are not known are ignored and logged.

    Args:
        values: the dictionary, with all old spellings of 1.2.
        product: whose protocol is spoken; else ``link`` if there is ``authentication.server``, else ``uc``.

    Raises:
        KandyError: ``configuration``: a value has the wrong type; names its key.
    """
    if product not in (None, "link", "uc"):
        raise KandyError(CONFIGURATION, "product must be link or uc")
    whole = Section(values, "")
    authentication = whole.section("authentication")
    server, old = authentication.section("server"), authentication.section("subscription")
    chosen: Product = product or ("link" if server.given else "uc")
    subscription = whole.section("subscription")
    own_socket, new_socket = authentication.section("websocket"), subscription.section("websocket")
    connectivity = whole.section("connectivity")
    config = Config(
        product=chosen,
        rest=_endpoint(server, "base") if server.given else _endpoint(old, "server"),
        websocket=_endpoint(
            own_socket if own_socket.given or (chosen == "uc" and not new_socket.given) else new_socket,
            "server",
            secure="wss",
            plain="ws",
        ),
        version="1" if chosen == "uc" else (server if server.given else old).word("version", "1"),
        uc_version=old.word("version", UC_VERSION) if chosen == "uc" else UC_VERSION,
        expires=(subscription if subscription.has("expires") else old).number("expires", 3600, at_least=1),
        services=old.words("service", SERVICES if chosen == "uc" else None),
        localization=old.text("localization", "English_US"),
        use_turn=old.flag("useTurn", True),
        notification_type=old.text("notificationType", "WebSocket"),
        unavailable_retries=int(subscription.number("serviceUnavailableMaxRetries", 3)),
        early_refresh_margin=authentication.number("earlyRefreshMargin", 300),
        ping_interval=connectivity.number("pingInterval", 30_000, at_least=1) / 1000,
        reconnect=_reconnect(connectivity),
        token_on_socket=connectivity.text("webSocketOAuthMode", "query") != "none",
        id_cache_length=int(whole.section("notifications").number("idCacheLength", 100)),
        agent_header=whole.section("request").flag("injectAgentVersionHeader", True),
    )
    _note_unknown(whole)
    return config


def _endpoint(section: Section, host_key: str, *, secure: str = "https", plain: str = "http") -> Endpoint:
    scheme = section.text("protocol", secure).removesuffix("://").removesuffix(":").lower()
    if scheme not in (secure, plain):
        raise KandyError(CONFIGURATION, f"{section.path('protocol')} must be {secure} or {plain}")
    host = section.text(host_key, "").strip()
    return Endpoint(scheme, host, section.port("port", 443), section.path(host_key))


def _reconnect(section: Section) -> Reconnect | None:
    """The policy that the configuration names, with the defaults of Kandy.js for what it leaves out.

    The delays of Kandy.js are the bounds here: the wait is a random part of them.
    """
    if not section.flag("autoReconnect", True):
        return NEVER
    limit = int(section.number("reconnectLimit", 5))
    initial = max(section.number("reconnectDelay", 5000), 1) / 1000
    factor = section.number("reconnectTimeMultiplier", 1)
    maximum = section.number("reconnectTimeLimit", 640_000) / 1000
    if not any(
        section.has(key)
        for key in ("reconnectLimit", "reconnectDelay", "reconnectTimeMultiplier", "reconnectTimeLimit")
    ):
        return None
    return Reconnect(initial, max(factor, 1.0), max(maximum, initial), limit or None)


def _note_unknown(whole: Section) -> None:
    # Known, but of no effect: one way to keep alive is spoken, and broken connections are found by WebSocket pings.
    for key in ("method", "maxMissedPings", "checkConnectivity", "autoReconnect"):
        whole.section("connectivity").has(key)
    for key in ("incomingCallNotificationMode", "pushRegistration"):
        whole.section("notifications").has(key)
    unknown = [key for key in whole.unread() if key.partition(".")[0].replace("_", "").casefold() not in OTHER_SECTIONS]
    if unknown:
        _log.info("The configuration has keys that are not known: %s", ", ".join(unknown))
