"""The resource ``instantmessage`` of Link's clients (Kandy protocol notes, 6.1)."""

from __future__ import annotations

from offhook.domain.subscriptions import IM
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.ids import message_event_id
from offhook.gateways.kandy.request import Request, identify
from offhook.protocols.kandy import answers
from offhook.protocols.kandy.requests import decode_message


async def send(gateway: Gateway, request: Request) -> bytes:
    """POST: sends a message to one user."""
    asked = decode_message(await request.body())
    _, identity = await identify(gateway, request)
    await gateway.subscriptions.require(identity, IM)
    message = await gateway.messages.send(identity.user, asked.to, asked.text, "imRequest.message")
    return answers.message_sent(message_event_id(message.id))
