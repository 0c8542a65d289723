"""Writes who is there, and then when users come and go, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from urllib.parse import urlsplit

from offhook.chatkitty import ChatKitty, Resumed, SessionEnded, UserFilter, UserPresenceChanged

SERVER = urlsplit(os.environ.get("OFFHOOK_URL", "http://127.0.0.1:8686"))
API_KEY = os.environ.get("OFFHOOK_API_KEY", "")
PASSWORD = os.environ.get("OFFHOOK_PASSWORD")
USER = os.environ.get("OFFHOOK_USER", "alice@example.com" if PASSWORD else "presence-watcher")


async def main() -> None:
    async with (
        ChatKitty(API_KEY, host=SERVER.netloc, is_secure=SERVER.scheme == "https") as kitty,
        # From here on no event is missed: those that come while the list is fetched wait for their turn.
        kitty.events("user.presence.changed", "session.resumed", "session.ended") as events,
    ):
        started = await kitty.start_session(USER, auth_params={"password": PASSWORD} if PASSWORD else None)
        if started.failed:
            sys.exit(f"No session: {started.error.message}")
        print("Watching as", started.session.user.name, flush=True)
        await show(kitty)
        async for event in events:
            if isinstance(event, UserPresenceChanged):
                print(event.user.name, "came" if event.user.presence.online else "left", flush=True)
            elif isinstance(event, Resumed) and not event.complete:
                # Some events were missed while the connection was lost.
                await show(kitty)
            elif isinstance(event, SessionEnded):
                sys.exit(f"The server has ended the session: {event.error.message}")


async def show(kitty: ChatKitty) -> None:
    """Prints everybody who is online."""
    listed = (await kitty.list_users(UserFilter(online=True))).unwrap()
    async for user in listed.paginator:
        print(user.name, "is here", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
