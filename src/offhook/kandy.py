"""A client for apps of Kandy's Link and UC, in Python: the same calls, events and codes as Kandy.js.

::

    from offhook import kandy

    config = {
        "authentication": {"server": {"base": "localhost", "port": 8687}},
        "subscription": {"websocket": {"server": "localhost", "port": 8687}},
    }

    async with kandy.create(config, verify="offhook-data/tls/authority.pem") as client:
        client.on("messages:change", lambda event: print(event.message))
        client.set_credentials(username="jane@example.com", password="secret")
        await client.services.subscribe(["call", "Presence", "IM"], force_log_out=True)
        await client.conversation.create("john@example.com").send("Hello")

Names are spelt as in Python; dictionaries may be those of a JavaScript app as they stand. Programs that are not
asynchronous run it in a :class:`~offhook.client.blocking.Blocking`.
"""

from __future__ import annotations

from collections.abc import Mapping

from offhook.client.blocking import Blocking
from offhook.client.emitter import EventStream
from offhook.client.errors import ClientClosed, ClientError, ConnectionFailed, EventsLost, TimedOut
from offhook.client.kandy.client import Client
from offhook.client.kandy.config import Config, Product, parse
from offhook.client.kandy.conversations import Conversation
from offhook.client.kandy.errors import CODES, KandyError
from offhook.client.kandy.events import (
    EVENTS,
    AuthChange,
    AuthCredentialsSet,
    AuthError,
    AuthResub,
    ConversationsChange,
    ConversationsNew,
    Event,
    MessagesChange,
    MessagesError,
    NotificationReceived,
    PresenceChange,
    PresenceError,
    PresenceSelfChange,
    RequestError,
    SubscriptionChange,
    SubscriptionError,
    SubscriptionResub,
    WsChange,
)
from offhook.client.kandy.values import (
    Attachment,
    Connection,
    Message,
    Presence,
    Subscriptions,
    SubscriptionState,
    UserInfo,
)
from offhook.client.reconnect import NEVER, Reconnect
from offhook.client.transport import Transport, Verify

__all__ = [
    "CODES",
    "EVENTS",
    "NEVER",
    "Attachment",
    "AuthChange",
    "AuthCredentialsSet",
    "AuthError",
    "AuthResub",
    "Blocking",
    "Client",
    "ClientClosed",
    "ClientError",
    "Config",
    "Connection",
    "ConnectionFailed",
    "Conversation",
    "ConversationsChange",
    "ConversationsNew",
    "Event",
    "EventStream",
    "EventsLost",
    "KandyError",
    "Message",
    "MessagesChange",
    "MessagesError",
    "NotificationReceived",
    "Presence",
    "PresenceChange",
    "PresenceError",
    "PresenceSelfChange",
    "Product",
    "Reconnect",
    "RequestError",
    "SubscriptionChange",
    "SubscriptionError",
    "SubscriptionResub",
    "SubscriptionState",
    "Subscriptions",
    "TimedOut",
    "Transport",
    "UserInfo",
    "WsChange",
    "create",
]


def create(
    config: Mapping[str, object],
    *,
    product: Product | None = None,
    verify: Verify = True,
    transport: Transport | None = None,
    reconnect: Reconnect | None = None,
) -> Client:
    """Makes a client. Nothing is sent yet.

    Args:
        config: the dictionary that ``create`` of Kandy.js takes, of any version, with all its spellings; keys may also
            be written as Python does, ``ping_interval`` for ``pingInterval``. Times in it are those of Kandy.js:
            milliseconds in ``connectivity``, seconds elsewhere. Unlike in browsers, ``protocol`` may be ``ws`` or
            ``http`` everywhere. Keys that are not known are logged and ignored.
        product: ``link`` or ``uc``; if left out, ``link`` if there is ``authentication.server``, else ``uc``.
        verify: how to trust the server, as for ``Transport``; such as the path of the authority that ``make run``
            names.
        transport: for other timeouts, or to share one among several clients, with a ``verify`` of its own; whoever
            made it closes it.
        reconnect: when to come back to a server that was lost; if left out, as ``connectivity`` says; else the
            default of the SDK, which does not give up.

    Raises:
        KandyError: ``configuration``: a value has the wrong type; names its key. What is missing shows when the
            client is to connect.
    """
    parsed = parse(config, product)
    return Client(parsed, transport, reconnect or parsed.reconnect or Reconnect(), verify)
