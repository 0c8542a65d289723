"""Authentication functions: the application's own say on who may start a session.

Write a module, name it in the settings (``functions = "functions"``), and decorate::

    from offhook.functions import AccessDenied, on

    @on.user_attempted_start_session
    async def authenticate(event, context):
        if not await my_accounts.check(event.username, event.auth_params.get("password")):
            raise AccessDenied("Wrong password")
        return {"display_name": "Jane", "properties": {"plan": "pro"}}

Returning lets the user in; what is returned (nothing, or an object with ``display_name`` and ``properties``)
is merged into the user. Raising refuses: the client reads the message of an `AccessDenied`; of any other
exception it learns only that the function failed. A function that runs out of time refuses too.

``async def`` functions share one event loop in a thread of their own; plain ``def`` functions run in threads
and may block. A function that blocks the shared loop is left behind on it: calls that were under way there
**start again** on a new loop, so a function must be safe to call twice for the same attempt.

An application can have a signed webhook instead; its receiver checks requests with `verify_signature`.
"""

from __future__ import annotations

from offhook.errors import AccessDenied
from offhook.functions.events import (
    BlockingContext,
    BlockingUsers,
    Context,
    StartSessionAttempted,
    Users,
)
from offhook.functions.registry import on
from offhook.functions.signature import verify_signature

__all__ = [
    "AccessDenied",
    "BlockingContext",
    "BlockingUsers",
    "Context",
    "StartSessionAttempted",
    "Users",
    "on",
    "verify_signature",
]
