"""UC's tokens and messages: all by GET, with a token in the query (Kandy protocol notes, 2.4, 2.5 and 6.2)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from offhook.codes import EndReason
from offhook.domain.accounts import MAX_NAME, User
from offhook.domain.messages import Message, Thread
from offhook.domain.subscriptions import user_of
from offhook.errors import AccessDenied, InvalidInput, NotFound
from offhook.gateways.kandy.errors import Refusal, proving
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.ids import message_event_id, parse_id, parse_message_id
from offhook.gateways.kandy.request import Request
from offhook.protocols.kandy import uc
from offhook.services.credentials import AccessProof, BearerProof, PasswordProof, Proof
from offhook.services.logins import Tokens, is_ours

DEFAULT_MAX = 50
"""Messages of a conversation that one request gets unless it asks for more."""
OTHER_TYPES = frozenset({"sms", "group"})
"""Kinds of conversations that there are none of here."""

_USERNAME_CLAIM = "sub"
_CLAIMS = msgspec.json.Decoder(dict[str, object])

T = TypeVar("T")


# --- tokens -----------------------------------------------------------------------------------------------------------


async def make_token(gateway: Gateway, request: Request) -> bytes:
    """``mk_token``: signs in with a password. A token beside it is an old one, and looked away from (2.4)."""
    with proving():
        proof = next((proof for proof in request.proofs() if isinstance(proof, PasswordProof)), None)
        if proof is None:
            raise AccessDenied("No username and password were given")
        application = await gateway.applications.by_username(proof.authname)
        made = await gateway.logins.log_in(application, proof.authname, proof, _lifetime(request), request.client)
    return _tokens(made)


async def refresh_token(gateway: Gateway, request: Request) -> bytes:
    """``refresh_token``: new tokens for a refresh token, or for an access token, which newer clients send (2.5)."""
    token = request.value("token")
    with proving():
        if not token:
            raise AccessDenied("No token was given")
        with gateway.credentials.forging(request.client_address):
            made = await gateway.logins.refresh(token, _lifetime(request))
    return _tokens(made)


async def revoke_token(gateway: Gateway, request: Request) -> bytes:
    """``revoke_token``: makes the tokens of a sign-in worthless, and ends what was made by it.

    Clients up to 4.14 end by it.
    """
    token = request.value("token")
    with proving():
        if not token:
            raise AccessDenied("No token was given")
        with gateway.credentials.forging(request.client_address):
            ended = await gateway.logins.revoke(token)
    await gateway.sessions.tell_ended(ended, EndReason.CLIENT)
    return uc.done()


def _tokens(made: Tokens) -> bytes:
    return uc.tokens(made.access, made.refresh, made.expires)


def _lifetime(request: Request) -> float | None:
    """The seconds asked for; a client that was not told any may write anything."""
    seconds = parse_id(request.value("expires") or "")
    return None if seconds is None else float(seconds)


# --- whose request it is ----------------------------------------------------------------------------------------------


async def identify(gateway: Gateway, request: Request) -> User:
    """The user whose request it is. The path does not name one, so the credentials must.

    Raises:
        Refusal: they are refused, name nobody, or too many were refused.
        RateLimited: too many requests of this user.
        Unavailable: too many passwords wait to be checked, or the store is away.
    """
    with proving():
        user = await _proved(gateway, request)
    request.admission.user(user)
    return user


async def _proved(gateway: Gateway, request: Request) -> User:
    refused: AccessDenied | None = None
    for proof in request.proofs():
        try:
            return await _user(gateway, request, proof)
        except AccessDenied as error:
            refused = refused or error
    raise refused or AccessDenied("No token was given")


async def _user(gateway: Gateway, request: Request, proof: Proof) -> User:
    if isinstance(proof, AccessProof) and is_ours(proof.token):
        return (await gateway.credentials.open(proof.token, request.client_address)).user
    if isinstance(proof, PasswordProof):
        application, username = await gateway.applications.by_username(proof.authname), proof.authname
    elif isinstance(proof, BearerProof | AccessProof):
        claims = _claims(proof.token)
        application = await gateway.applications.by_username(claims.get(_USERNAME_CLAIM, ""))
        claim = _USERNAME_CLAIM if application.tokens is None else application.tokens.username_claim
        username = claims.get(claim, "")
    else:
        raise AccessDenied("These credentials do not tell whose they are")
    return (await gateway.credentials.identify(application, username, [proof], request.client_address)).user


def _claims(token: str) -> dict[str, str]:
    """What a JWT claims in words, **unverified**: only to know as whom it is to be verified."""
    parts = token.split(".")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)) if len(parts) == 3 else b"{}"
        claims = _CLAIMS.decode(payload)
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return {name: value for name, value in claims.items() if isinstance(value, str)}


# --- messages ---------------------------------------------------------------------------------------------------------


async def send(gateway: Gateway, request: Request) -> bytes:
    """``send``: a text to one user."""
    user = await identify(gateway, request)
    if request.values("attach"):
        raise Refusal("not_offered", "Attachments are not offered by this server")
    receivers = list(dict.fromkeys(user_of(to) for to in (*request.values("to"), *request.values("tos"))))
    if len(receivers) > 1:
        raise Refusal("not_offered", "Conversations of more than two users are not offered by this server")
    if not receivers or not 0 < len(receivers[0]) <= MAX_NAME:
        raise InvalidInput(f"to must have 1 to {MAX_NAME} characters", "to")
    message = await gateway.messages.send(user, receivers[0], request.value("txt") or "", "txt")
    return uc.sent(message_event_id(message.id))


async def threads(gateway: Gateway, request: Request) -> bytes:
    """``threads``: the user's conversations, the latest first.

    When they were last touched is not asked: clients garble that parameter.
    """
    user = await identify(gateway, request)
    found = () if request.value("type") in OTHER_TYPES else await gateway.messages.threads(user)
    return uc.threads(_thread(thread) for thread in found)


async def thread(gateway: Gateway, request: Request) -> bytes:
    """``thread``: one conversation by its id; behind a name or id in the path, what was said in it."""
    user = await identify(gateway, request)
    names = request.address.names
    if not names:
        found = await _with_key(request.value("id") or "", lambda key: gateway.messages.thread(user, key))
        return uc.threads([_thread(found)])
    wanted = request.value("id")
    if wanted is not None:
        message_id = _message_id(wanted)
        message = await _with_key(names[0], lambda key: gateway.messages.get(user, key, message_id))
        return uc.messages([_row(user, message)])
    most = parse_id(request.value("max") or "")
    limit = DEFAULT_MAX if most is None else most
    listed = await _with_key(names[0], lambda key: gateway.messages.list(user, key, limit))
    return uc.messages(_row(user, message) for message in listed)


async def delete(gateway: Gateway, request: Request) -> bytes:
    """``delete``: a conversation, or one message of it, for this user."""
    user = await identify(gateway, request)
    name, *rest = request.address.names
    message_id = _message_id(rest[0]) if rest else None
    await _with_key(name, lambda key: gateway.messages.delete(user, key, message_id))
    return uc.done()


async def _with_key(name: str, work: Callable[[int | str], Awaitable[T]]) -> T:
    """Does something with a conversation that a client calls by its id or by the other user's name.

    Raises:
        NotFound: there is none that is called so; or as ``work`` does.
    """
    thread_id = parse_id(name)
    if thread_id is not None:
        try:
            return await work(thread_id)
        except NotFound:
            # Somebody's name may be a number, too.
            pass
    return await work(user_of(name))


def _message_id(text: str) -> int:
    message_id = parse_message_id(text)
    if message_id is None:
        raise NotFound("There is no such message")
    return message_id


def _thread(thread: Thread) -> uc.DirectThread:
    received = None if thread.received_at is None else int(thread.received_at.timestamp())
    last = None if thread.last is None else thread.last.text
    return uc.DirectThread(thread.id, thread.peer, last_received=received, last_message=last)


def _row(user: User, message: Message) -> uc.MessageRow:
    return uc.MessageRow(
        id=message_event_id(message.id),
        text=message.text,
        incoming=message.sender_id != user.id,
        sender=message.sender,
        when=int(message.sent_at.timestamp() * 1000),
    )
