"""The resources ``presence`` and ``presenceWatcher`` (Kandy protocol notes, 5)."""

from __future__ import annotations

from offhook.domain import presence as rules
from offhook.domain.subscriptions import PRESENCE
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.request import Request, identify
from offhook.protocols.kandy import answers
from offhook.protocols.kandy.presence import Status
from offhook.protocols.kandy.requests import decode_presence, decode_watch
from offhook.protocols.kandy.wrappers import wrapper
from offhook.services.subscriptions import Watching

NAMES_PER_REQUEST = 50
"""Users of a list that cost as much as one more request."""


async def choose(gateway: Gateway, request: Request) -> bytes:
    """POST ``presence``: what others are to see of the user (5.1). A note stays no longer than what it was said of."""
    update = decode_presence(await request.body())
    application, identity = await identify(gateway, request)
    await gateway.subscriptions.require(identity, PRESENCE)
    chosen = rules.Presence(update.status is Status.OPEN, rules.Activity(update.activity.value), update.note or "")
    await gateway.users.change(application, identity.user.id, rules.choosing(chosen))
    return answers.done(wrapper(request.address.resource))


async def watch(gateway: Gateway, request: Request) -> bytes:
    """POST ``presenceWatcher``: of whom the client is to be told (5.2). It is told after the answer, on its socket."""
    asked = decode_watch(await request.body())
    # Each of the users is looked up, so that many are more than one request.
    _, identity = await identify(gateway, request, 1 + len(asked.user_list) / NAMES_PER_REQUEST)
    await gateway.subscriptions.watch(identity, request.device, asked.user_list, Watching(asked.action.value))
    return answers.done(wrapper(request.address.resource))
