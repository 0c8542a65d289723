"""Resources that clients ask for and this server does not have: refused in the form that they understand."""

from __future__ import annotations

from offhook.gateways.kandy import anonymous, uc
from offhook.gateways.kandy.errors import Refusal
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.request import Request, identify
from offhook.protocols.kandy.paths import Resource


async def refuse(gateway: Gateway, request: Request) -> bytes:
    """Refuses the request, first of all if its credentials are bad: what there is, is for users to know.

    Raises:
        Refusal: always.
        OffhookError: as finding out whose request it is does.
    """
    resource = request.address.resource
    if resource is Resource.ANONYMOUS_CALL:
        anonymous.check_realm(request)
    elif request.address.user is not None:
        await identify(gateway, request)
    else:
        await uc.identify(gateway, request)
    raise Refusal("not_offered", f"{resource.value} is not offered by this server")
