"""The resource ``subscription``: made, renewed and ended by requests (Kandy protocol notes, 3)."""

from __future__ import annotations

from offhook.domain.subscriptions import Product
from offhook.errors import NotFound
from offhook.gateways.kandy.channels import channel_of
from offhook.gateways.kandy.errors import Refusal, proving
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.ids import parse_id
from offhook.gateways.kandy.request import Request, identify
from offhook.protocols import turn
from offhook.protocols.kandy import answers
from offhook.protocols.kandy.paths import fits_path
from offhook.protocols.kandy.requests import RequestError, SubscribeRequest, decode_subscribe
from offhook.protocols.kandy.status import StatusCode
from offhook.protocols.kandy.wrappers import wrapper
from offhook.services.subscriptions import Opened, Wanted

WEBSOCKET = "WebSocket"
"""The only way in which clients are told what happens."""


async def create(gateway: Gateway, request: Request) -> bytes:
    """POST: makes a subscription (3.1)."""
    asked = await read_body(request)
    product = Product.UC if request.uc else Product.LINK
    with proving():
        application = await gateway.applications.by_username(request.user)
        opened = await gateway.subscriptions.create(
            application, request.user, request.proofs(), wanted(asked, request, product), request.client
        )
    return tell(gateway, request, asked, opened, str(opened.session.id), opened.hmac_session)


async def renew(gateway: Gateway, request: Request) -> bytes:
    """PUT: lets a subscription go on, with the services asked for now (3.5).

    The answer is as complete as that to POST: clients replace what they know by it.
    """
    asked = await read_body(request)
    _, identity = await identify(gateway, request)
    name = request.address.names[0]
    key = name if request.address.correlator else parse_id(name)
    product = Product.UC if request.uc else Product.LINK
    try:
        if key is None:
            raise NotFound("There is no such subscription")
        opened = await gateway.subscriptions.renew(identity.user, key, wanted(asked, request, product))
    except NotFound as error:
        # Only the number that its family knows tells a client to stop (3.5).
        name = "subscription_gone_uc" if product is Product.UC else "subscription_gone"
        raise Refusal(name, error.message) from None
    session_id = opened.session.id
    own = identity.session_id == session_id
    hmac_session = gateway.credentials.hmac_session(opened.session) if own else None
    return tell(gateway, request, asked, opened, str(session_id), hmac_session)


async def end(gateway: Gateway, request: Request) -> bytes:
    """DELETE: ends a subscription. To its client it makes no difference whether it was there (3.6)."""
    _, identity = await identify(gateway, request)
    name = request.address.names[0]
    key = name if request.address.correlator else parse_id(name)
    if key is not None:
        await gateway.subscriptions.end(identity.user, key)
    return answers.done(wrapper(request.address.resource))


async def read_body(request: Request) -> SubscribeRequest:
    """The body of POST and PUT.

    Raises:
        RequestError: it is none, or asks for another kind of notifications.
        TooLarge: it is too large.
    """
    asked = decode_subscribe(await request.body())
    if asked.notification_type.casefold() != WEBSOCKET.casefold():
        raise RequestError(
            f"The only kind of notifications is {WEBSOCKET}",
            "subscribeRequest.notificationType",
            StatusCode.INVALID_VALUE,
        )
    return asked


def wanted(asked: SubscribeRequest, request: Request, product: Product) -> Wanted:
    """What a client asks for, as services take it."""
    return Wanted(
        services=asked.services,
        lifetime=asked.expires,
        localization=asked.localization or "English_US",
        correlator=asked.client_correlator,
        force=asked.force_logout,
        device=request.device,
        product=product,
    )


def tell(
    gateway: Gateway,
    request: Request,
    asked: SubscribeRequest,
    opened: Opened,
    name: str,
    hmac_session: str | None = None,
) -> bytes:
    """The answer to POST and PUT (3.1).

    Args:
        gateway: for the keys.
        request: the subscription's path is made of its path, which is how the client spells it.
        asked: what the client asked for.
        opened: what it gets.
        name: the end of the subscription's path.
        hmac_session: what the client is to show from now on, or None.
    """
    session, subscription = opened.session, opened.subscription
    address = request.address
    # Before the resource's name come the user, and behind it what tells one subscription from another.
    below = len(address.names) + address.correlator
    root = request.path.removesuffix("/").rsplit("/", below)[0] if below else request.path.removesuffix("/")
    correlator = subscription.correlator
    turn_lifetime = gateway.turn.lifetime
    if subscription.product is Product.ANONYMOUS:
        # Anybody may be such a caller: what relays for them is to end with what they came for.
        turn_lifetime = min(turn_lifetime, subscription.lifetime)
    expires_at = int(gateway.clock.now().timestamp() + turn_lifetime)
    relay = turn.credentials(gateway.turn.secret, session.user_name or "anonymous", expires_at)
    return answers.subscribed(
        subscription=f"{root}/{name}",
        channel=channel_of(session.id, gateway.signer),
        expires=int(subscription.lifetime),
        services=subscription.services,
        status_code=StatusCode.OK if len(subscription.services) == len(asked.services) else StatusCode.PARTIAL,
        notification_type=WEBSOCKET,
        session_id=hmac_session,
        client_correlator=correlator if correlator is not None and fits_path(correlator) else None,
        turn=relay if asked.use_turn else None,
    )
