"""Callers without an account (Kandy protocol notes, 8.11).

They show no credentials; the account in the path is the address that they want to call. So what their subscription is
called in its path must be what nobody can guess: the signed name of its notification channel.
"""

from __future__ import annotations

from offhook.domain.accounts import Application
from offhook.domain.subscriptions import Product, user_of
from offhook.errors import AccessDenied, NotFound
from offhook.gateways.kandy.channels import PREFIX, channel_of, parse_channel_id
from offhook.gateways.kandy.errors import Refusal
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.request import Request
from offhook.gateways.kandy.subscription import read_body, tell, wanted
from offhook.protocols.kandy import answers
from offhook.protocols.kandy.wrappers import wrapper
from offhook.services.subscriptions import NOBODY

REALM = "tokenrealm"
"""The parameter of those who show tokens instead of addresses."""


async def create(gateway: Gateway, request: Request) -> bytes:
    """POST ``subscription``: makes the subscription of a caller."""
    asked = await read_body(request)
    check_realm(request)
    request.admission.may_guess(request.client_address)
    try:
        application = await _application(gateway, request)
        opened = await gateway.subscriptions.create_anonymous(
            application, user_of(request.user), wanted(asked, request, Product.ANONYMOUS), request.client
        )
    except NotFound:
        # Else it could be found out bit by bit who there is.
        request.admission.missed(request.client_address)
        raise
    name = channel_of(opened.session.id, gateway.signer).removeprefix(PREFIX)
    return tell(gateway, request, asked, opened, name)


async def renew(gateway: Gateway, request: Request) -> bytes:
    """PUT ``subscription/{id}``: lets one go on, as a long call needs it."""
    asked = await read_body(request)
    name = request.address.names[0]
    session_id = parse_channel_id(name, gateway.signer)
    try:
        if session_id is None:
            raise NotFound("There is no such subscription")
        opened = await gateway.subscriptions.renew_anonymous(
            await _application(gateway, request), session_id, wanted(asked, request, Product.ANONYMOUS)
        )
    except NotFound as error:
        raise Refusal("subscription_gone", error.message) from None
    return tell(gateway, request, asked, opened, name)


async def end(gateway: Gateway, request: Request) -> bytes:
    """DELETE ``subscription/{id}``: ends one. To its client it makes no difference whether it was there."""
    session_id = parse_channel_id(request.address.names[0], gateway.signer)
    if session_id is not None:
        await gateway.subscriptions.end_anonymous(await _application(gateway, request), session_id)
    return answers.done(wrapper(request.address.resource))


def check_realm(request: Request) -> None:
    """Refuses who comes with tokens.

    Raises:
        Refusal: the request names the realm of its tokens; there are none.
    """
    if request.value(REALM) is not None:
        raise Refusal("realm_unknown", "The realm of the tokens is not known")


async def _application(gateway: Gateway, request: Request) -> Application:
    """The application of the address in the path.

    Raises:
        NotFound: there is none, or it is disabled; in the words for a user whom there is not.
    """
    try:
        return await gateway.applications.by_username(user_of(request.user))
    except AccessDenied:
        raise NotFound(NOBODY) from None
